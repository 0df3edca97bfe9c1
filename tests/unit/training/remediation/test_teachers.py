from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from priorkit.core.errors import InputError
from priorkit.data.images.augmentation import AugmentationSettings
from priorkit.data.images.decoding import ImageRef
from priorkit.data.images.pixels import Pixels
from priorkit.models.vision.encoder import Encoder
from priorkit.training.remediation.teachers import PatchTokens, resampled, teacher_features
from priorkit.training.remediation.views import ViewSchedule


class Counting:
    """A teacher that counts its forward passes."""

    passes = 0
    device = torch.device("cpu")
    batch = staticmethod(torch.stack)

    def encode_images(self, pixels: Tensor) -> Tensor:
        type(self).passes += 1
        return normalize(pixels.float().mean(dim=(2, 3)) + 1, dim=-1)


def test_teachers_features_are_those_of_the_views_and_are_cached(
    encoder: Encoder, images: list[ImageRef], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRIORKIT_CACHE", str(tmp_path))
    moving = AugmentationSettings(augment_shift=4, augment_crop=0.4)
    views = ViewSchedule(Pixels(images, encoder.prepare), moving, 3, 2)
    large = Pixels(
        images, lambda image: torch.from_numpy(np.asarray(image.resize((96, 96))).copy()).permute(2, 0, 1)
    )

    def computed(**key: int) -> tuple[Tensor, int]:
        before = Counting.passes
        found = teacher_features(Counting(), large, views, "teacher", key)
        return torch.stack(found), Counting.passes - before

    found, passes = computed(a=1)
    assert (found.shape, passes) == ((2, 6, 3), 2)
    for number in range(2):
        for index in range(6):
            view = large.view(index, views.fixed_view(index, number))[None]
            assert view.shape == (1, 3, 96, 96)
            torch.testing.assert_close(found[number, index], Counting().encode_images(view)[0])
    again, passes = computed(a=1)
    assert torch.equal(again, found)
    assert passes == 0
    assert computed(a=2)[1] == 2
    monkeypatch.setattr("priorkit.core.process.runtime.versions", lambda: {"torch": "0.1"})
    assert computed(a=1)[1] == 2
    monkeypatch.undo()
    monkeypatch.setenv("PRIORKIT_CACHE", str(tmp_path))
    for file in (tmp_path / "features").glob("*/features.safetensors"):
        file.write_bytes(b"damaged")
    repaired, passes = computed(a=1)
    assert torch.equal(repaired, found)
    assert passes == 2


def test_patch_tokens_are_resampled_to_the_students_grid_and_cached(
    encoder: Encoder, images: list[ImageRef], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRIORKIT_CACHE", str(tmp_path))
    pixels = Pixels(images, encoder.prepare)
    views = ViewSchedule(pixels, AugmentationSettings(), 3, 1)
    own = encoder.shape.patches[-2]
    with torch.no_grad():
        batch = torch.stack([pixels[index] for index in range(6)])
        tokens = encoder.forward_vision(batch, hidden_states=True).layer(-2).float()

    def patches(count: int) -> Tensor:
        (found,) = teacher_features(encoder, pixels, views, "t", {"a": 1}, patches=PatchTokens(-2, count))
        assert found.dtype == torch.float16
        return found.float()

    torch.testing.assert_close(patches(own), tokens, rtol=2e-3, atol=2e-3)
    side = round(own**0.5)
    grid = tokens.transpose(1, 2).unflatten(2, (side, side))
    larger = torch.nn.functional.interpolate(grid, (side + 1,) * 2, mode="bilinear", align_corners=False)
    expected = larger.flatten(2).transpose(1, 2)
    torch.testing.assert_close(patches((side + 1) ** 2), expected, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(resampled(torch.full((1, 16, 3), 0.7), 4), torch.full((1, 4, 3), 0.7))
    with pytest.raises(InputError, match="square grids"):
        resampled(tokens, own + 1)
    monkeypatch.setattr(Encoder, "forward_vision", None)
    torch.testing.assert_close(patches(own), tokens, rtol=2e-3, atol=2e-3)
