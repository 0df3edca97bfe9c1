"""Writing converted rows: one parquet file per split, a batch of rows in memory."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# pyarrow has no type stubs.

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from priorkit.data.converters.base import Row

BATCH_ROWS, BATCH_BYTES = 256, 32 << 20
"""A batch is written when it has so many rows, or rows with so many bytes of images."""


class SplitWriter:
    """Writes the rows of one split; columns and types are those of its first batch.

    Args:
        path: the file.
        stack: closes it.
    """

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._path, self._stack = path, stack
        self._rows: list[Row] = []
        self._bytes = 0
        self._writer: Any = None

    def add(self, row: Row) -> None:
        """Add a row; a full batch is written."""
        self._rows.append(row)
        image = row.get("image")
        self._bytes += len(image["bytes"]) if isinstance(image, dict) else 0
        if len(self._rows) >= BATCH_ROWS or self._bytes >= BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is left."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._rows:
            return
        schema = None if self._writer is None else self._writer.schema
        table = pa.Table.from_pylist(self._rows, schema=schema)
        if self._writer is None:
            self._writer = self._stack.enter_context(pq.ParquetWriter(self._path, table.schema))
        self._writer.write_table(table)
        self._rows, self._bytes = [], 0


def write_splits(rows: Iterable[tuple[str, Row]], folder: Path) -> dict[str, int]:
    """Write rows to ``SPLIT.parquet`` in a folder.

    Returns:
        The number of rows by split.
    """
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        writers: dict[str, SplitWriter] = {}
        for split, row in rows:
            if split not in writers:
                name = re.sub(r"[^\w.-]", "_", split) or "rows"
                writers[split] = SplitWriter(folder / f"{name}.parquet", stack)
            writers[split].add(row)
            counts[split] += 1
        for writer in writers.values():
            writer.flush()
    return dict(counts)
