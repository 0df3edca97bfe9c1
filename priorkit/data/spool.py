"""Bytes and values in unnamed files instead of memory; the files vanish with the process."""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class Spool:
    """Bytes in an unnamed file. Reading is safe in threads and in forked worker processes.

    Args:
        folder: where there is room on disk; None means the system's folder of temporary files.

    Attributes:
        size: bytes in the file.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder, self.size = folder, 0

    @cached_property
    def _file(self) -> IO[bytes]:
        # Created with the first bytes: most sources embed no images.
        return tempfile.TemporaryFile(dir=self._folder)

    def add(self, *contents: bytes) -> tuple[int, int]:
        """Append bytes; returns their offset and length. They can be read after :meth:`flush`."""
        self._file.writelines(contents)
        start, length = self.size, sum(map(len, contents))
        self.size += length
        return start, length

    def flush(self) -> None:
        """Make what was added readable."""
        if self.size:
            self._file.flush()

    def read(self, span: tuple[int, int]) -> bytes:
        """The bytes of an offset and length."""
        return os.pread(self._file.fileno(), span[1], span[0])


class SpooledSequence(Sequence[T]):
    """Values in an unnamed file, decoded when they are read; memory holds eight bytes for each, however large they are.

    Args:
        folder: as :class:`Spool`'s.
        encode: a value as bytes.
        decode: the value of bytes.
    """

    _TOGETHER = 1024
    """Values read at a time where all are read in order: 0.4 instead of 4 microseconds for a caption, measured."""

    def __init__(
        self, folder: Path | None, encode: Callable[[T], bytes], decode: Callable[[bytes], T]
    ) -> None:
        self._spool, self._ends = Spool(folder), array("q", [0])
        self._encode, self._decode = encode, decode
        self._chosen: NDArray[np.int64] | None = None

    def append(self, value: T) -> None:
        """Add one at the end. It can be read after :meth:`flush`."""
        start, length = self._spool.add(self._encode(value))
        self._ends.append(start + length)

    def flush(self) -> None:
        """Make what was appended readable."""
        self._spool.flush()

    def choose(self, places: NDArray[np.int64]) -> SpooledSequence[T]:
        """The values of ascending places, in the same file."""
        chosen = SpooledSequence(None, self._encode, self._decode)
        chosen._spool, chosen._ends = self._spool, self._ends
        chosen._chosen = places if self._chosen is None else self._chosen[places]
        return chosen

    def __len__(self) -> int:
        return len(self._ends) - 1 if self._chosen is None else len(self._chosen)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        places = range(len(self))[index]
        if isinstance(places, int):
            return next(self._read(range(places, places + 1)))
        if places.step == 1:
            return list(self._read(places))
        return [self[place] for place in places]

    def __iter__(self) -> Iterator[T]:
        return self._read(range(len(self)))

    def _read(self, places: range) -> Iterator[T]:
        """The values of consecutive places, many of them with one read."""
        for start in range(places.start, places.stop, self._TOGETHER):
            some = range(start, min(start + self._TOGETHER, places.stop))
            stored = some if self._chosen is None else self._chosen[some.start : some.stop].tolist()
            first = self._ends[stored[0]]
            content = self._spool.read((first, self._ends[stored[-1] + 1] - first))
            for place in stored:
                yield self._decode(content[self._ends[place] - first : self._ends[place + 1] - first])
