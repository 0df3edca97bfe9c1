"""Image-text pairs on disk while they are used."""

from __future__ import annotations

import json
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from priorkit.data.images.decoding import ImageRef
from priorkit.data.images.masks import RunLengths
from priorkit.data.images.regions import ImageRegion
from priorkit.data.io.rejects import Rejects
from priorkit.data.spool import Spool, SpooledSequence


@dataclass(frozen=True, slots=True)
class Pair:
    """An image with its text.

    Attributes:
        row: its row or sample in the file, from 1.
        image: the image.
        text: its text.
        regions: parts of the image with their texts, where they were asked for.
    """

    row: int
    image: ImageRef
    text: str
    regions: tuple[ImageRegion, ...] = ()


@dataclass(frozen=True)
class Pairs:
    """Images and their texts, in the order of the files.

    Attributes:
        images: where the images are.
        texts: their texts.
        regions: their regions, where they were asked for; else empty.
    """

    images: Sequence[ImageRef]
    texts: Sequence[str]
    regions: Sequence[tuple[ImageRegion, ...]] = ()

    def __len__(self) -> int:
        return len(self.texts)


class StoredPairs:
    """Pairs on disk as they were read, their images not checked yet; memory holds some 30 bytes for each.

    Args:
        folder: where there is room on disk; None means the system's folder of temporary files.
        with_regions: whether regions are kept too.

    Attributes:
        images: the images in the order of the files.
    """

    def __init__(self, folder: Path | None, with_regions: bool) -> None:
        self._content = Spool(folder)
        self.images = SpooledSequence(folder, _image_record, partial(_image_of, self._content))
        self._texts = SpooledSequence[str](folder, _encoded, _decoded)
        self._regions = SpooledSequence(folder, _regions_record, _regions_of) if with_regions else None
        self._rows = array("q")
        self._files: list[Path] = []
        self._first_of_file: list[int] = []
        self._pairs_before_broken = array("q")

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, pairs: Iterable[tuple[Path, Pair]], read: Rejects) -> None:
        """Store pairs; ``read`` grows by the rows that cannot be used between them."""
        for file, pair in pairs:
            self._pairs_before_broken.extend([len(self)] * (len(read) - len(self._pairs_before_broken)))
            if not self._files or self._files[-1] != file:
                self._files.append(file)
                self._first_of_file.append(len(self))
            self.images.append(pair.image.spooled(self._content))
            self._texts.append(pair.text)
            if self._regions is not None:
                self._regions.append(pair.regions)
            self._rows.append(pair.row)
        for part in (self._content, self.images, self._texts, self._regions):
            if part is not None:
                part.flush()

    def images_from(self, first: int) -> Sequence[ImageRef]:
        """The images from a place on."""
        return self.images.choose(np.arange(first, len(self))) if first else self.images

    def broken_before(self, place: int) -> int:
        """How many rows before a pair could not be used."""
        return bisect_right(self._pairs_before_broken, place)

    def origin(self, place: int) -> tuple[Path, int]:
        """The file of a pair, and its row or sample in it."""
        return self._files[bisect_right(self._first_of_file, place) - 1], self._rows[place]

    def pairs(self, usable: array[int]) -> Pairs:
        """The pairs of some places."""
        places = np.frombuffer(usable, dtype=np.int64)
        images, texts, regions = self.images, self._texts, self._regions
        if len(places) < len(self):
            images, texts = images.choose(places), texts.choose(places)
            regions = regions.choose(places) if regions is not None else None
        return Pairs(images, texts, regions if regions is not None else ())


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _decoded(record: bytes) -> str:
    return record.decode("utf-8", "surrogatepass")


def _image_record(image: ImageRef) -> bytes:
    path = None if image.path is None else str(image.path)
    return json.dumps([image.name, path, image.span, image.spool is not None]).encode()


def _image_of(spool: Spool, record: bytes) -> ImageRef:
    name, path, span, spooled = json.loads(record)
    return ImageRef(
        name,
        None if path is None else Path(path),
        span=None if span is None else (span[0], span[1]),
        spool=spool if spooled else None,
    )


def _regions_record(regions: tuple[ImageRegion, ...]) -> bytes:
    if not regions:
        return b""
    rows = [
        [region.text, region.box, mask and [mask.counts.tolist(), mask.height, mask.width]]
        for region in regions
        for mask in [region.mask]
    ]
    return json.dumps(rows).encode()


def _regions_of(record: bytes) -> tuple[ImageRegion, ...]:
    rows = json.loads(record) if record else []
    return tuple(
        ImageRegion(
            text, (box[0], box[1], box[2], box[3]), mask and RunLengths(array("l", mask[0]), *mask[1:])
        )
        for text, box, mask in rows
    )
