"""Boxes in images that are cropped or padded for the encoder: found from the processor's file, and reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from priorkit.models.multimodal.box_alignment import misaligned_images, misalignment_warning
from priorkit.models.vision.preprocessing import Preprocessing

SIDE = 64
SQUARE = {"height": SIDE, "width": SIDE}
BOX = (0.0625, 0.125, 0.25, 0.375)


def processors() -> dict[str, list[Any]]:
    import transformers as hf

    return {
        "none": [
            hf.SiglipImageProcessor(size=SQUARE),
            hf.CLIPImageProcessor(size=SQUARE, do_center_crop=False),
            hf.CLIPImageProcessor(size=SQUARE, crop_size=SQUARE),
            hf.ViTImageProcessor(size=SQUARE),
            hf.ConvNextImageProcessor(size={"shortest_edge": 384}),
        ],
        "non-square": [
            hf.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SQUARE),
            hf.ConvNextImageProcessor(size={"shortest_edge": SIDE}, crop_pct=1.0),
            hf.LlavaImageProcessor(do_pad=True, size=SQUARE, do_center_crop=False),
        ],
        "all": [
            hf.CLIPImageProcessor(size={"shortest_edge": 80}, crop_size=SQUARE),
            hf.CLIPImageProcessor(size={"height": 80, "width": 80}, crop_size=SQUARE),
            hf.ConvNextImageProcessor(size={"shortest_edge": SIDE}, crop_pct=0.75),
        ],
    }


def box_matches(processor: Any, width: int, height: int) -> bool:
    """Whether a red rectangle on blue is within a pixel of its box, as shares of the encoder's input."""
    x1, y1, x2, y2 = BOX
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[..., 2] = 255
    image[round(y1 * height) : round(y2 * height), round(x1 * width) : round(x2 * width)] = (255, 0, 0)
    seen = Preprocessing(processor).prepare(Image.fromarray(image))
    red = (seen[0].numpy() > 127) & (seen[2].numpy() < 127)
    if not red.any():
        return False
    down, across = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    edges = (across[0], down[0], across[-1] + 1, down[-1] + 1)
    side = seen.shape[-1]
    return all(abs(edge / side - share) <= 1.01 / SIDE for edge, share in zip(edges, BOX, strict=True))


@pytest.mark.parametrize("expected", ["none", "non-square", "all"])
def test_misaligned_images_are_known_from_the_file(expected: str, tmp_path: Path) -> None:
    for number, processor in enumerate(processors()[expected]):
        folder = tmp_path / str(number)
        processor.save_pretrained(folder)
        assert misaligned_images(folder) == expected, processor
        assert box_matches(processor, 480, 240) == (expected == "none"), processor
        assert box_matches(processor, 240, 480) == (expected == "none"), processor
        assert box_matches(processor, 480, 480) == (expected != "all"), processor
        content = json.loads((folder / "preprocessor_config.json").read_text())
        joint = tmp_path / f"joint-{number}"
        joint.mkdir()
        (joint / "processor_config.json").write_text(json.dumps({"image_processor": content}))
        assert misaligned_images(joint) == expected


def test_old_files_and_no_file(tmp_path: Path) -> None:
    assert misaligned_images(tmp_path) == "none"
    for side, expected in ((224, "non-square"), (256, "all")):
        settings = {"size": side, "crop_size": 224, "do_center_crop": True}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
        assert misaligned_images(tmp_path) == expected


def test_the_warning_counts_misaligned_images() -> None:
    sizes = [(40, 40), (60, 40), (40, 41)]
    assert misalignment_warning("none", sizes) == ""
    assert misalignment_warning("non-square", [(40, 40)]) == ""
    assert misalignment_warning("non-square", sizes).startswith("2 of 3 images with boxes")
    assert misalignment_warning("all", sizes).startswith("3 of 3 images")
    assert misalignment_warning("non-square", sizes).endswith("align --resize squash")


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
    assert "non-square images are cropped or padded" in check.err
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
