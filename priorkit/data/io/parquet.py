"""Parquet files."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyarrow has no type stubs.

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from priorkit.core.errors import InputError
from priorkit.core.json_text import parse_json
from priorkit.data.io.arrow import rows_of_batch, stored_schema
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.row_format import PART_BYTES, FilePart, NumberedRow, RowFormat

_BATCH_ROWS = 256


class Parquet(RowFormat):
    """A parquet file; only the columns that are needed are read, page by page."""

    suffixes = (".parquet",)
    has_schema = True

    def read(self, path: Path, rejects: Rejects, columns: list[str] | None) -> Iterator[NumberedRow]:
        return _rows(FilePart(path, 0, 1), rejects, columns)

    def column_names(self, path: Path) -> list[str]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return [str(name) for name in pq.read_schema(path).names]
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(path, error) from None

    def part_count(self, path: Path) -> int:
        groups = int(_open(path).metadata.num_row_groups)
        return max(1, min(-(-path.stat().st_size // PART_BYTES), groups))

    def read_part(
        self, part: FilePart, rejects: Rejects, columns: list[str] | None, count_line: Callable[[], None]
    ) -> Iterator[NumberedRow]:
        return _rows(part, rejects, columns)


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"not a readable parquet file: {error}", where=str(path))


def _open(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # With a buffer the reader takes a column page by page, instead of all of a row group.
        return pq.ParquetFile(path, buffer_size=1 << 20)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from None


def _rows(part: FilePart, rejects: Rejects, columns: list[str] | None) -> Iterator[NumberedRow]:
    """The rows of the part's row groups, numbered from the file's start."""
    import pyarrow as pa

    file = _open(part.path)
    try:
        names = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
        groups = int(file.metadata.num_row_groups)
        first, last = groups * part.index // part.count, groups * (part.index + 1) // part.count
        number = sum(int(file.metadata.row_group(group).num_rows) for group in range(first))
        chosen = list(range(first, last))
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=chosen, columns=names):
            yield from rows_of_batch(batch, number, part.path, rejects)
            number += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(part.path, error) from None
    finally:
        file.close()


def class_label_names(file: Path, column: str, field: str | None = None) -> list[str]:
    """Names of a ``ClassLabel`` column, from the schema that datasets writes into parquet and Arrow files.

    Args:
        file: a file; one of another format has none.
        column: the column.
        field: a field of the column's structures, such as ``category`` of ``objects``.

    Returns:
        The names by number; empty where the column has none.
    """
    schema = stored_schema(file)
    metadata = (schema and schema.metadata) or {}
    try:
        found: Any = parse_json(metadata[b"huggingface"])["info"]["features"][column]
        if field is not None:
            # A list of structures is written as {"feature": {...}} or, in older versions, [{...}].
            found = _unlisted(_unlisted(found)[field])
        return [str(name) for name in found["names"]]
    except (KeyError, TypeError, IndexError, json.JSONDecodeError):
        return []


def _unlisted(feature: Any) -> Any:
    """The feature that a list's elements have."""
    if isinstance(feature, list):
        return feature[0]
    return feature["feature"] if isinstance(feature.get("feature"), dict) else feature
