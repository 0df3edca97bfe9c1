"""``benchmarks/gpu.py``: every item can be called, failures are lines too, and lines are kept."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.benchmarks import load_benchmark


@pytest.fixture(scope="module")
def gpu() -> Any:
    return load_benchmark("gpu")


def test_every_item_fits_its_function_and_the_time(gpu: Any) -> None:
    items = gpu.items()
    for item in items.values():
        inspect.signature(gpu.WORK[item.work]).bind(True, **item.options)
    assert {item.work for item in items.values()} == set(gpu.WORK)
    # The first items are those that are wanted most; they fit in eight minutes whatever happens.
    assert sum(item.seconds for item in list(items.values())[:9]) <= 480


def test_a_failed_item_says_why(gpu: Any) -> None:
    line = gpu.measure("none", gpu.Item("no such work", 60, {}), dry=True)
    assert "KeyError: 'no such work'" in line["failed"]
    assert gpu.measure("slow", gpu.Item("rank", 0, {}), dry=True)["failed"] == "over its limit of 0 s"


def test_ranks_are_measured_on_tiny_sizes(gpu: Any) -> None:
    found = gpu.WORK["rank"](True)
    assert found["mean rank, highest"] == found["mean rank, high"] >= 1


def test_lines_are_appended(gpu: Any, tmp_path: Path) -> None:
    for number in range(2):
        gpu.write(tmp_path / "lines.jsonl", {"item": str(number)})
    lines = (tmp_path / "lines.jsonl").read_text().splitlines()
    assert [json.loads(line)["item"] for line in lines] == ["0", "1"]


def test_throughput_follows_the_formula(gpu: Any) -> None:
    import torch
    from torch import nn

    model = nn.Linear(10, 10, bias=False)
    model.config = type("Config", (), {"num_hidden_layers": 3, "hidden_size": 5})()  # type: ignore[assignment]
    runtime = type("Runtime", (), {"device": torch.device("cpu")})()
    found = gpu.throughput(1e6, model, 7, runtime)
    assert found["MFU"] == pytest.approx(1e6 * (6 * 100 + 12 * 3 * 5 * 7) / 989e12)
