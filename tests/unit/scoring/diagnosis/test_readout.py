"""Readout gap and arbitration margin against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from priorkit.core.errors import InputError
from priorkit.scoring.diagnosis.readout import arbitration_margin, crossing_layer, mean_margin, readout_gap

NAN = math.nan


def test_the_gap_compares_the_same_images_at_every_place() -> None:
    probes = {"encoder": [1, 1, 1, NAN], "layer 1": [1, 0, 1, 1]}
    gaps = readout_gap(probes, [1, 0, 0, 1], list("aabb"), seed=0)
    assert gaps["encoder"].value == pytest.approx(2 / 3)
    assert gaps["layer 1"].value == pytest.approx(1 / 3)


def test_the_gap_is_undefined_without_probes_and_refuses_other_lengths() -> None:
    assert math.isnan(readout_gap({"encoder": [NAN]}, [1], ["a"], seed=0)["encoder"].value)
    with pytest.raises(InputError, match="encoder: 1 probes for 2 answers"):
        readout_gap({"encoder": [1]}, [1, 0], ["a", "b"], seed=0)


def test_the_margin_is_a_difference_of_logits_in_float64() -> None:
    visual = np.array([[1, 2, 3]], dtype=np.float32)
    margin = arbitration_margin(visual, [[0.5, 2.5, 1]])
    assert margin.dtype == np.float64
    assert margin.tolist() == [[0.5, -0.5, 2]]
    with pytest.raises(InputError, match="layers"):
        arbitration_margin([[1, 2]], [[1]])


def test_the_crossing_is_where_the_visual_answer_stays_ahead() -> None:
    margins = [[1, 1, 1], [-1, 1, 1], [1, -1, 1], [1, 1, -1], [0, 0, 1], [1, NAN, 1]]
    assert crossing_layer(margins).tolist() == [0, 1, 2, 3, 2, -1]


def test_crossing_equals_a_loop() -> None:
    margins = np.random.default_rng(0).normal(size=(50, 6))
    for row, crossing in zip(margins, crossing_layer(margins), strict=True):
        assert crossing == next(layer for layer in range(7) if (row[layer:] > 0).all())


def test_mean_margins_leave_out_what_is_undefined() -> None:
    margins = np.array([[1.0, -1], [3, 1], [NAN, 9]])
    means = mean_margin(margins, list("abc"), seed=0)
    assert [interval.value for interval in means] == [2, 0]
    assert all(interval.low <= interval.value <= interval.high for interval in means)
    assert math.isnan(mean_margin(margins[2:], ["c"], seed=0)[0].value)
