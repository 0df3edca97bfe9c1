"""How images become squares: each way against pixels made by hand, through stock ``AutoProcessor`` too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, CLIPImageProcessor, ViTImageProcessor

from priorkit.core.errors import InputError
from priorkit.models.vision.preprocessing import Preprocessing, prepared_side, with_resize

MEAN, STD = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
SIDE = 24


def processors() -> dict[str, Any]:
    square = {"height": SIDE, "width": SIDE}
    return {
        "crops": CLIPImageProcessor(
            size={"shortest_edge": SIDE}, crop_size=square, image_mean=MEAN, image_std=STD
        ),
        "squashes": ViTImageProcessor(size=square, image_mean=MEAN, image_std=STD, resample=3),
    }


def picture(width: int, height: int) -> Image.Image:
    """A smooth picture: filters of different libraries agree on it to a level."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [np.sin(x / 7 + y / 5), np.cos(x / 9), np.sin(y / 6 + 1)]
    return Image.fromarray(np.stack([(plane * 100 + 120).astype(np.uint8) for plane in planes], axis=-1))


def by_hand(image: Image.Image, how: str) -> np.ndarray:
    """uint8 ``[SIDE, SIDE, 3]`` by Pillow's filter and arrays only."""
    width, height = image.size
    if how == "pad":
        longest = max(width, height)
        canvas = np.empty((longest, longest, 3), dtype=np.uint8)
        canvas[:] = [int(value * 255) for value in MEAN]
        top, left = (longest - height) // 2, (longest - width) // 2
        canvas[top : top + height, left : left + width] = np.asarray(image)
        image = Image.fromarray(canvas)
    if how != "crop":
        return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    scale = SIDE / min(width, height)
    size = (int(width * scale), int(height * scale))
    left, top = (size[0] - SIDE) // 2, (size[1] - SIDE) // 2
    resized = np.asarray(image.resize(size, Image.Resampling.BICUBIC))
    return resized[top : top + SIDE, left : left + SIDE]


@pytest.mark.parametrize("own", ["crops", "squashes"])
@pytest.mark.parametrize("how", ["crop", "squash", "pad"])
@pytest.mark.parametrize("size", [(72, 48), (36, 60), (48, 48)])
def test_pixels_are_those_made_by_hand(own: str, how: Any, size: tuple[int, int], tmp_path: Path) -> None:
    processor = with_resize(processors()[own], how, SIDE, SIDE)
    image = picture(*size)
    expected = by_hand(image, how).astype(int)
    found = Preprocessing(processor).prepare(image).permute(1, 2, 0).numpy().astype(int)
    assert found.shape == (SIDE, SIDE, 3)
    assert np.abs(found - expected).max() <= 1
    if how == "pad" and size[0] > size[1]:
        assert found[0, 0].tolist() == [int(value * 255) for value in MEAN]
    processor.save_pretrained(tmp_path)
    stock = AutoImageProcessor.from_pretrained(tmp_path)
    values = stock(images=image, return_tensors="pt")["pixel_values"][0]
    wanted = (torch.tensor(found).permute(2, 0, 1) / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(
        STD
    ).view(3, 1, 1)
    torch.testing.assert_close(values, wanted, rtol=1e-4, atol=1e-4)


def test_resize_modes_differ_on_images_that_are_not_square() -> None:
    image = picture(72, 48)
    made = {how: by_hand(image, how).tolist() for how in ("crop", "squash", "pad")}
    assert made["crop"] != made["squash"] != made["pad"] != made["crop"]


def test_a_processor_that_crops_keeps_its_margin() -> None:
    cropping = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": SIDE, "width": SIDE})
    assert with_resize(cropping, "crop", SIDE, SIDE) is cropping


def test_a_processor_without_normalization_attributes_is_refused() -> None:
    with pytest.raises(InputError, match="cannot be changed"):
        with_resize(object(), "pad", SIDE, SIDE)


@pytest.mark.parametrize(
    ("content", "side"),
    [
        ({"crop_size": {"height": 224, "width": 224}, "size": {"shortest_edge": 256}}, 224),
        ({"crop_size": 336, "size": 336}, 336),
        ({"do_center_crop": None, "crop_size": None, "size": {"height": 384, "width": 384}}, 384),
        (
            {"do_center_crop": False, "crop_size": {"height": 9, "width": 9}, "size": {"shortest_edge": 64}},
            64,
        ),
        ({"do_resize": False, "size": {"shortest_edge": 64}}, 0),
        ({"image_processor": {"size": {"height": 32, "width": 48}}}, 32),
        ({}, 0),
    ],
)
def test_the_side_is_read_from_the_file(content: dict[str, Any], side: int, tmp_path: Path) -> None:
    assert prepared_side(tmp_path) == 0
    name = "processor_config.json" if "image_processor" in content else "preprocessor_config.json"
    (tmp_path / name).write_text(json.dumps(content))
    assert prepared_side(tmp_path) == side


class Flipping(CLIPImageProcessor):
    """Keeps the size of its images, not their pixels."""

    def __call__(self, images: Image.Image, **options: Any) -> Any:
        return super().__call__(images.transpose(Image.Transpose.FLIP_LEFT_RIGHT), **options)


@pytest.mark.parametrize("own", ["crops", "squashes", "flips"])
def test_images_of_the_final_size_pass_the_processor_only_if_it_changes_them(own: str) -> None:
    square = {"height": SIDE, "width": SIDE}
    flipping = Flipping(size={"shortest_edge": SIDE}, crop_size=square)
    processor = processors()[own] if own != "flips" else flipping
    preprocessing = Preprocessing(processor)
    images = [picture(SIDE, SIDE), picture(40, SIDE), picture(SIDE, SIDE + 1)] * 2
    expected = [Preprocessing(processor)._processed(image) for image in images]
    for image, pixels in zip(images, expected, strict=True):
        assert torch.equal(preprocessing.prepare(image), pixels)
    assert preprocessing._unchanged_sizes == {(SIDE, SIDE): own != "flips"}
    preprocessing._processed = None  # type: ignore[method-assign, assignment]
    if own != "flips":
        assert torch.equal(preprocessing.prepare(images[0]), expected[0])
