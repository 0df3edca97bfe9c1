"""Arrow files: the stream that ``datasets`` saves, and the file format, which is Feather's."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyarrow has no type stubs.

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from priorkit.core.errors import InputError
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.row_format import NumberedRow, RowFormat

_BATCH_ROWS = 256


class ArrowTable(RowFormat):
    """An Arrow table, mapped into memory and read batch by batch."""

    suffixes = (".arrow", ".feather")
    has_schema = True

    def read(self, path: Path, rejects: Rejects, columns: list[str] | None) -> Iterator[NumberedRow]:
        number = 0
        with _opened(path) as (schema, batches):
            names = [name for name in schema.names if columns is None or name in columns]
            for batch in batches:
                chosen = batch.select(names)
                for start in range(0, batch.num_rows, _BATCH_ROWS):
                    yield from rows_of_batch(chosen.slice(start, _BATCH_ROWS), number + start, path, rejects)
                number += batch.num_rows

    def column_names(self, path: Path) -> list[str]:
        return [str(name) for name in stored_schema(path).names]


def rows_of_batch(batch: Any, before: int, path: Path, rejects: Rejects) -> Iterator[NumberedRow]:
    """The rows of a batch; those with texts that are not UTF-8, which Arrow does not check, are rejected.

    Args:
        batch: of pyarrow.
        before: number of rows of the file before it.
        path: the file.
        rejects: takes the rows.
    """
    try:
        rows = cast("list[dict[str, Any]]", batch.to_pylist())
    except UnicodeDecodeError:
        for index in range(batch.num_rows):
            try:
                (row,) = batch.slice(index, 1).to_pylist()
            except UnicodeDecodeError as error:
                rejects.add(
                    str(path), before + index + 1, f"not UTF-8 text: {error.reason} at byte {error.start}"
                )
            else:
                yield before + index + 1, row
        return
    yield from enumerate(rows, start=before + 1)


def stored_schema(path: Path) -> Any:
    """The Arrow schema that a parquet or Arrow file carries, with what ``datasets`` notes in it; None of other files.

    Raises:
        InputError: an Arrow file is damaged.
    """
    if path.name.lower().endswith(".parquet"):
        import pyarrow.parquet as pq

        return pq.read_schema(path)
    if not path.name.lower().endswith(ArrowTable.suffixes):
        return None
    with _opened(path) as (schema, _):
        return schema


@contextmanager
def _opened(path: Path) -> Generator[tuple[Any, Iterator[Any]]]:
    """The schema and the batches of either format."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            if source.read(6) == b"ARROW1":
                file = pa.ipc.open_file(source)
                yield file.schema, (file.get_batch(place) for place in range(file.num_record_batches))
            else:
                source.seek(0)
                stream = pa.ipc.open_stream(source)
                yield stream.schema, iter(stream)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"not a readable Arrow file: {error}", where=str(path)) from None
