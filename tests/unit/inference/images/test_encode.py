"""Features of images: the same with and without threads, broken images reported in their batch, cached."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from priorkit.core.errors import InputError
from priorkit.data.images.decoding import BrokenImageError, ImageRef
from priorkit.data.io.rejects import Rejects
from priorkit.inference.images import encode as encode_module
from priorkit.inference.images.batches import EncodedBatch, encode_batches
from priorkit.inference.images.encode import encode
from priorkit.inference.images.feature_cache import FeatureCache

BROKEN = (3, 8, 9, 10)


def references() -> list[ImageRef]:
    found = []
    for number in range(11):
        stream = io.BytesIO()
        mode = "CMYK" if number == 1 else "RGB"
        Image.new("RGB", (2, 2), (number, 0, 0)).convert(mode).save(stream, "TIFF")
        found.append(ImageRef(str(number), content=b"broken" if number in BROKEN else stream.getvalue()))
    return found


class Red:
    """A model whose feature is the image's red value."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def prepare(self, image: Image.Image) -> torch.Tensor:
        return torch.tensor(image.getpixel((0, 0))[0])

    def encode(self, prepared: list[Any]) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        self.batches.append(len(prepared))
        return torch.stack(prepared)[:, None].float()


def batches(threads: int | None, batch_size: int = 4, **options: Any) -> list[EncodedBatch]:
    return list(
        encode_batches(
            references(),
            Red(),
            Red.encode,
            batch_size=batch_size,
            threads=threads,
            skip_broken=True,
            **options,
        )
    )


@pytest.mark.parametrize("threads", [0, 1, 4, None])
def test_batches_keep_their_rows_and_report_broken_images(threads: int | None) -> None:
    found = batches(threads)
    assert [batch.rows for batch in found] == [[0, 1, 2], [4, 5, 6, 7], []]
    values = [None if batch.features is None else batch.features[:, 0].tolist() for batch in found]
    assert values == [[0, 1, 2], [4, 5, 6, 7], None]
    assert [list(batch.broken) for batch in found] == [[3], [], [8, 9, 10]]
    assert all(reason for batch in found for reason in batch.broken.values())
    assert found[0].kinds == [(), ("cmyk",), ()]


@pytest.mark.parametrize("threads", [0, 2])
def test_selected_batches_have_the_rows_that_they_have_among_all(threads: int) -> None:
    halves = [batches(threads, 2, select=lambda batch, half=half: batch % 2 == half) for half in (0, 1)]
    assert sorted(row for half in halves for batch in half for row in batch.rows) == [0, 1, 2, 4, 5, 6, 7]
    assert [batch.rows for batch in halves[1]] == [[2], [6, 7], []]


def test_errors_are_raised() -> None:
    def fails(model: Red, reference: ImageRef) -> Any:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        batches(2, load=fails)
    with pytest.raises(BrokenImageError):
        list(encode_batches(references(), Red(), Red.encode, batch_size=4, threads=2))
    device = torch.device("cpu")
    with pytest.raises(BrokenImageError):
        encode(references(), Red, Red.encode, batch_size=4, threads=0, device=device)
    with pytest.raises(InputError, match="4 of 11 rows are broken"):
        encode(references(), Red, Red.encode, batch_size=4, threads=0, device=device, rejects=Rejects(0.1))


def test_features_are_cached_with_their_rows_and_counts(tmp_path: Path) -> None:
    model = Red()

    def encoded(**key: int) -> tuple[Any, Rejects]:
        rejects = Rejects(0.5)
        found = encode(
            references(), lambda: model, Red.encode, FeatureCache(tmp_path, key), batch_size=4, threads=2,
            device=torch.device("cpu"), rejects=rejects, source="images",
        )  # fmt: skip
        return found, rejects

    first, rejects = encoded(a=1)
    assert (first.rows, first.cached, model.batches) == ([0, 1, 2, 4, 5, 6, 7], False, [3, 4])
    assert first.features[:, 0].tolist() == first.rows
    second, again = encoded(a=1)
    assert (second.rows, second.cached, len(model.batches)) == (first.rows, True, 2)
    assert torch.equal(second.features, first.features)
    assert again.rows == rejects.rows
    assert [row["row"] for row in rejects.rows] == [row + 1 for row in BROKEN]
    assert again.unusual_images() == rejects.unusual_images()
    assert rejects.unusual_images()["cmyk"] == 1
    assert not encoded(a=2)[0].cached


@pytest.mark.parametrize("room", [True, False])
def test_large_features_are_in_a_file_where_the_disk_has_room(
    room: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode_module, "MAPPED_FROM", 11 * 4)
    mapped: list[torch.Tensor | None] = []
    mapped_zeros = FeatureCache.mapped_zeros

    def noted(cache: FeatureCache, *given: Any) -> torch.Tensor | None:
        mapped.append(mapped_zeros(cache, *given))
        return mapped[-1]

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FeatureCache, "mapped_zeros", noted)
    if not room:
        monkeypatch.setattr(os, "posix_fallocate", full)
    found = encode(
        references(), Red, Red.encode, FeatureCache(tmp_path, {}), batch_size=4, threads=0,
        device=torch.device("cpu"), rejects=Rejects(0.5),
    )  # fmt: skip
    assert [tensor is not None for tensor in mapped] == [room]
    assert found.features[:, 0].tolist() == found.rows == [0, 1, 2, 4, 5, 6, 7]
    (kept,) = tmp_path.iterdir()
    assert (kept / "features.safetensors").is_file()


def test_a_sum_by_parts_is_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode_module, "_PART_BYTES", 24)
    monkeypatch.setattr(encode_module.distributed, "total", lambda part: 2 * part)
    for shape in ((7, 3), (0, 3), (5,)):
        values = torch.arange(float(math.prod(shape))).view(shape)
        assert torch.equal(encode_module._total_by_parts(values.clone(), torch.device("cpu")), 2 * values)
