"""Boxes in the world's text, in every format; nothing else depends on the format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from priorkit.core.boxes import BoxFormatName, BoxWriter
from priorkit.core.errors import UsageError
from priorkit.core.options.specs import build as build_settings
from priorkit.scoring.answers.boxes import read_box
from priorkit.world.options import WorldOptions


def exchanges(world: Path) -> list[tuple[str, str]]:
    """Prompt and answer of every grounding question; only the first of a conversation asks for the format."""
    rows = pq.read_table(world / "instructions" / "train.parquet").to_pylist()
    turns = [row["conversations"] for row in rows if row["ability"] == "grounding"]
    return [
        (prompt["value"], answer["value"])
        for conversation in turns
        for prompt, answer in zip(conversation[::2], conversation[1::2], strict=True)
    ]


@pytest.mark.parametrize(
    ("name", "bins", "tolerance"),
    [("thousandths", 1000, 0.0056), ("location-tokens", 1000, 0.0056), ("location-tokens", 48, 0.0056)],
)
def test_a_world_in_another_format(
    world: Path,
    build: Callable[[WorldOptions], Path],
    options: WorldOptions,
    name: BoxFormatName,
    bins: int,
    tolerance: float,
) -> None:
    writer = BoxWriter(name, bins=bins)
    other = build(options.model_copy(update={"box_format": name, "box_bins": bins}))
    pairs = list(zip(exchanges(world), exchanges(other), strict=True))
    assert pairs
    for (prompt, answer), (other_prompt, other_answer) in pairs:
        assert prompt.endswith("Answer with its box [x1,y1,x2,y2].") == prompt.startswith("<image>")
        assert other_prompt == prompt.replace(BoxWriter().request, writer.request)
        box, other_box = read_box(answer), read_box(other_answer)
        assert box is not None
        assert other_box is not None
        assert list(other_box) == pytest.approx(list(box), abs=tolerance)
    files = sorted(path.relative_to(world).as_posix() for path in world.rglob("*") if path.is_file())
    differing = [file for file in files if (world / file).read_bytes() != (other / file).read_bytes()]
    assert set(differing) <= {
        "README.md",  # the number of documents
        "captions/train.parquet",
        "instructions/train.parquet",
        "text/heldout/visual.jsonl",
        "text/visual.jsonl",
    }


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"box_bins": 48}, "box_bins only has an effect with box_format location-tokens, not decimals"),
        (
            {"box_format": "thousandths", "box_decimals": 3},
            "box_decimals only has an effect with box_format decimals",
        ),
        ({"box_format": "location-tokens", "box_bins": 1}, "box-bins"),
        ({"box_format": "location-tokens", "box_bins": 1001}, "box-bins"),
        ({"box_format": "loc"}, "valid: decimals, thousandths, location-tokens"),
    ],
)
def test_options_without_effect_are_refused(values: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build_settings(WorldOptions, values)
