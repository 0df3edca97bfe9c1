"""Pairs kept on disk are those that were stored, and memory does not grow with what they hold."""

from __future__ import annotations

import tracemalloc
from array import array
from pathlib import Path

import numpy as np

from priorkit.data.images.decoding import ImageRef
from priorkit.data.images.masks import RunLengths
from priorkit.data.images.regions import ImageRegion
from priorkit.data.io.rejects import Rejects
from priorkit.data.pairs.stored_pairs import Pair, StoredPairs

MASK = RunLengths.encode(np.eye(5, 7, dtype=bool))
REGIONS = (
    ImageRegion("a thing", (0.1, 0.2, 1 / 3, 1.0), MASK),
    ImageRegion("ein Fähnchen", (0.0, 0.0, 1.0, 1.0)),
)


def pairs() -> list[Pair]:
    lone = "\udcff.png"  # a file name that is no UTF-8
    return [
        Pair(1, ImageRef("a", Path("/images/a.png")), "a heron"),
        Pair(2, ImageRef("shard.tar:x", Path("/images/shard.tar"), span=(512, 9)), "два", REGIONS),
        Pair(4, ImageRef("rows.parquet:4", content=b"bytes of an image"), "of\n two lines", REGIONS[1:]),
        Pair(1, ImageRef(lone, Path(f"/images/{lone}")), "lone \udcff"),
    ]


def test_stored_pairs_are_those_that_were_added(tmp_path: Path) -> None:
    stored, read = StoredPairs(tmp_path, with_regions=True), Rejects(1.0)

    def rows():
        for file, pair in zip("aaab", pairs(), strict=True):
            if pair.row == 4:
                read.add("a", 3, "broken")
            yield Path(file), pair

    stored.add(rows(), read)
    found = stored.pairs(array("q", range(4)))
    expected = pairs()
    assert list(found.texts) == [pair.text for pair in expected]
    assert list(found.regions) == [pair.regions for pair in expected]
    assert [(ref.name, ref.path) for ref in found.images] == [
        (pair.image.name, pair.image.path) for pair in expected
    ]
    assert found.images[1].span == (512, 9)
    assert found.images[1].spool is None
    assert found.images[2].read() == b"bytes of an image"
    assert [stored.origin(place) for place in range(4)] == [
        (Path("a"), 1), (Path("a"), 2), (Path("a"), 4), (Path("b"), 1),
    ]  # fmt: skip
    assert [stored.broken_before(place) for place in range(4)] == [0, 0, 1, 1]
    assert [ref.name for ref in stored.images_from(2)] == [pair.image.name for pair in expected[2:]]
    some = stored.pairs(array("q", [0, 2]))
    assert (list(some.texts), list(some.regions)) == (["a heron", "of\n two lines"], [(), REGIONS[1:]])


def test_memory_holds_some_bytes_for_a_pair_however_large_it_is(tmp_path: Path) -> None:
    def rows():
        for number in range(20_000):
            yield (
                tmp_path,
                Pair(number, ImageRef(f"image {number}", content=b"x" * 200), f"text {number} " * 20),
            )

    tracemalloc.start()
    stored = StoredPairs(tmp_path, with_regions=False)
    stored.add(rows(), Rejects(1.0))
    found = stored.pairs(array("q", range(20_000)))
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(found) == 20_000
    assert held / 20_000 < 60
