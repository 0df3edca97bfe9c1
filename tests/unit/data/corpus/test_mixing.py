from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from priorkit.core.errors import UsageError
from priorkit.data.corpus import mixing
from priorkit.data.corpus.mixing import (
    DrawnDocuments,
    budgets,
    concatenated,
    document_budgets,
    draw,
    make_pools,
)
from priorkit.data.corpus.selection import DUPLICATE, no_marks
from tests.support.token_sources import source, whole


def lengths(seed: int, documents: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 50, documents)


def drawn_of(sizes: Mapping[str, np.ndarray], wanted: Mapping[str, int], seed: int) -> DrawnDocuments:
    sources = [source(name, lengths) for name, lengths in sizes.items()]
    return concatenated(list(draw(whole(sources), sources, list(wanted.values()), seed)))


def tokens_by_source(drawn: DrawnDocuments, sources: int) -> list[int]:
    return [int(drawn.length[drawn.pool == number].sum()) for number in range(sources)]


def epochs(names: Mapping[str, int], limit: float) -> dict[str, float]:
    return dict.fromkeys(names, limit)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), a=st.integers(1, 900), b=st.integers(0, 900))
def test_every_source_gives_exactly_its_budget(seed: int, a: int, b: int) -> None:
    sizes = {"a": lengths(1, 10), "b": lengths(2, 30)}
    drawn = drawn_of(sizes, {"a": a, "b": b}, seed)
    assert tokens_by_source(drawn, 2) == [a, b]
    assert (drawn.length > 0).all()
    starts = [np.concatenate([[0], np.cumsum(own)]) for own in sizes.values()]
    for pool, document, begin, length in zip(
        drawn.pool, drawn.document, drawn.begin, drawn.length, strict=True
    ):
        assert begin == starts[pool][document]
        assert length <= list(sizes.values())[pool][document]


@settings(deadline=None, max_examples=10)
@given(
    st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=30), min_size=1, max_size=4),
    st.integers(5, 20),
    st.integers(0, 99),
)
def test_the_order_does_not_depend_on_the_size_of_blocks(
    sizes: list[list[int]], block: int, seed: int
) -> None:
    named = {f"s{n}": np.array(lengths) for n, lengths in enumerate(sizes)}
    wanted = {name: int(lengths.sum() * 1.5) + 1 for name, lengths in named.items()}
    large = drawn_of(named, wanted, seed)
    before = mixing.BLOCK
    mixing.BLOCK = block
    try:
        small = drawn_of(named, wanted, seed)
    finally:
        mixing.BLOCK = before
    for column in ("pool", "document", "begin", "length"):
        assert np.array_equal(getattr(large, column), getattr(small, column))


def test_documents_repeat_only_after_all_were_seen() -> None:
    sizes = {"a": lengths(3, 20)}
    total = int(sizes["a"].sum())
    counts = Counter(drawn_of(sizes, {"a": 2 * total + 5}, 1).document.tolist())
    assert set(counts) == set(range(20))
    assert set(counts.values()) <= {2, 3}


def test_a_source_keeps_its_order_when_others_are_added() -> None:
    a, b = lengths(4, 20), lengths(5, 20)
    a_only = drawn_of({"a": a}, {"a": 200}, 7)
    both = drawn_of({"b": b, "a": a}, {"b": 300, "a": 200}, 7)
    assert np.array_equal(both.document[both.pool == 1], a_only.document)
    other = drawn_of({"a": a}, {"a": 200}, 8)
    assert not np.array_equal(other.document, a_only.document)


def test_any_stretch_holds_the_mixture() -> None:
    sizes = {"a": np.full(1000, 10), "b": np.full(1000, 10)}
    drawn = drawn_of(sizes, {"a": 9000, "b": 3000}, 1)
    for start in range(0, len(drawn) - 100, 100):
        share = (drawn.pool[start : start + 100] == 0).mean()
        assert share == pytest.approx(0.75, abs=0.02)


def test_nothing_wanted_gives_nothing() -> None:
    assert len(drawn_of({"a": lengths(1, 3)}, {"a": 0}, 1)) == 0


