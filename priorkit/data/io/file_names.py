"""Names of files, each once and in order, however many there are."""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice

from priorkit.core.errors import ResourceError

_ADDED_AT_ONCE = 50_000
"""Names sorted in memory before they are added: in order they are added quickly, and one repeated nearby costs nothing."""

_CACHE_KILOBYTES = 16_000
"""Memory that the table may take before it is written to disk."""


class FileNames(Collection[str]):
    """Distinct names in the order of their characters; beyond some 100,000 they are kept on disk, not in memory.

    The file has no name and vanishes with the process.

    Args:
        names: in any order, with repetitions.

    Raises:
        ResourceError: the disk has no room for them.
    """

    def __init__(self, names: Iterable[str]) -> None:
        # A database without a name is a private, temporary file, made once its cache is full.
        self._table = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._table.close)
        for setting in (f"cache_size = -{_CACHE_KILOBYTES}", "journal_mode = OFF", "synchronous = OFF"):
            self._table.execute(f"PRAGMA {setting}")
        self._table.execute("CREATE TABLE names (name BLOB PRIMARY KEY) WITHOUT ROWID")
        remaining = iter(names)
        self._table.execute("BEGIN")
        while self._add(sorted(set(islice(remaining, _ADDED_AT_ONCE)))):
            pass
        self._table.execute("COMMIT")
        self._count: int = self._table.execute("SELECT COUNT(*) FROM names").fetchone()[0]

    def _add(self, names: Sequence[str]) -> bool:
        """Add names; whether there are any."""
        # Bytes of UTF-8 have the order of their characters.
        rows = ((name.encode("utf-8", "surrogatepass"),) for name in names)
        try:
            self._table.executemany("INSERT OR IGNORE INTO names VALUES (?)", rows)
            return bool(names)
        except sqlite3.OperationalError as error:
            raise ResourceError(
                f"the names of the files that rows name cannot be kept on disk: {error}",
                hint="free some space, or set TMPDIR to a folder with more",
            ) from None

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        for (name,) in self._table.execute("SELECT name FROM names ORDER BY name"):
            yield name.decode("utf-8", "surrogatepass")

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        key = name.encode("utf-8", "surrogatepass")
        return self._table.execute("SELECT 1 FROM names WHERE name = ?", (key,)).fetchone() is not None
