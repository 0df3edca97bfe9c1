"""Batches of prepared images: decoded by threads while the model works, broken ones noted and left out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from priorkit.data.images import BrokenImageError, ImageRef, decode_and_tell

if TYPE_CHECKING:
    from PIL import Image

_AHEAD = 2
"""Batches prepared before they are asked for."""


class PreparedBatch(NamedTuple):
    """The images of a batch that decode.

    Attributes:
        rows: their numbers in the list.
        pixels: what was prepared of each.
        kinds: what is unusual about each, of :data:`priorkit.data.images.KINDS`.
    """

    rows: list[int]
    pixels: list[Tensor]
    kinds: list[tuple[str, ...]]


_One = tuple[Tensor, tuple[str, ...]] | None


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

    def one(row: int) -> _One:
        try:
            image, kinds = decode_and_tell(refs[row])
            return prepare(image), kinds
        except BrokenImageError:
            return None

    starts = [start for number, start in enumerate(range(0, len(refs), batch_size)) if chosen(number)]
    batches = [range(start, min(start + batch_size, len(refs))) for start in starts]

    def whole(rows: range, made: Sequence[_One]) -> PreparedBatch:
        good = [row for row, one in zip(rows, made, strict=True) if one is not None]
        found = [one for one in made if one is not None]
        return PreparedBatch(good, [pixels for pixels, _ in found], [kinds for _, kinds in found])

    if not threads:
        for rows in batches:
            yield whole(rows, [one(row) for row in rows])
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[tuple[range, list[Future[_One]]]] = deque()
        for rows in batches:
            waiting.append((rows, [pool.submit(one, row) for row in rows]))
            if len(waiting) > _AHEAD:
                done, futures = waiting.popleft()
                yield whole(done, [future.result() for future in futures])
        for rows, futures in waiting:
            yield whole(rows, [future.result() for future in futures])
