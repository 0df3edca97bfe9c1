from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from priorkit.data.images.augmentation import AugmentationSettings, View, draw_view, moved
from priorkit.data.images.decoding import ImageRef
from priorkit.data.images.pixels import Pixels


def drawn(settings: AugmentationSettings, count: int = 200, size: tuple[int, int] = (60, 40)) -> list[View]:
    return [draw_view(settings, seed, size, 48) for seed in range(count)]


def picture(width: int = 60, height: int = 40) -> ImageRef:
    values = np.random.default_rng(1).integers(0, 255, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    return ImageRef("x", content=stream.getvalue())


def prepare(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image.resize((48, 48))).copy()).permute(2, 0, 1)


def test_without_augmentation_the_image_is_unchanged() -> None:
    pixels = Pixels([picture()], prepare)
    view = pixels.draw(0, AugmentationSettings(), 5)
    assert view == View()
    assert torch.equal(pixels.view(0, view), pixels[0])


def test_a_view_is_a_function_of_its_seed() -> None:
    settings = AugmentationSettings(augment_crop=0.3, augment_shift=2, augment_flip=True, augment_jitter=0.2)
    assert drawn(settings, 20) == drawn(settings, 20)
    assert len({str(view) for view in drawn(settings)}) == 200
    pixels = Pixels([picture()], prepare)
    one, two = (pixels.view(0, pixels.draw(0, settings, seed)) for seed in (3, 3))
    assert one.shape == (3, 48, 48)
    assert one.dtype == torch.uint8
    assert torch.equal(one, two)


def test_a_shift_repeats_the_border_and_takes_every_value() -> None:
    pixels = torch.arange(3 * 48 * 48).remainder(251).to(torch.uint8).view(3, 48, 48)
    shifted = moved(pixels, 1, 1)
    assert torch.equal(shifted[:, :-1, :-1], pixels[:, 1:, 1:])
    assert torch.equal(shifted[:, -1, :-1], pixels[:, -1, 1:])
    views = drawn(AugmentationSettings(augment_shift=2), 400)
    moves = {(round(v.move[0] * 48), round(v.move[1] * 48)) for v in views}
    assert moves == {(a, b) for a in range(-2, 3) for b in range(-2, 3)}
    assert torch.equal(View(move=(1 / 48, 1 / 48)).apply(pixels), shifted)


def test_crops_keep_their_share_and_stay_inside() -> None:
    areas, aspects = [], []
    for view in drawn(AugmentationSettings(augment_crop=0.3), 500):
        assert view.crop is not None
        left, top, right, bottom = view.crop
        assert 0 <= left < right <= 1 + 1e-9
        assert 0 <= top < bottom <= 1 + 1e-9
        areas.append((right - left) * (bottom - top))
        aspects.append((right - left) * 60 / ((bottom - top) * 40))
    # If no crop is found, it is the full image with its aspect ratio.
    whole = [area == 1 for area in areas]
    assert sum(whole) < 25
    assert min(areas) == pytest.approx(0.3, abs=0.02)
    found = [aspect for aspect, is_whole in zip(aspects, whole, strict=True) if not is_whole]
    assert min(found) >= 3 / 4 - 1e-9
    assert max(found) <= 4 / 3 + 1e-9


def test_a_crop_is_the_box_of_the_source_resized() -> None:
    ref = picture()
    pixels = Pixels([ref], prepare)
    source = Image.open(io.BytesIO(ref.content or b"")).convert("RGB")
    expected = source.resize((48, 48), Image.Resampling.BICUBIC, box=(15, 10, 45, 30))
    found = pixels.view(0, View(crop=(0.25, 0.25, 0.75, 0.75)))
    assert torch.equal(found, torch.from_numpy(np.asarray(expected).copy()).permute(2, 0, 1))


def test_flips_are_even_and_off_by_default() -> None:
    assert not any(view.mirrored for view in drawn(AugmentationSettings(augment_shift=1)))
    share = sum(view.mirrored for view in drawn(AugmentationSettings(augment_flip=True), 1000)) / 1000
    assert share == pytest.approx(0.5, abs=0.05)
    pixels = Pixels([picture()], prepare)[0]
    assert torch.equal(View(mirrored=True).apply(pixels), functional.horizontal_flip(pixels))


def test_colours_are_torchvisions() -> None:
    pixels = Pixels([picture()], prepare)[0]
    expected = functional.adjust_saturation(
        functional.adjust_contrast(functional.adjust_brightness(pixels, 1.1), 0.9), 1.2
    )
    assert torch.equal(View(colour=(1.1, 0.9, 1.2)).apply(pixels), expected)
    factors = [factor for v in drawn(AugmentationSettings(augment_jitter=0.2)) for factor in v.colour]
    assert 0.8 <= min(factors) < 0.82
    assert 1.18 < max(factors) <= 1.2
