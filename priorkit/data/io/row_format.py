"""What a file format of rows has to provide; :mod:`priorkit.data.io.formats` lists the formats."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from priorkit.data.io.rejects import Rejects

PART_BYTES = 4 << 20
"""Bytes of a part of a file: small enough that processes finish together, large enough to be worth a message."""

NumberedRow = tuple[int, dict[str, Any]]
"""A row with its number, from 1."""


def json_type(value: object) -> str:
    """What a JSON value is, for messages."""
    names: dict[type, str] = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "a boolean",
        type(None): "null",
    }
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


@dataclass(frozen=True, slots=True)
class FilePart:
    """One of the parts that a file is read in.

    Attributes:
        path: the file.
        index: which part, from 0.
        count: how many parts the file has.
    """

    path: Path
    index: int
    count: int


class RowFormat(ABC):
    """A file format of rows.

    Attributes:
        suffixes: of its files, in lower case.
        ambiguous: whether files with these suffixes often hold something else, such as settings, so that
            a folder is searched for them last.
        secondary: whether such a file next to files of other formats is a list of something else, as a rule, so
            that a folder's are read only where it holds no others.
        has_schema: whether all rows have the columns that :meth:`column_names` gives; of JSON those of one row.
    """

    suffixes: ClassVar[tuple[str, ...]]
    ambiguous: ClassVar[bool] = False
    secondary: ClassVar[bool] = False
    has_schema: ClassVar[bool] = False

    @abstractmethod
    def read(self, path: Path, rejects: Rejects, columns: list[str] | None) -> Iterator[NumberedRow]:
        """Yield the rows of a file that is not empty.

        Args:
            path: the file.
            rejects: takes rows that do not parse.
            columns: the columns that are needed, all where None; a format may ignore this.

        Raises:
            InputError: the file is truncated or not of this format.
        """

    def may_hold_rows(self, path: Path) -> bool:
        """Whether a file of an ambiguous format may hold rows, by its beginning."""
        return True

    def column_names(self, path: Path) -> list[str]:
        """The columns of a file; by default the keys of its first row."""
        for _, row in self.read(path, Rejects(1.0), None):
            return list(row)
        return []

    def part_count(self, path: Path) -> int:
        """In how many parts a file is read; it follows from the file only."""
        return 1

    def read_part(
        self, part: FilePart, rejects: Rejects, columns: list[str] | None, count_line: Callable[[], None]
    ) -> Iterator[NumberedRow]:
        """Yield the rows of a part.

        Args:
            part: one of as many as :meth:`part_count` says.
            rejects: takes rows that do not parse.
            columns: as for :meth:`read`.
            count_line: called for every line where row numbers count from the start of the part; where
                they count from the start of the file, it is not called.
        """
        return self.read(part.path, rejects, columns)
