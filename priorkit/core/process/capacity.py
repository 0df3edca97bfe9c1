"""Whether the machine has the disk and the memory that a step will need."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from priorkit.core.errors import ResourceError


def check_capacity(out: Path, disk_bytes: int, memory_bytes: int) -> None:
    """Compare a step's needs with the machine.

    Args:
        out: the artifact to make.
        disk_bytes: expected size of the artifact with its training state.
        memory_bytes: expected peak of main memory.

    Raises:
        ResourceError: the folder is not writable, or disk or memory will not suffice.
    """
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
    if memory_bytes > available:
        raise ResourceError(
            f"about {readable_bytes(memory_bytes)} of memory needed, {readable_bytes(available)} available",
            hint="use a smaller batch or model, or a larger machine",
        )


def _available_memory() -> int:
    import psutil  # 17 ms, and help needs none of it

    return int(psutil.virtual_memory().available)


def readable_bytes(count: int) -> str:
    """A size for people: ``1.2 GB``."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
