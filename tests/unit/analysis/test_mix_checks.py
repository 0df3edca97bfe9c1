"""Tables of mixes that carry no surface: refused in words; whatever passes gives a mix without any warning of numpy."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from priorkit.analysis.mix_checks import check_mixes
from priorkit.analysis.mix_suggestion import suggest
from priorkit.analysis.mixes import ScoredMixes
from priorkit.core.errors import InputError


def mixes(shares: list[list[float]], scores: list[float]) -> ScoredMixes:
    names = [str(number + 1) for number in range(len(scores))]
    components = [f"c{number}" for number in range(len(shares[0]))]
    values = np.array(shares, dtype=np.float64)
    values /= values.sum(1, keepdims=True)
    return ScoredMixes(names, components, values, np.array(scores, dtype=np.float64), "y", False)


def check(shares: list[list[float]], scores: list[float], **options: Any) -> None:
    check_mixes(mixes(shares, scores), **{"surface": "auto", "region": "hull", **options})


LINE = [
    [0.1, 0.45, 0.45],
    [0.2, 0.4, 0.4],
    [0.4, 0.3, 0.3],
    [0.6, 0.2, 0.2],
    [0.8, 0.1, 0.1],
    [0.5, 0.25, 0.25],
]


@pytest.mark.parametrize(
    ("shares", "scores", "words"),
    [
        ([[0.5, 0.5]], [1], "at least 4 mixes, 2 of them different, got 1"),
        ([[0.5, 0.5]] * 5, [1, 2, 3, 4, 5], "all 5 mixes are the same"),
        ([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]], [1, 2, 3], "at least 4 mixes, 3 of them different, got 3"),
        ([[0.1, 0.9], [0.5, 0.5]] * 3, [1, 2, 3, 4, 5, 6], "got 6 (2 different ones)"),
        ([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]], [2, 2, 2, 2], "the score y is 2 for all 4 mixes"),
        ([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]], [1, 2, 3, 1e200], "as large as 1e+200"),
        ((np.eye(4) + 0.1).tolist(), [1, 2, 3, 4], "vary in 3 directions needs at least 6 mixes"),
        (
            [*(np.eye(3) + 0.1).tolist(), [1, 1, 1]],
            [1, 2, 3, 4],
            "vary in 2 directions needs at least 5 mixes",
        ),
    ],
)
def test_what_carries_no_surface_is_refused(
    shares: list[list[float]], scores: list[float], words: str
) -> None:
    with pytest.raises(InputError) as caught:
        check(shares, scores)
    assert words in str(caught.value)


def test_collinear_mixes_are_searched_among_themselves_only(caplog: pytest.LogCaptureFixture) -> None:
    scores = [1.0, 2, 4, 3, 2, 4]
    with caplog.at_level(logging.WARNING):
        check(LINE, scores)
    assert "the mixes are collinear: their 3 varying components change in 1 direction only" in caplog.text
    with pytest.raises(
        InputError, match=r"--region simplex: the mixes are collinear.*\n  -> .*--region hull"
    ):
        check(LINE, scores, region="simplex")
    found = suggest(
        mixes(LINE, scores), surface="auto", acquisition="expected-improvement", region="hull", minimum={},
        maximum={}, resamples=50, seed=0,
    )  # fmt: skip
    assert found.best[1] == pytest.approx(found.best[2])


def test_components_that_never_change_are_named(caplog: pytest.LogCaptureFixture) -> None:
    shares = [[0.1, 0.7, 0.2], [0.2, 0.6, 0.2], [0.4, 0.4, 0.2], [0.6, 0.2, 0.2]]
    with caplog.at_level(logging.WARNING):
        check(shares, [1, 2, 3, 2])
    assert "the same in some components, such as 'c2'" in caplog.text
    with pytest.raises(InputError, match="such as 'c2'"):
        check(shares, [1, 2, 3, 2], region="simplex")


def test_fewer_mixes_than_terms_are_said(caplog: pytest.LogCaptureFixture) -> None:
    shares = [[1, 1, 3], [1, 3, 1], [3, 1, 1], [1, 2, 2], [2, 2, 1]]
    with caplog.at_level(logging.WARNING):
        check(shares, [1, 2, 3, 2, 1], surface="gaussian-process")
        assert not caplog.records
        check(shares, [1, 2, 3, 2, 1])
    assert "5 mixes are fewer than the 6 terms of a quadratic in 3 components" in caplog.text


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_table_is_refused_in_words_or_gives_a_mix_without_numpy_warnings(data: st.DataObject) -> None:
    components = data.draw(st.integers(2, 4))
    count = data.draw(st.integers(1, 8))
    row = st.lists(st.sampled_from([0.0, 1.0, 2.0, 5.0]), min_size=components, max_size=components)
    shares = data.draw(st.lists(row.filter(any), min_size=count, max_size=count))
    score = st.sampled_from([0.0, 1.0, 1.0 + 1e-9, -3.5, 1e6, 1e160])
    scores = data.draw(st.lists(score, min_size=count, max_size=count))
    region = data.draw(st.sampled_from(["hull", "simplex"]))
    tried = mixes(shares, scores)
    said = ""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            check_mixes(tried, surface="auto", region=region)
        except InputError as error:
            said = str(error)
        if said:
            assert any(word in said for word in ("surface", "the same", "score", "collinear"))
            return
        found = suggest(
            tried, surface="auto", acquisition="expected-improvement", region=region, minimum={}, maximum={},
            resamples=50, seed=0,
        )  # fmt: skip
    for mix in (found.best, found.next):
        assert np.isfinite(mix).all()
        assert mix.sum() == pytest.approx(1)
        assert (mix >= -1e-9).all()
    assert np.isfinite(found.predicted_score(found.best).value)
