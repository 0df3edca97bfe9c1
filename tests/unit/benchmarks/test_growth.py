"""``benchmarks/growth.py``: points are made, measured, resumed and fitted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.benchmarks import load_benchmark


@pytest.fixture(scope="module")
def growth() -> Any:
    return load_benchmark("growth")


def points(growth: Any, *processor: float) -> list[Any]:
    return [
        growth.Point("names", 10.0**n, seconds, seconds, 50.0) for n, seconds in enumerate(processor, start=3)
    ]


def test_a_line_is_fitted_and_continued(growth: Any) -> None:
    line = [2 + 1e-3 * 10.0**n for n in range(3, 6)]
    assert growth.fit(points(growth, *line)) == pytest.approx((2, 1e-3, 0), abs=1e-9)
    assert growth.expected(points(growth, *line), 1e6) == pytest.approx(1002)
    square = [1 + (10.0**n / 1e3) ** 2 for n in range(3, 6)]
    assert growth.fit(points(growth, *square))[2] > 0.5
    assert growth.expected(points(growth, 1.0), 1e9) == 0


def test_done_points_are_kept_and_dear_ones_left_out(
    growth: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured: list[tuple[str, float]] = []

    def measure(name: str, size: float, folder: Path) -> Any:
        measured.append((name, size))
        return growth.Point(name, size, size / 1e5, size / 1e5, 90.0)

    monkeypatch.setattr(growth, "measure", measure)
    for most in ("1e5", "1e9"):
        monkeypatch.setattr(sys, "argv", ["growth", str(tmp_path), "--only", "names", "--most", most])
        growth.main()
    assert measured == [("names", size) for size in (1e4, 1e5, 1e6, 3e6)]
    found = capsys.readouterr().out
    assert "names 10,000,000: left out, it would take 100 processor seconds" in found
    assert "| names, fit |" in found
    assert len(growth.read(tmp_path / "growth.jsonl")) == 4
    assert (tmp_path / "growth.svg").read_text().count("<svg") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("images", 12), ("samples", 5), ("parameters", 80)])
def test_inputs_are_what_the_steps_take(
    growth: Any, tmp_path: Path, cli: Any, name: str, size: float
) -> None:
    command = growth.CURVES[name].prepare(size, tmp_path)
    assert command[1:3] == ["-m", "priorkit"]
    found = cli(*command[3:], "--check")
    assert found.code == 0, found.err


@pytest.mark.slow
def test_a_point_is_a_process_with_its_own_memory(growth: Any, tmp_path: Path) -> None:
    point = growth.measure("names", 20_000.0, tmp_path)
    assert point.seconds > 0
    assert point.processor > 0
    assert 100 < point.megabytes < 4000


def test_the_text_has_the_size_asked_for(
    growth: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "python_files", lambda: ["import this\n" * 50, "x = 1\n" * 30])
    growth.tokens(0.02, tmp_path)
    lines = (tmp_path / "text.jsonl").read_text().splitlines()
    assert 20_000 <= sum(map(len, lines)) + len(lines) < 22_000
    assert len({json.loads(line)["text"] for line in lines}) == len(lines)
