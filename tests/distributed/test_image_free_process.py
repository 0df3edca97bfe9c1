"""A process whose samples have no image neither deadlocks nor changes the gradients."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image


@pytest.mark.parametrize("extra", [(), ("--lora-rank", "4")], ids=["whole", "lora"])
def test_one_picture_among_two_processes(artifacts, cli, tmp_path: Path, extra: tuple[str, ...]) -> None:
    Image.effect_noise((48, 48), 80).convert("RGB").save(tmp_path / "a.png")
    rows = [
        {
            **({"image": "a.png"} if number == 0 else {}),
            "conversations": [
                {"from": "human", "value": ("<image>\n" if number == 0 else "") + f"question {number}"},
                {"from": "gpt", "value": "answer " * (number + 1)},
            ],
        }
        for number in range(8)
    ]
    source = tmp_path / "c.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        "tune", str(artifacts.mllm), str(source), "--train", "projector,llm,encoder", *extra, "--epochs", "2", "--batch-size", "4",
        "--precision", "fp32", "--device", "cpu", "--warmup-steps", "0",
    ]  # fmt: skip
    one = cli(*words, "--out", tmp_path / "one")
    assert one.code == 0, one.err
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    two = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1",
            "--master-port", str(port), "-m", "priorkit", *words, "--out", str(tmp_path / "two"),
        ],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert two.returncode == 0, two.stderr[-3000:]
    metrics = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert len(metrics[0]) == 4
    for a, b in zip(*metrics, strict=True):
        for name in ("loss", "gradient_norm", "weight"):
            assert b[name] == pytest.approx(a[name], rel=1e-3), (a["step"], name)
