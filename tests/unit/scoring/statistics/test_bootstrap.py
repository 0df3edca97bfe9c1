"""Intervals: against closed forms and against the plain bootstrap of means."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from priorkit.core.interval import Interval
from priorkit.evaluation.tasks.base import mean_scores
from priorkit.evaluation.tasks.yes_no import rates
from priorkit.scoring.answers.yes_no import YesNo
from priorkit.scoring.statistics.bootstrap import bootstrap_metrics, metrics_to_dict
from priorkit.scoring.statistics.intervals import bootstrap_mean
from tests.support.scoring_references import yes_no_metrics


def metric_intervals(*arguments: Any, **options: Any) -> dict[str, Interval]:
    return {name: metric.interval for name, metric in bootstrap_metrics(*arguments, **options).items()}


def test_mean_equals_the_bootstrap_of_means() -> None:
    values = np.random.default_rng(0).random(50)
    counts, metrics = mean_scores(values.tolist(), "accuracy")
    found = metric_intervals(counts, metrics, seed=3, resamples=400)["accuracy"]
    expected = bootstrap_mean(values, seed=3, resamples=400)
    assert (found.value, found.low, found.high) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )


def test_interval_of_a_share_has_its_binomial_width() -> None:
    counts, metrics = mean_scores([1.0] * 600 + [0.0] * 400, "accuracy")
    found = metric_intervals(counts, metrics, seed=1, resamples=2000)["accuracy"]
    half = 1.96 * math.sqrt(0.6 * 0.4 / 1000)
    assert found.value == pytest.approx(0.6)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)


def test_items_of_one_image_are_drawn_together() -> None:
    scores = [float(number // 10 % 2) for number in range(400)]
    counts, metrics = mean_scores(scores, "accuracy")
    unclustered = metric_intervals(counts, metrics, seed=1, resamples=2000)["accuracy"]
    together = metric_intervals(
        counts, metrics, seed=1, resamples=2000, clusters=[number // 10 for number in range(400)]
    )["accuracy"]
    # Ten equal items per image: the variance of the mean is ten times as large.
    assert (together.high - together.low) / (unclustered.high - unclustered.low) == pytest.approx(
        math.sqrt(10), rel=0.1
    )


def test_macro_accuracy_is_the_unweighted_mean_of_the_parts() -> None:
    scores, parts = [1.0] * 30 + [0.0] * 10, ["small"] * 30 + ["large"] * 10
    counts, metrics = mean_scores(scores, "accuracy")
    found = metric_intervals(counts, metrics, seed=1, resamples=200, strata=parts)
    assert found["accuracy"].value == 0.75
    assert found["macro_accuracy"] == Interval(0.5, 0.5, 0.5)


def test_rates_equal_the_scorers() -> None:
    rows = np.array([[9.0, 23, 11, 5], [0, 0, 3, 0], [0, 4, 0, 0]])
    found = rates(rows)
    for place, (tp, fp, tn, fn) in enumerate(rows.astype(int).tolist()):
        readings: list[YesNo] = [*["yes"] * (tp + fp), *["no"] * (tn + fn)]
        labels: list[YesNo] = [*["yes"] * tp, *["no"] * fp, *["no"] * tn, *["yes"] * fn]
        expected = yes_no_metrics(readings, labels)
        for name in ("accuracy", "precision", "recall", "f1", "yes_ratio"):
            assert found[name][place] == pytest.approx(getattr(expected, name)), name


def test_what_is_not_finite_becomes_null() -> None:
    assert metrics_to_dict({"perplexity": Interval(math.inf, 2.0, math.nan)}) == {
        "perplexity": {"value": None, "low": 2.0, "high": None}
    }
