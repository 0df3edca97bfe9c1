"""Shares of supervised tokens are exact but for less than the smallest conversation that is left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from priorkit.core.errors import UsageError
from priorkit.data.conversations.conversation import Conversation, Turn
from priorkit.data.conversations.conversation_store import mix_conversations
from priorkit.data.conversations.token_mixture import draw_by_tokens

counts = st.lists(st.integers(1, 40), min_size=8, max_size=60)


@given(counts, counts, st.integers(1, 9), st.integers(0, 5))
def test_budgets_are_met(first: list[int], second: list[int], weight: int, seed: int) -> None:
    tokens = {"a": np.array(first), "b": np.array(second)}
    subset = min(sum(first), sum(second))
    assume(min(weight, 10 - weight) * subset >= 10 * max(*first, *second))
    drawn = draw_by_tokens(tokens, {"a": weight, "b": 10 - weight}, subset, 4.0, seed)
    both = np.concatenate([first, second])
    of_first = drawn < len(first)
    for mask, share, source, start in (
        (of_first, weight, first, 0),
        (~of_first, 10 - weight, second, len(first)),
    ):
        wanted, got = round(share * subset / 10), int(both[drawn[mask]].sum())
        left = np.setdiff1d(np.arange(len(source)), drawn[mask] - start)
        assert got <= wanted
        assert wanted - got < (min(np.array(source)[left]) if len(left) else max(source) + 1)
    assert (
        drawn.tolist() == draw_by_tokens(tokens, {"a": weight, "b": 10 - weight}, subset, 4.0, seed).tolist()
    )


def test_enough_small_conversations_fill_a_budget_exactly() -> None:
    generator = np.random.default_rng(0)
    tokens = {"a": generator.integers(1, 200, 500), "b": generator.integers(1, 20, 5000)}
    drawn = draw_by_tokens(tokens, {"a": 1, "b": 3}, 40_000, 4.0, 7)
    both = np.concatenate(list(tokens.values()))
    sums = [int(both[drawn[mask]].sum()) for mask in (drawn < 500, drawn >= 500)]
    assert sums == [10_000, 30_000]
    half = both[drawn[: len(drawn) // 2]]
    assert 0.2 < half[drawn[: len(drawn) // 2] < 500].sum() / half.sum() < 0.3, (
        "the sources are not interleaved"
    )


def test_a_source_is_repeated_once_it_is_used_up() -> None:
    drawn = draw_by_tokens({"a": np.array([3, 4]), "b": np.array([50])}, {"a": 21, "b": 50}, 71, 4.0, 0)
    assert sorted(drawn.tolist()) == [0, 0, 0, 1, 1, 1, 2]
    with pytest.raises(UsageError, match="35 supervised tokens of 'a' are needed, it has 7"):
        draw_by_tokens({"a": np.array([3, 4]), "b": np.array([50])}, {"a": 35, "b": 50}, 85, 4.0, 0)
    with pytest.raises(UsageError, match="the share of 'a' is 2 supervised tokens, its smallest"):
        draw_by_tokens({"a": np.array([3, 4]), "b": np.array([50])}, {"a": 2, "b": 50}, 52, 4.0, 0)


def test_mixtures_hold_what_they_realised(tmp_path: Path) -> None:
    def texts(lengths: list[int]) -> list[Conversation]:
        return [Conversation(str(n), (Turn("user", "?"), Turn("assistant", "x" * n)), ()) for n in lengths]

    mixture = mix_conversations(
        {"short": texts([1, 2, 3, 4] * 5), "long": texts([10, 20] * 5)}, tmp_path, {"short": 1, "long": 2}, 90, 4.0, 0,
        lambda conversation: len(conversation.turns[1].text),
    )  # fmt: skip
    assert mixture.token_shares == {
        "short": {"supervised_tokens": 30, "share": 1 / 3}, "long": {"supervised_tokens": 60, "share": 2 / 3},
    }  # fmt: skip
    assert sum(len(mixture[index].turns[1].text) for index in range(len(mixture))) == 90
    plain = mix_conversations({"short": texts([1, 2])}, tmp_path, {}, None, 4.0, 0)
    assert plain.token_shares == {}
