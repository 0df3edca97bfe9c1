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
from priorkit.training.remediation.teachers import cache_key, teacher_features
from priorkit.training.remediation.views import ViewSchedule


class Counting:
    """A teacher that counts how often it looks."""

    looks = 0
    batch = staticmethod(torch.stack)

    def encode_images(self, batches: Any) -> Tensor:
        type(self).looks += 1
        return torch.cat([normalize(batch.float().mean(dim=(2, 3)) + 1, dim=-1) for batch in batches])


def test_teachers_features_are_those_of_the_views_and_are_cached(
    encoder: Encoder, images: list[ImageRef], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRIORKIT_CACHE", str(tmp_path))
    moving = AugmentationSettings(augment_shift=4, augment_crop=0.4)
    views = ViewSchedule(Pixels(images, encoder.prepare), moving, 3, 2)
    large = Pixels(
        images, lambda image: torch.from_numpy(np.asarray(image.resize((96, 96))).copy()).permute(2, 0, 1)
    )
    key = cache_key(a=1)
    found = teacher_features(Counting(), large, views, "teacher", key)
    assert found.shape == (2, 6, 3)
    for number in range(2):
        for index in range(6):
            seen = large.view(index, views.fixed_view(index, number))[None]
            assert seen.shape == (1, 3, 96, 96)
            torch.testing.assert_close(found[number, index], Counting().encode_images([seen])[0])
    before = Counting.looks
    assert torch.equal(teacher_features(Counting(), large, views, "teacher", key), found)
    assert Counting.looks == before
    assert cache_key(a=2) != key
    monkeypatch.setattr("priorkit.core.runtime.versions", lambda: {"torch": "0.1"})
    assert cache_key(a=1) != key
    monkeypatch.undo()
    monkeypatch.setenv("PRIORKIT_CACHE", str(tmp_path))
    (tmp_path / "features" / f"{key}.safetensors").write_bytes(b"damaged")
    assert torch.equal(teacher_features(Counting(), large, views, "teacher", key), found)
