from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from priorkit.core.errors import UsageError
from priorkit.data.corpus.label_targets import TOLERANCE, has_label, label_budgets
from priorkit.data.corpus.mixing import DocumentPool
from priorkit.data.text.concepts import LABELS
from priorkit.data.text.documents import label_bits

VISUAL, REASONING, BOTH = (
    label_bits(labels)
    for labels in (["visual_concept"], ["code_reasoning"], ["visual_concept", "code_reasoning"])
)


def pools_of(*tokens: tuple[int, int, int]) -> list[DocumentPool]:
    """Pools of ``(source, label bits, tokens)``."""
    return [DocumentPool(source, bits, f"{source}-{bits}", None, 1, count) for source, bits, count in tokens]


WEB_AND_CODE = pools_of(
    (0, 0, 60_000), (0, VISUAL, 25_000), (0, REASONING, 10_000), (0, BOTH, 5_000),
    (1, 0, 3_000), (1, REASONING, 90_000), (1, BOTH, 7_000),
)  # fmt: skip
NAMES = ["web", "code"]


def shares(counts: list[int], pools: list[DocumentPool], label: str) -> float:
    return float(np.array(counts)[has_label(pools, label)].sum() / sum(counts))


def budgets(
    targets: dict[str, float], weights: dict[str, float], tokens: int | None, limit: float = 4
) -> list[int]:
    return label_budgets(WEB_AND_CODE, NAMES, targets, weights, tokens, dict.fromkeys(NAMES, limit))


@pytest.mark.parametrize("tokens", [100_000, 7_777, None])
@pytest.mark.parametrize("weights", [{}, {"web": 0.5, "code": 0.5}])
def test_two_targets_are_met(tokens: int | None, weights: dict[str, float]) -> None:
    counts = budgets({"reasoning": 0.60, "visual": 0.15}, weights, tokens)
    assert shares(counts, WEB_AND_CODE, "reasoning") == pytest.approx(0.60, abs=0.001)
    assert shares(counts, WEB_AND_CODE, "visual") == pytest.approx(0.15, abs=0.001)
    if tokens:
        assert sum(counts) == tokens
    else:
        assert all(count <= pool.tokens for count, pool in zip(counts, WEB_AND_CODE, strict=True))
        assert sum(counts) > 50_000
    if weights:
        assert sum(counts[:4]) / sum(counts) == pytest.approx(0.5, abs=0.001)


def test_one_target_scales_text_with_the_label_by_one_factor_and_the_rest_by_another() -> None:
    counts = np.array(budgets({"reasoning": 0.75}, {}, 40_000))
    available = np.array([pool.tokens for pool in WEB_AND_CODE])
    has = has_label(WEB_AND_CODE, "reasoning")
    factors = counts / available
    assert factors[has] == pytest.approx(0.75 * 40_000 / available[has].sum(), rel=1e-3)
    assert factors[~has] == pytest.approx(0.25 * 40_000 / available[~has].sum(), rel=1e-3)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_or_none(share: float) -> None:
    counts = np.array(budgets({"code_reasoning": share}, {}, 50_000))
    has = has_label(WEB_AND_CODE, "code_reasoning")
    assert counts[has].sum() == share * 50_000
    assert counts[~has].sum() == (1 - share) * 50_000


def test_a_pool_that_may_be_repeated_no_more_leaves_the_rest_to_others() -> None:
    counts = budgets({"visual": 0.60}, {}, 100_000, limit=2)
    visual = has_label(WEB_AND_CODE, "visual")
    caps = [2 * pool.tokens for pool in WEB_AND_CODE]
    assert all(count <= cap for count, cap in zip(counts, caps, strict=True))
    assert shares(counts, WEB_AND_CODE, "visual") == pytest.approx(0.60, abs=0.001)
    assert np.array(counts)[visual].sum() == pytest.approx(60_000, abs=5)


@pytest.mark.parametrize(
    ("targets", "weights", "tokens", "messages"),
    [
        ({"visual": 0.9}, {}, 200_000, ["visual = 90.0% of 200,000 tokens are 180,000; 37,000 tokens carry it",
                                        "at most 74.0%", "add 32,000 tokens"]),
        ({"reasoning": 0.1}, {"web": 0, "code": 1}, 50_000, ["leaves 45,000 for text without it", "at least 76.0% at these weights"]),
        ({"visual": 0.05, "visual_concept": 0.30}, {}, 50_000, ["each target can be met on its own, but not all at once",
                                                                "(target 30.0%)"]),
        ({"visual": 0.2}, {}, 10_000_000, ["10,000,000 tokens are needed", "web 100,000, code 100,000", "800,000"]),
        ({"visuals": 0.2}, {}, None, ["no label is named 'visuals'", "did you mean 'visual'"]),
        ({"visual": 20}, {}, None, ["a share is from 0 to 1"]),
        ({"science_reasoning": 0.1}, {}, None, ["0 tokens carry it", "at most 0.0%"]),
    ],
)  # fmt: skip
def test_targets_that_cannot_be_met_are_explained(
    targets: dict[str, float], weights: dict[str, float], tokens: int | None, messages: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        budgets(targets, weights, tokens)
    for message in messages:
        assert message in str(caught.value)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 63), st.integers(1, 10**6)), min_size=1, max_size=12
    ),
    st.dictionaries(st.sampled_from(LABELS), st.floats(0, 1), min_size=1, max_size=3),
    st.integers(10_000, 10**6),
)
def test_targets_are_met_or_refused(
    tokens: list[tuple[int, int, int]], targets: dict[str, float], total: int
) -> None:
    concepts = [
        label_bits([name for at, name in enumerate(LABELS[:6]) if bits >> at & 1]) for _, bits, _ in tokens
    ]
    pools = pools_of(
        *((source, bits, count) for (source, _, count), bits in zip(tokens, concepts, strict=True))
    )
    try:
        counts = label_budgets(pools, ["a", "b"], targets, {}, total, {"a": 3, "b": 2})
    except UsageError:
        return
    assert sum(counts) == pytest.approx(total, abs=len(pools))
    for label, share in targets.items():
        assert shares(counts, pools, label) == pytest.approx(share, abs=TOLERANCE + 1e-4 + len(pools) / total)
    for count, pool in zip(counts, pools, strict=True):
        assert 0 <= count <= pool.tokens * (3 if pool.source == 0 else 2)


def test_label_bits_hold_what_follows_from_them() -> None:
    assert label_bits([]) == 0
    assert label_bits(["math_reasoning"]) == 1 << 4 | 1 << 7
    assert label_bits(["visual"]) == 1 << 6
    with pytest.raises(ValueError, match="unknown label 'visual_concepts'"):
        label_bits(["visual_concepts"])
    with pytest.raises(ValueError, match="not a list"):
        label_bits("visual")
