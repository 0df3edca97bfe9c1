"""Batches of prepared images: the same with and without threads, broken images left out where they stand."""

from __future__ import annotations

import io

import pytest
import torch
from PIL import Image

from priorkit.data.images.decoding import ImageRef
from priorkit.data.images.prepared_batches import prepared_batches


def refs() -> list[ImageRef]:
    found = []
    for number in range(11):
        stream = io.BytesIO()
        Image.new("RGB", (2, 2), (number, 0, 0)).save(stream, "PNG")
        content = b"broken" if number in (3, 8, 9, 10) else stream.getvalue()
        found.append(ImageRef(str(number), content=content))
    return found


def red(image: Image.Image) -> torch.Tensor:
    return torch.tensor(image.getpixel((0, 0))[0])


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_batches_keep_their_rows(threads: int) -> None:
    found = list(prepared_batches(refs(), red, 4, threads))
    assert [batch.rows for batch in found] == [[0, 1, 2], [4, 5, 6, 7], []]
    assert [[int(pixel) for pixel in batch.pixels] for batch in found] == [[0, 1, 2], [4, 5, 6, 7], []]


@pytest.mark.parametrize("threads", [0, 2])
def test_chosen_batches_hold_what_they_hold_among_all(threads: int) -> None:
    halves = [
        list(prepared_batches(refs(), red, 2, threads, lambda number, half=half: number % 2 == half))
        for half in (0, 1)
    ]
    assert sorted(row for half in halves for batch in half for row in batch.rows) == [0, 1, 2, 4, 5, 6, 7]
    assert [batch.rows for batch in halves[1]] == [[2], [6, 7], []]


def test_an_error_of_the_preparation_is_not_swallowed() -> None:
    def fails(image: Image.Image) -> torch.Tensor:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        list(prepared_batches(refs(), fails, 4, 2))
