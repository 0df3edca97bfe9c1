"""Agreement equals scikit-learn's wherever that is defined."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, precision_recall_fscore_support

from priorkit.core.errors import InputError
from priorkit.scoring.statistics.agreement import agreement

PAIRS = st.integers(1, 60).flatmap(
    lambda n: st.tuples(*[st.lists(st.booleans(), min_size=n, max_size=n)] * 2)
)


@given(PAIRS)
def test_equals_scikit_learn(pair: tuple[list[bool], list[bool]]) -> None:
    reference, predicted = map(np.array, pair)
    found = agreement(reference, predicted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        precision, recall, f1, _ = precision_recall_fscore_support(
            reference, predicted, average="binary", zero_division=np.nan
        )
        kappa = cohen_kappa_score(reference, predicted)
    for ours, theirs in ((found.precision, precision), (found.recall, recall), (found.kappa, kappa)):
        assert math.isclose(ours, theirs, abs_tol=1e-12) or (math.isnan(ours) and math.isnan(theirs))
    if found.given or found.predicted:
        assert found.f1 == pytest.approx(f1)
    else:
        assert math.isnan(found.f1)
    assert (found.items, found.given, found.predicted) == (len(reference), reference.sum(), predicted.sum())


def test_a_case_by_hand() -> None:
    found = agreement([1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 0, 1, 0, 0, 0, 0])
    assert found.precision == found.recall == found.f1 == pytest.approx(2 / 3)
    # observed 6/8, by chance (9 + 25) / 64
    assert found.kappa == pytest.approx((6 / 8 - 34 / 64) / (1 - 34 / 64))


def test_refuses_what_cannot_be_compared() -> None:
    for pair in (([], []), ([True], [True, False])):
        with pytest.raises(InputError, match="needs the same items"):
            agreement(*pair)
