"""Kept features: within the limit by what an image's features really take."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from priorkit.core.process.runtime import Runtime
from priorkit.data.images.decoding import ImageRef
from priorkit.data.images.pixels import Pixels
from priorkit.training.finetuning import vision_features
from priorkit.training.finetuning.vision_features import CachedFeatures, PerStepFeatures, choose_features

STATES, POSITIONS, WIDTH, IMAGES = 3, 5, 8, 4


class Seer:
    """Features of several hidden states, as LION's and those of several layers of LLaVA."""

    image_tokens = 2
    device = torch.device("cpu")

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def patch_features(self, pixels: torch.Tensor) -> torch.Tensor:
        means = pixels.float().mean((1, 2, 3))[:, None, None, None]
        return means.expand(-1, STATES, POSITIONS, WIDTH).to(self.dtype)


def pixels_of(tmp_path) -> Pixels:
    from PIL import Image

    refs = []
    for number in range(IMAGES):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (6, 6), (number, 0, 0)).save(path)
        refs.append(ImageRef(path.name, path))
    return Pixels(refs, lambda image: torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1))


@pytest.mark.parametrize(("dtype", "bytes_each"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_the_limit_holds_for_what_features_take(tmp_path, monkeypatch, dtype, bytes_each: int) -> None:
    runtime = Runtime(torch.device("cpu"), "fp32", 0)
    size = IMAGES * STATES * POSITIONS * WIDTH * bytes_each
    for limit, kind in ((size, CachedFeatures), (size - 1, PerStepFeatures)):
        monkeypatch.setattr(vision_features, "CACHE_BYTES", limit)
        found = choose_features(
            Seer(dtype), pixels_of(tmp_path), trained=False, runtime=runtime, workers=0, epochs=2
        )
        assert type(found) is kind
        features = found.of_batch(found.collate([3, 1]))
        assert features is not None
        assert features.shape == (2, STATES, POSITIONS, WIDTH)
        assert features[:, 0, 0, 0].tolist() == [1.0, pytest.approx(1 / 3, abs=2e-3)]


@pytest.mark.parametrize(
    ("trained", "epochs", "kept"), [(False, 0.9, False), (False, 3, False), (True, 1, False), (True, 3, True)]
)
def test_images_are_kept_only_where_they_are_used_again(
    tmp_path, trained: bool, epochs: float, kept: bool
) -> None:
    """Cached features are computed from each image once; without them every epoch needs the images."""
    pixels = pixels_of(tmp_path)
    runtime = Runtime(torch.device("cpu"), "fp32", 0)
    choose_features(Seer(torch.float32), pixels, trained=trained, runtime=runtime, workers=0, epochs=epochs)
    first = pixels[2]
    assert (pixels[2] is first) == kept
