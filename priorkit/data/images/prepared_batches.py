"""Batches of prepared images: decoded by threads while the model works, broken ones noted and left out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from priorkit.data.images.decoding import BrokenImageError, ImageRef, decode_with_kinds
from priorkit.data.io.threads import streamed_in_threads

if TYPE_CHECKING:
    from PIL import Image

_AHEAD = 2
"""Batches prepared before they are asked for."""


class PreparedBatch(NamedTuple):
    """The images of a batch that decode.

    Attributes:
        rows: their numbers in the list.
        pixels: what was prepared of each.
        kinds: what is unusual about each, of :data:`priorkit.data.images.decoding.KINDS`.
    """

    rows: list[int]
    pixels: list[Tensor]
    kinds: list[tuple[str, ...]]


def prepared_batches(
    refs: Sequence[ImageRef],
    prepare: Callable[[Image.Image], Tensor],
    batch_size: int,
    threads: int,
    chosen: Callable[[int], bool] = lambda number: True,
) -> Iterator[PreparedBatch]:
    """Yield the images of each batch that decode.

    What a batch holds depends on the list and the size alone, so that a model's rounding, which may depend
    on it, is the same however the batches are shared out.

    Args:
        refs: where the images are.
        prepare: resizes and crops a decoded image.
        batch_size: images per batch.
        threads: how many decode at once; 0 decodes in the calling thread.
        chosen: which batches, by number, are wanted.
    """

    def one(row: int) -> tuple[Tensor, tuple[str, ...]] | None:
        try:
            image, kinds = decode_with_kinds(refs[row])
            return prepare(image), kinds
        except BrokenImageError:
            return None

    starts = [start for number, start in enumerate(range(0, len(refs), batch_size)) if chosen(number)]
    batches = [range(start, min(start + batch_size, len(refs))) for start in starts]
    rows = itertools.chain.from_iterable(batches)
    made = streamed_in_threads(one, rows, threads, ahead=_AHEAD * batch_size)
    for batch in batches:
        found = [(row, image) for row, image in itertools.islice(made, len(batch)) if image is not None]
        yield PreparedBatch(
            [row for row, _ in found],
            [pixels for _, (pixels, _) in found],
            [kinds for _, (_, kinds) in found],
        )
