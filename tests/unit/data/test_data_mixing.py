from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from priorkit.core.errors import UsageError
from priorkit.data.mixing import Draw, budgets, draw


def lengths(seed: int, documents: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 50, documents)


def tokens_by_source(drawn: Draw, sources: int) -> list[int]:
    return [int(drawn.length[drawn.source == number].sum()) for number in range(sources)]


@settings(deadline=None)
@given(seed=st.integers(0, 1000), a=st.integers(1, 900), b=st.integers(0, 900))
def test_every_source_gives_exactly_its_budget(seed: int, a: int, b: int) -> None:
    sizes = {"a": lengths(1, 10), "b": lengths(2, 30)}
    drawn = draw(sizes, {"a": a, "b": b}, seed)
    assert tokens_by_source(drawn, 2) == [a, b]
    assert (drawn.length > 0).all()
    for source, document, length in zip(drawn.source, drawn.document, drawn.length, strict=True):
        assert length <= list(sizes.values())[source][document]


def test_documents_repeat_only_after_all_were_seen() -> None:
    sizes = {"a": lengths(3, 20)}
    total = int(sizes["a"].sum())
    counts = Counter(draw(sizes, {"a": 2 * total + 5}, 1).document.tolist())
    assert set(counts) == set(range(20))
    assert set(counts.values()) <= {2, 3}


def test_a_source_keeps_its_order_when_others_are_added() -> None:
    a, b = lengths(4, 20), lengths(5, 20)
    alone = draw({"a": a}, {"a": 200}, 7)
    joined = draw({"b": b, "a": a}, {"b": 300, "a": 200}, 7)
    assert np.array_equal(joined.document[joined.source == 1], alone.document)
    other = draw({"a": a}, {"a": 200}, 8)
    assert not np.array_equal(other.document, alone.document)


def test_any_stretch_holds_the_mixture() -> None:
    sizes = {"a": np.full(1000, 10), "b": np.full(1000, 10)}
    drawn = draw(sizes, {"a": 9000, "b": 3000}, 1)
    for start in range(0, len(drawn.source) - 100, 100):
        share = (drawn.source[start : start + 100] == 0).mean()
        assert share == pytest.approx(0.75, abs=0.02)


def test_nothing_wanted_gives_nothing() -> None:
    assert len(draw({"a": lengths(1, 3)}, {"a": 0}, 1).length) == 0


def test_budgets_follow_weights_on_any_scale() -> None:
    sizes = {"a": 1000, "b": 3000}
    assert budgets(sizes, {}, None, 1) == {"a": 1000, "b": 3000}
    assert budgets(sizes, {"a": 2, "b": 6}, 400, 1) == {"a": 100, "b": 300}
    assert budgets(sizes, {"a": 0, "b": 1}, 400, 1) == {"a": 0, "b": 400}
    assert budgets(sizes, {"a": 1, "b": 1}, None, 1) == {"a": 1000, "b": 1000}
    assert budgets(sizes, {"a": 1, "b": 1}, 4000, 2) == {"a": 2000, "b": 2000}


@pytest.mark.parametrize(
    ("weights", "tokens", "message"),
    [
        ({"a": 1, "c": 1}, None, "no source is named 'c'"),
        ({"a": 1}, None, "no weight for b"),
        ({"a": -1, "b": 1}, None, "negative"),
        ({"a": 0, "b": 0}, None, "all weights are zero"),
        ({"a": 1, "b": 1}, 4000, "2,000 tokens of 'a' are wanted, it has 1,000: 2.0 epochs, allowed are 1"),
    ],
)
def test_budgets_that_cannot_be_met_are_explained(
    weights: dict[str, float], tokens: int | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        budgets({"a": 1000, "b": 3000}, weights, tokens, 1)
