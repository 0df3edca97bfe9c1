"""A warm-up that a run does not outlast."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from priorkit.training.engine.settings import TrainingSettings


@pytest.mark.parametrize(
    ("steps", "warmup", "warns"), [(5, 50, True), (50, 50, False), (5, 0, False), (1, 2, True)]
)
def test_a_warm_up_longer_than_the_run_is_said(
    caplog: pytest.LogCaptureFixture, steps: int, warmup: int, warns: bool
) -> None:
    settings = TrainingSettings(warmup_steps=warmup, learning_rate=1e-3)
    with caplog.at_level("WARNING", logger="priorkit"):
        settings.warn_of_long_warmup(steps)
    assert len(caplog.records) == warns
    if warns:
        assert f"the warm-up of {warmup} steps is longer than the run of {steps}" in caplog.text


@given(st.integers(1, 40), st.integers(0, 40), st.sampled_from(["cosine", "linear", "constant", "wsd"]))
def test_it_is_said_exactly_where_the_peak_is_not_reached(steps: int, warmup: int, schedule: str) -> None:
    settings = TrainingSettings.model_validate(
        {"warmup_steps": warmup, "learning_rate": 1.0, "schedule": schedule}
    )
    highest = max(settings.learning_rate_at(step, steps) for step in range(steps))
    if warmup:
        assert (highest < 1.0) == (steps < warmup)
