"""Images that the encoder crops do not fit their boxes: told from the processor's file, and said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from priorkit.models.cropping import crop_warning, cropped_of
from priorkit.models.preprocessing import Preprocessing

SQUARE = {"height": 32, "width": 32}


def processors() -> dict[str, object]:
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
            hf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE),
            hf.ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=1.0),
        ],
        "every": [
            hf.CLIPImageProcessor(size={"shortest_edge": 36}, crop_size=SQUARE),
            hf.CLIPImageProcessor(size={"height": 40, "width": 40}, crop_size=SQUARE),
            hf.ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.75),
        ],
    }


def loses_its_edge(processor: object, width: int, height: int) -> bool:
    """Whether a red stripe at the left of a blue image is gone from what the processor makes of it."""
    image = Image.new("RGB", (width, height), (0, 0, 255))
    ImageDraw.Draw(image).rectangle((0, 0, width // 24, height), fill=(255, 0, 0))
    return int(Preprocessing(processor).prepare(image)[0].max()) < 64


@pytest.mark.parametrize("expected", ["nothing", "uneven", "every"])
def test_the_file_tells_which_images_are_cropped(expected: str, tmp_path: Path) -> None:
    for number, processor in enumerate(processors()[expected]):
        folder = tmp_path / str(number)
        processor.save_pretrained(folder)
        assert cropped_of(folder) == expected, processor
        assert loses_its_edge(processor, 480, 240) == (expected != "nothing"), processor
        assert loses_its_edge(processor, 480, 480) == (expected == "every"), processor
        own = json.loads((folder / "preprocessor_config.json").read_text())
        joint = tmp_path / f"joint-{number}"
        joint.mkdir()
        (joint / "processor_config.json").write_text(json.dumps({"image_processor": own}))
        assert cropped_of(joint) == expected


def test_old_files_and_none(tmp_path: Path) -> None:
    assert cropped_of(tmp_path) == "nothing"
    for known, expected in (
        ({"size": 224, "crop_size": 224, "do_center_crop": True}, "uneven"),
        ({"size": 256, "crop_size": 224, "do_center_crop": True}, "every"),
        (
            {"image_processor_type": "LlavaImageProcessor", "do_pad": True, "do_center_crop": True,
             "size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}}, "nothing",
        ),
    ):  # fmt: skip
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(known))
        assert cropped_of(tmp_path) == expected


def test_only_images_that_are_cropped_are_warned_of() -> None:
    sizes = {"a": (40, 40), "b": (60, 40), "c": (40, 41)}
    assert crop_warning("nothing", sizes) == ""
    assert crop_warning("uneven", {"a": (40, 40)}) == ""
    assert "crops 2 of 3 images" in crop_warning("uneven", sizes)
    assert "crops 3 of 3 images" in crop_warning("every", sizes)
    assert "align --resize squash" in crop_warning("uneven", sizes)


SHORT = (
    "--architecture", "lion", "--adapter-width", 8, "--queries", 4, "--qformer-width", 16,
    "--qformer-layers", 2, "--qformer-heads", 2, "--aggregator-heads", 2, "--steps", 1, "--batch-size", 2,
    "--warmup-steps", 1, "--device", "cpu", "--precision", "fp32",
)  # fmt: skip


def test_tuning_and_evaluation_say_so(kit, cli, tmp_path: Path) -> None:
    for name, size in (("even", (48, 48)), ("uneven", (96, 48))):
        Image.new("RGB", size, (200, 30, 30)).save(tmp_path / f"{name}.png")
    rows = [
        {"id": place, "image": f"{name}.png", "expression": "red", "box": [0.1, 0.1, 0.5, 0.5]}
        for place, name in enumerate(("even", "uneven", "uneven"))
    ]
    table = tmp_path / "regions.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)))
    check = cli("tune", kit.mllm, table, *SHORT, "--stage", 2, "--check", "--out", tmp_path / "no")
    assert check.code == 0, check.err
    assert "images that are not square are cropped" in check.err
    assert "align --resize squash" in check.err
    image_level = cli(
        "tune", kit.mllm, kit.instructions, *SHORT, "--stage", 1, "--check", "--out", tmp_path / "no"
    )
    assert "cropped" not in image_level.err
    made = cli("tune", kit.mllm, table, *SHORT, "--stage", 2, "--out", tmp_path / "stage2")
    assert made.code == 0, made.err
    assert "crops 1 of 2 images with boxes" in made.err
    asked = tmp_path / "asked.jsonl"
    asked.write_text(
        "\n".join(json.dumps({**row, "question": "Where is red?", "task": "grounding"}) for row in rows)
    )
    args = ("evaluate", kit.mllm, asked, "--max-new-tokens", 2, "--device", "cpu")
    planned = cli(*args, "--check", "--out", tmp_path / "no")
    assert "images that are not square are cropped" in planned.err
    done = cli(*args, "--out", tmp_path / "scores")
    assert done.code == 0, done.err
    assert "asked: the encoder's preprocessing crops 1 of 2 images" in done.err
    blind = cli(*args, "--blind", "--out", tmp_path / "blind")
    assert blind.code == 0, blind.err
    assert "crops" not in blind.err
