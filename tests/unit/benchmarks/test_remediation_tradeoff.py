"""The intervals that ``benchmarks/remediation_tradeoff.py`` prints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import ttest_1samp

from tests.support.benchmarks import load_benchmark


@pytest.fixture(scope="module")
def benchmark() -> Any:
    return load_benchmark("remediation_tradeoff")


def test_the_interval_is_students_of_the_mean(benchmark: Any) -> None:
    values = [-71.0, -64.5, -80.2]
    expected = ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert benchmark.mean_interval(values) == pytest.approx((expected.low, expected.high))
    assert all(math.isnan(bound) for bound in benchmark.mean_interval([1.0]))


def test_a_cell_has_mean_interval_and_range(benchmark: Any) -> None:
    assert benchmark.cell([1.0, 2.0, 3.0], 1) == "2.0 (-0.5, 4.5) [1.0, 3.0]"


def test_the_picture_is_drawn_with_one_seed_and_with_three(benchmark: Any, tmp_path: Path) -> None:
    def run(shift: float) -> dict[tuple[str, float, str], float]:
        return {
            (variant, share, what): 2.0 + shift * share
            for variant in benchmark.VARIANTS
            for share in benchmark.SHARES
            for what in (*benchmark.GROUPS, "retrieval")
        }

    for runs in ([run(1.0)], [run(1.0), run(1.2), run(0.5)]):
        benchmark.draw(runs, list(benchmark.VARIANTS), tmp_path)
        assert (tmp_path / "trade_off.png").stat().st_size > 1000
