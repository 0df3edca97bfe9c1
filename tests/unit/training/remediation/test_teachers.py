from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from priorkit.data.images.augmentation import AugmentationSettings
from priorkit.data.images.decoding import ImageRef
from priorkit.data.images.pixels import Pixels
from priorkit.models.vision.encoder import Encoder
from priorkit.training.remediation.teachers import teacher_features
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
        return teacher_features(Counting(), large, views, "teacher", key), Counting.passes - before

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
