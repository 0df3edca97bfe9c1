"""The processors that this process may use, and how its threads share and wait for them. No torch at import."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
"""Where the kernel shows control groups, as containers and batch systems limit processors with them."""

MEMBERSHIP = Path("/proc/self/cgroup")
"""Which control groups this process is in."""


def processors() -> int:
    """The processors that this process may use: those it may run on, or its control groups' quota of time if less."""
    quota = min(_quotas(), default=math.inf)
    return max(1, math.ceil(min(_allowed(), quota)))


def _allowed() -> int:
    """The processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quotas() -> Iterator[float]:
    """The quotas of this process's control groups and of those around them, in processors."""
    try:
        lines = MEMBERSHIP.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        names = controllers.split(",")
        if controllers and "cpu" not in names:
            continue
        root = CGROUPS / "cpu" if controllers else CGROUPS
        inner = root / path.lstrip("/")
        for folder in (inner, *inner.parents):
            if not folder.is_relative_to(root):
                break
            yield from _quota(folder)


def _quota(folder: Path) -> Iterator[float]:
    """The quota of one control group, of version 2 or 1; nothing where it has none."""
    try:
        if (folder / "cpu.max").is_file():
            limit, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            limit = (folder / "cpu.cfs_quota_us").read_text(encoding="utf-8").strip()
            period = (folder / "cpu.cfs_period_us").read_text(encoding="utf-8").strip()
        if limit not in ("max", "-1") and int(period) > 0:
            yield int(limit) / int(period)
    except (OSError, ValueError):
        return


SHORT_SPIN = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
"""How long GCC's (in rounds of some 30 ns) and LLVM's or Intel's OpenMP (in ms) let threads spin."""


def prepare_threads() -> None:
    """Set how many threads numerical libraries start and how these wait; call it before they are loaded.

    They know which processors a process may run on, and prefer one thread per core, but not its quota of time: with
    a quota of 2 on 64 processors they would start 64 threads, of which 62 are held up while the others wait for them.

    OpenMP's threads wait for work by spinning, which takes processor time from the threads they wait for as soon as
    another process runs on the machine: a step of 304 tokens through a model of 135 M parameters took 58 s with two
    spinning threads next to other work, 5 s with one thread. So they spin for some microseconds, as long as the others
    take if nothing holds them up, and then sleep. What the user has set stays.
    """
    count = processors()
    if count < _allowed():
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(name, str(count))
    if "OMP_WAIT_POLICY" not in os.environ:
        for name, value in SHORT_SPIN.items():
            os.environ.setdefault(name, value)


def limit_loaded_threads() -> None:
    """The same for torch where it was loaded before, as in Python, and the user set nothing."""
    import torch

    count = processors()
    if os.environ.get("OMP_NUM_THREADS", str(count)) == str(count) and torch.get_num_threads() > count:
        torch.set_num_threads(count)
