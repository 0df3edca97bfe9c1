from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from priorkit.data.images.decoding import ImageRef
from priorkit.models.vision.building import build_encoder
from priorkit.models.vision.encoder import Encoder


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    texts = ["a photo of a heron", "an egret"]
    return build_encoder("pocket-tiny", texts, [Image.linear_gradient("L").convert("RGB")], 300, seed=1)


@pytest.fixture(scope="module")
def images() -> list[ImageRef]:
    refs: list[ImageRef] = []
    for seed in range(6):
        pixels = np.random.default_rng(seed).integers(0, 255, (48, 48, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        refs.append(ImageRef(str(seed), content=stream.getvalue()))
    return refs
