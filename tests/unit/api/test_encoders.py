from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import priorkit as pk


def test_images_and_texts_are_embedded(artifacts) -> None:
    encoder = pk.load_encoder(artifacts.encoder, device="cpu")
    files = sorted(path for path in Path(artifacts.images).rglob("*.png"))[:3]
    if not files:
        Image.new("RGB", (32, 32), "red").save(file := Path(artifacts.encoder).parent / "red.png")
        files = [file] * 3
    features = encoder.embed_images(files, batch_size=2)
    assert features.shape[0] == 3
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))
    image = Image.open(files[0]).convert("RGB")
    torch.testing.assert_close(encoder.embed_images([image])[0], features[0], atol=1e-5, rtol=0)
    names = encoder.embed_texts(["a star", "an arrow"])
    assert encoder.has_text
    assert names.shape == (2, features.shape[1])
    assert len(pk.rank_e(features, names, [0, 0, 1]).table) == 2


def test_an_encoder_that_is_not_there() -> None:
    with pytest.raises(pk.InputError, match="path_or_id: no such file or directory: nowhere"):
        pk.load_encoder("nowhere")
