"""Boxes of images that are cropped or padded for the encoder: detected from the processor's file, and reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from priorkit.models.multimodal.box_alignment import misfit_of, misfit_warning
from priorkit.models.vision.preprocessing import Preprocessing

SIDE = 64
SQUARE = {"height": SIDE, "width": SIDE}
BOX = (0.0625, 0.125, 0.25, 0.375)


def processors() -> dict[str, list[Any]]:
    import transformers as hf

    return {
        "nothing": [
            hf.SiglipImageProcessor(size=SQUARE),
            hf.CLIPImageProcessor(size=SQUARE, do_center_crop=False),
            hf.CLIPImageProcessor(size=SQUARE, crop_size=SQUARE),
            hf.ViTImageProcessor(size=SQUARE),
            hf.ConvNextImageProcessor(size={"shortest_edge": 384}),
        ],
        "uneven": [
            hf.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SQUARE),
            hf.ConvNextImageProcessor(size={"shortest_edge": SIDE}, crop_pct=1.0),
            hf.LlavaImageProcessor(do_pad=True, size=SQUARE, do_center_crop=False),
        ],
        "every": [
            hf.CLIPImageProcessor(size={"shortest_edge": 80}, crop_size=SQUARE),
            hf.CLIPImageProcessor(size={"height": 80, "width": 80}, crop_size=SQUARE),
            hf.ConvNextImageProcessor(size={"shortest_edge": SIDE}, crop_pct=0.75),
        ],
    }


def fits(processor: Any, width: int, height: int) -> bool:
    """Whether a red object on blue is, in the pixels, within one pixel of its box."""
    x1, y1, x2, y2 = BOX
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[..., 2] = 255
    image[round(y1 * height) : round(y2 * height), round(x1 * width) : round(x2 * width)] = (255, 0, 0)
    seen = Preprocessing(processor).prepare(Image.fromarray(image))
    red = (seen[0].numpy() > 127) & (seen[2].numpy() < 127)
    if not red.any():
        return False
    down, across = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    found = (across[0], down[0], across[-1] + 1, down[-1] + 1)
    side = seen.shape[-1]
    return all(abs(place / side - told) <= 1.01 / SIDE for place, told in zip(found, BOX, strict=True))


@pytest.mark.parametrize("expected", ["nothing", "uneven", "every"])
def test_the_processor_file_decides_which_boxes_do_not_match(expected: str, tmp_path: Path) -> None:
    for number, processor in enumerate(processors()[expected]):
        folder = tmp_path / str(number)
        processor.save_pretrained(folder)
        assert misfit_of(folder) == expected, processor
        assert fits(processor, 480, 240) == (expected == "nothing"), processor
        assert fits(processor, 240, 480) == (expected == "nothing"), processor
        assert fits(processor, 480, 480) == (expected != "every"), processor
        own = json.loads((folder / "preprocessor_config.json").read_text())
        joint = tmp_path / f"joint-{number}"
        joint.mkdir()
        (joint / "processor_config.json").write_text(json.dumps({"image_processor": own}))
        assert misfit_of(joint) == expected


def test_old_files_and_none(tmp_path: Path) -> None:
    assert misfit_of(tmp_path) == "nothing"
    for side, expected in ((224, "uneven"), (256, "every")):
        known = {"size": side, "crop_size": 224, "do_center_crop": True}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(known))
        assert misfit_of(tmp_path) == expected


def test_only_images_that_do_not_fit_are_warned_of() -> None:
    sizes = {"a": (40, 40), "b": (60, 40), "c": (40, 41)}
    assert misfit_warning("nothing", sizes) == ""
    assert misfit_warning("uneven", {"a": (40, 40)}) == ""
    assert misfit_warning("uneven", sizes).startswith("2 of 3 images with boxes")
    assert misfit_warning("every", sizes).startswith("3 of 3 images")
    assert misfit_warning("uneven", sizes).endswith("align --resize squash")


SHORT = (
    "--architecture", "lion", "--adapter-width", 8, "--queries", 4, "--qformer-width", 16,
    "--qformer-layers", 2, "--qformer-heads", 2, "--aggregator-heads", 2, "--steps", 1, "--batch-size", 2,
    "--warmup-steps", 1, "--device", "cpu", "--precision", "fp32",
)  # fmt: skip


def test_tuning_and_evaluation_warn(artifacts, cli, tmp_path: Path) -> None:
    for name, size in (("even", (48, 48)), ("uneven", (96, 48))):
        Image.new("RGB", size, (200, 30, 30)).save(tmp_path / f"{name}.png")
    rows = [
        {"id": place, "image": f"{name}.png", "expression": "red", "box": [0.1, 0.1, 0.5, 0.5]}
        for place, name in enumerate(("even", "uneven", "uneven"))
    ]
    table = tmp_path / "regions.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)))
    check = cli("tune", artifacts.mllm, table, *SHORT, "--stage", 2, "--check", "--out", tmp_path / "no")
    assert check.code == 0, check.err
    assert "images that are not square are; squeeze" in check.err
    assert "align --resize squash" in check.err
    image_level = cli(
        "tune",
        artifacts.mllm,
        artifacts.instructions,
        *SHORT,
        "--stage",
        1,
        "--check",
        "--out",
        tmp_path / "no",
    )
    assert "boxes" not in image_level.err
    made = cli("tune", artifacts.mllm, table, *SHORT, "--stage", 2, "--out", tmp_path / "stage2")
    assert made.code == 0, made.err
    assert "1 of 2 images with boxes are cropped or padded" in made.err
    asked = tmp_path / "asked.jsonl"
    asked.write_text(
        "\n".join(json.dumps({**row, "question": "Where is red?", "task": "grounding"}) for row in rows)
    )
    args = ("evaluate", artifacts.mllm, asked, "--max-new-tokens", 2, "--device", "cpu")
    done = cli(*args, "--out", tmp_path / "scores")
    assert done.code == 0, done.err
    assert "asked: 1 of 2 images with boxes are cropped or padded" in done.err
    blind = cli(*args, "--blind", "--out", tmp_path / "blind")
    assert blind.code == 0, blind.err
    assert "cropped" not in blind.err
