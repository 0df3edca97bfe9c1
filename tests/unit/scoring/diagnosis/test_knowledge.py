"""Knowledge gap and correct given attempted against their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from priorkit.core.errors import InputError
from priorkit.scoring.diagnosis.knowledge import correct_given_attempted, knowledge_gap
from priorkit.scoring.statistics.intervals import bootstrap_mean


def test_the_gap_is_the_mean_difference_over_entities_that_can_be_named() -> None:
    named, shown = [1, 1, 0, 1, 1], [0.5, 1, 0, 0, 0]
    entities, nameable = ["a", "a", "b", "c", "d"], [True, True, True, True, False]
    gap = knowledge_gap(named, shown, entities, nameable, seed=3)
    assert gap.value == pytest.approx((0.5 + 0 + 0 + 1) / 4)
    expected = bootstrap_mean([0.5, 0, 0, 1], seed=3, clusters=["a", "a", "b", "c"])
    assert (gap.low, gap.high) == (expected.low, expected.high)


def test_the_gap_is_undefined_where_nothing_can_be_named() -> None:
    assert math.isnan(knowledge_gap([1], [0], ["a"], [False], seed=0).value)


def test_a_gap_of_different_questions_is_refused() -> None:
    with pytest.raises(InputError, match="same questions"):
        knowledge_gap([1, 0], [1], ["a", "b"], [True, True], seed=0)


def test_correct_given_attempted_leaves_abstentions_out() -> None:
    correct, attempted = [True, False, False, True], [True, True, False, True]
    share = correct_given_attempted(correct, attempted, list("abcd"), seed=1)
    assert share.value == pytest.approx(2 / 3)
    assert 0 <= share.low <= share.value <= share.high <= 1
    assert math.isnan(correct_given_attempted([False], [False], ["a"], seed=1).value)


def test_a_correct_answer_is_an_attempt() -> None:
    with pytest.raises(InputError, match="not attempted"):
        correct_given_attempted([True], [False], ["a"], seed=1)
    with pytest.raises(InputError, match="2 clusters"):
        correct_given_attempted([True], [True], ["a", "b"], seed=1)


def test_clusters_widen_the_interval() -> None:
    correct = np.repeat([True, False] * 5, 8)
    alone = correct_given_attempted(correct, correct | True, [str(i) for i in range(80)], seed=1)
    clustered = correct_given_attempted(correct, correct | True, [str(i // 8) for i in range(80)], seed=1)
    assert clustered.high - clustered.low > 2 * (alone.high - alone.low)
