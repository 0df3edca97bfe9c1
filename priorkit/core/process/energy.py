"""Energy of the processor packages, where the system counts it (Intel RAPL under Linux)."""

from __future__ import annotations

from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Counts joules from its creation.

    The counters cover complete processor packages with all processes on them, but neither GPUs nor the rest of the
    machine. They wrap around (after about an hour at 70 W); one wrap between two readings is corrected.

    Args:
        folder: where the counters are.
    """

    def __init__(self, folder: Path = POWERCAP) -> None:
        self._folder = folder
        self._start = self._read()

    def _read(self) -> dict[Path, int]:
        """Microjoules by package; empty where there are no counters or they may not be read."""
        energy: dict[Path, int] = {}
        # Subzones (cores, memory), which have a second number, are part of their package.
        for zone in sorted(self._folder.glob("intel-rapl:[0-9]*")):
            if zone.name.count(":") == 1:
                try:
                    energy[zone] = int((zone / "energy_uj").read_text(encoding="ascii"))
                except (OSError, ValueError):
                    return {}
        return energy

    def joules(self) -> float | None:
        """Energy since the meter was created; None where it cannot be measured."""
        now = self._read()
        if not self._start or set(now) != set(self._start):
            return None
        total = 0
        for zone, value in now.items():
            spent = value - self._start[zone]
            if spent < 0:
                try:
                    spent += int((zone / "max_energy_range_uj").read_text(encoding="ascii"))
                except (OSError, ValueError):
                    return None
            total += spent
        return total / 1e6