def test_pools_hold_what_is_trained_on_sorted_by_labels(tmp_path: Path) -> None:
    one = source("a", [3, 4, 5, 6], labels=[0, 8, 8, 1])
    marks = no_marks([one], tmp_path)
    marks[0][2] = DUPLICATE
    pools = make_pools([one], marks, True, tmp_path)
    assert [(p.labels, p.documents, p.tokens) for p in pools] == [(0, 1, 3), (1, 1, 6), (8, 1, 4)]
    assert [list(p.ids) for p in pools if p.ids is not None] == [[0], [3], [1]]
    (pool,) = make_pools([one], marks, False, tmp_path / "..")
    assert (pool.documents, pool.tokens) == (3, 13)


def test_budgets_follow_weights_on_any_scale() -> None:
    sizes = {"a": 1000, "b": 3000}
    once = epochs(sizes, 1)
    assert budgets(sizes, {}, None, once) == {"a": 1000, "b": 3000}
    assert budgets(sizes, {"a": 2, "b": 6}, 400, once) == {"a": 100, "b": 300}
    assert budgets(sizes, {"a": 0, "b": 1}, 400, once) == {"a": 0, "b": 400}
    assert budgets(sizes, {"a": 1, "b": 1}, None, once) == {"a": 1000, "b": 1000}
    assert budgets(sizes, {"a": 1, "b": 1}, 4000, epochs(sizes, 2)) == {"a": 2000, "b": 2000}
    assert budgets(sizes, {"a": 1, "b": 1}, 4000, {"a": 2.0, "b": 1.0}) == {"a": 2000, "b": 2000}


@pytest.mark.parametrize(
    ("weights", "tokens", "message"),
    [
        ({"a": 1, "c": 1}, None, "no source is named 'c'"),
        ({"a": 1}, None, "no weight for b"),
        ({"a": -1, "b": 1}, None, "negative"),
        ({"a": 0, "b": 0}, None, "all weights are zero"),
        ({"a": 1, "b": 1}, 4000, "2,000 tokens of 'a' are needed, it has 1,000: 2.0 epochs, allowed are 1"),
        ({"a": 1, "b": 1}, 4000, "or add 1,000 tokens"),
    ],
)
def test_budgets_that_cannot_be_met_are_explained(
    weights: dict[str, float], tokens: int | None, message: str
) -> None:
    sizes = {"a": 1000, "b": 3000}
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        budgets(sizes, weights, tokens, epochs(sizes, 1))


def test_weights_can_be_shares_of_documents() -> None:
    sizes = {"a": np.full(100, 10), "b": np.full(100, 30)}
    sources = [source(name, lengths) for name, lengths in sizes.items()]
    pools = whole(sources)

    def wanted(weights: dict[str, float], tokens: int | None, limit: float = 4) -> list[int]:
        return document_budgets(pools, sources, weights, tokens, {"a": limit, "b": limit}, 1)

    assert wanted({"a": 1, "b": 1}, 2000) == [500, 1500]
    assert wanted({"a": 3, "b": 1}, None) == [1000, 990]
    assert wanted({"a": 1, "b": 1}, 6000) == [1500, 4500]
    with pytest.raises(UsageError, match=r"150 documents of .a. are needed, it has 100: 1\.5 epochs"):
        wanted({"a": 1, "b": 1}, 6000, 1)


def test_no_document_is_cut_where_weights_are_shares_of_documents() -> None:
    sizes = {"a": lengths(1, 40), "b": lengths(2, 60)}
    sources = [source(name, own) for name, own in sizes.items()]
    pools = whole(sources)
    wanted = document_budgets(pools, sources, {"a": 2, "b": 1}, None, {"a": 1, "b": 1}, 5)
    drawn = concatenated(list(draw(pools, sources, wanted, 5)))
    assert (drawn.pool == 0).sum() == 40
    assert (drawn.pool == 1).sum() == 20
    for pool, document, length in zip(drawn.pool, drawn.document, drawn.length, strict=True):
        assert length == list(sizes.values())[pool][document]
