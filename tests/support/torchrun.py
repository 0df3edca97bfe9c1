"""Command lines under torchrun, and what they logged."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path


def torchrun(*words: object, processes: int = 2) -> list[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-addr", "127.0.0.1",
        "--master-port", str(port), *map(str, words),
    ]  # fmt: skip


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
