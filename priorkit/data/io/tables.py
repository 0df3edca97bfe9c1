"""Writing readable tables as parquet."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyarrow has no type stubs.

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_table(columns: Mapping[str, Any], path: Path, notes: Mapping[str, str] | None = None) -> None:
    """Write columns (lists or arrays of equal length) as a parquet file, in the order given.

    Args:
        columns: by name.
        path: the file.
        notes: texts for the file's metadata.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({name: pa.array(list(values)) for name, values in columns.items()})
    pq.write_table(table.replace_schema_metadata(dict(notes)) if notes else table, path)


def read_table(path: Path) -> dict[str, list[Any]]:
    """Read a parquet file's columns as lists."""
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pydict()
