"""Energy from RAPL's counters, also when they wrap around."""

from __future__ import annotations

from pathlib import Path

import pytest

from priorkit.core.process.energy import EnergyMeter


def zone(root: Path, name: str, value: int) -> Path:
    folder = root / name
    folder.mkdir(exist_ok=True)
    (folder / "energy_uj").write_text(f"{value}\n")
    (folder / "max_energy_range_uj").write_text("1000000\n")
    return folder


def test_packages_are_added_and_wrapping_is_made_good(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", 900_000)
    zone(tmp_path, "intel-rapl:1", 100)
    zone(tmp_path, "intel-rapl:0:0", 5)
    meter = EnergyMeter(tmp_path)
    zone(tmp_path, "intel-rapl:0", 100_000)
    zone(tmp_path, "intel-rapl:1", 600_100)
    zone(tmp_path, "intel-rapl:0:0", 999)
    assert meter.joules() == pytest.approx(0.2 + 0.6)


def test_without_counters_nothing_is_claimed(tmp_path: Path) -> None:
    assert EnergyMeter(tmp_path).joules() is None
    folder = zone(tmp_path, "intel-rapl:0", 5)
    meter = EnergyMeter(tmp_path)
    (folder / "energy_uj").write_text("not a number")
    assert meter.joules() is None
