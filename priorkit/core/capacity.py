"""Whether the machine has the disk and the memory that a step is going to need."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from priorkit.core.errors import ResourceError


def check_capacity(out: Path, disk_bytes: int, memory_bytes: int) -> None:
    folder = next(parent for parent in (out, *out.absolute().parents) if parent.is_dir())
    if not os.access(folder, os.W_OK):
        raise ResourceError("this folder is not writable", where=str(folder), hint="choose another --out")
    free = shutil.disk_usage(folder).free
    if disk_bytes > free:
        raise ResourceError(
            f"about {readable_bytes(disk_bytes)} of disk needed, {readable_bytes(free)} free",
            where=str(folder),
            hint="free some space or choose another --out",
        )
    available = _available_memory()
    if available and memory_bytes > available:
        raise ResourceError(
            f"about {readable_bytes(memory_bytes)} of memory needed, {readable_bytes(available)} available",
            hint="use a smaller batch or model, or a larger machine",
        )


def _available_memory() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    values = {line.split(":")[0]: line.split()[1] for line in lines if len(line.split()) > 1}
    return int(values.get("MemAvailable", 0)) * 1024


def readable_bytes(count: int) -> str:
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
