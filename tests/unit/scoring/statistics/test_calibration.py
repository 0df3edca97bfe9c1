"""The expected calibration error against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from priorkit.core.errors import InputError
from priorkit.scoring.statistics.calibration import calibration_error


def test_it_is_the_weighted_distance_of_confidence_and_accuracy() -> None:
    probabilities = [0.95, 0.95, 0.65, 0.55, 1.0, 0.0]
    correct = [True, False, True, True, True, False]
    # Bins: (0.9, 1] holds three, (0.6, 0.7] and (0.5, 0.6] one each, [0, 0.1] one.
    expected = (abs(2.9 - 2) + abs(0.65 - 1) + abs(0.55 - 1) + 0) / 6
    assert calibration_error(probabilities, correct) == pytest.approx(expected)


def test_honest_probabilities_have_a_small_error() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.uniform(size=20_000)
    correct = generator.uniform(size=20_000) < probabilities
    assert calibration_error(probabilities, correct) < 0.02
    assert calibration_error(np.ones(100), np.zeros(100)) == 1


def test_what_is_no_probability_is_refused() -> None:
    assert math.isnan(calibration_error([], []))
    with pytest.raises(InputError, match="between 0 and 1"):
        calibration_error([1.5], [True])
    with pytest.raises(InputError, match="2 probabilities for 1"):
        calibration_error([0.5, 0.5], [True])
