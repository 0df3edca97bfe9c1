"""Adding a column, such as tags, to tables of images: parquet, JSON Lines, or a folder of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from priorkit.core.errors import InputError, rename_hint
from priorkit.core.input_files import list_files, paths_below
from priorkit.data.images.decoding import (
    IMAGE_SUFFIXES,
    BrokenImageError,
    ImageRef,
    image_reference,
    is_no_image,
)
from priorkit.data.io.formats import format_of, suffix_of
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.row_schema import NULL, Shape, arrow_type, fitted_row, joined, shape_of
from priorkit.data.io.rows import column_names, files_of, read_rows

BATCH = 256
"""Rows in memory at a time."""

Row = tuple[int, dict[str, Any]]
"""A row with its number in its file, from 1."""

Tag = Callable[[Sequence[Row], Path], list[list[str] | BrokenImageError | None]]
"""Maps rows and their file to their tags; None without an image, the error where it cannot be used."""


def find_tables(path: Path) -> list[Path]:
    """The tables of a source with a column ``image``, or the folder of images itself.

    Raises:
        InputError: there are neither images nor tables with images.
    """
    if path.is_dir():
        names = list_files(path).names
        if not any(format_of(Path(name)) for name in names):
            if not any(name.lower().endswith(IMAGE_SUFFIXES) for name in names):
                raise InputError("no images and no tables here", where=str(path))
            return [path]
    files = files_of(path)
    for file in files:
        if not has_column(file, "image"):
            columns = column_names(file)
            raise InputError(
                f"no column 'image'; got {', '.join(columns)}",
                where=str(file),
                hint=rename_hint("image", columns, only_close=True),
            )
    return files


def has_column(file: Path, name: str) -> bool:
    """Whether a table has a column; of JSON, whether any row has the key, read up to the first that has."""
    if file.is_dir():
        return name == "image"
    if suffix_of(file, (".parquet",)):
        return name in column_names(file)
    return any(name in row for _, row in read_rows(file, Rejects(1.0)))


def image_cells(row: dict[str, Any]) -> list[Any]:
    """The cells of a row that hold an image."""
    value = row.get("image")
    return [cell for cell in (value if isinstance(value, list) else [value]) if not is_no_image(cell)]


def row_image(row: dict[str, Any], file: Path, number: int) -> ImageRef | None:
    """The first image of a row; None where it has none.

    Raises:
        BrokenImageError: it cannot be found.
    """
    value = row.get("image")
    if isinstance(value, list):
        value = value[0] if value else None
    return None if is_no_image(value) else image_reference(value, _folder(file), f"{file.name}:{number}")


def _folder(file: Path) -> Path:
    return file if file.is_dir() else file.parent


def rows_of(file: Path, rejects: Rejects) -> Iterator[list[Row]]:
    """Rows in batches; each image of a folder is a row."""
    batch: list[Row] = []
    for row in _rows(file, rejects):
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _rows(file: Path, rejects: Rejects) -> Iterator[Row]:
    if file.is_dir():
        images = [path for path in paths_below(file) if path.name.lower().endswith(IMAGE_SUFFIXES)]
        for number, image in enumerate(images, start=1):
            yield number, {"image": image.relative_to(file).as_posix()}
        return
    yield from read_rows(file, rejects)


def write_tagged(file: Path, target: Path, column: str, tag: Tag, rejects: Rejects) -> int:
    """Write a table's rows with their tags as parquet; images are embedded, so the file needs no others.

    Args:
        file: from :func:`find_tables`.
        target: the parquet file.
        column: of the tags; a column of that name is replaced.
        tag: gives the tags of rows.
        rejects: takes rows that do not parse or whose images cannot be used; they are left out.

    Returns:
        How many rows were written.
    """
    return write_rows(file, column, True, tag, lambda _: target, rejects)


def write_rows(
    file: Path,
    column: str,
    several: bool,
    fill: Callable[[Sequence[Row], Path], Sequence[Any]],
    target: Callable[[Any], Path],
    rejects: Rejects,
) -> int:
    """Write a table's rows with one more column as parquet, images embedded.

    Args:
        file: a table or a folder of images.
        column: the column's name; one that is there is replaced.
        several: whether it holds lists of texts instead of texts.
        fill: gives rows their values; a :class:`BrokenImageError` for a row to leave out.
        target: the parquet file of the rows with a value.
        rejects: takes rows that are left out.

    Returns:
        How many rows were written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, shapes = _columns(file, column, several)
    listed = "image" in schema.names and not pa.types.is_struct(schema.field("image").type)
    done = 0
    with ExitStack() as stack:
        writers: dict[Path, pq.ParquetWriter] = {}
        for batch in rows_of(file, rejects):
            rows = _embed_all(batch, file, rejects)
            full: dict[Path, list[dict[str, Any]]] = {}
            for (number, row), value in zip(rows, fill(rows, file), strict=True):
                if isinstance(value, BrokenImageError):
                    rejects.add(str(file), number, str(value))
                    continue
                try:
                    plain = row if shapes is None else {**row, **fitted_row(row, shapes)}
                except ValueError as error:
                    rejects.add(str(file), number, str(error))
                    continue
                image = plain.get("image")
                if image:
                    rejects.accept()
                cell = [image] if listed and isinstance(image, dict) else image
                full.setdefault(target(value), []).append({**plain, "image": cell, column: value})
            for path, rows_of_file in full.items():
                if path not in writers:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    writers[path] = stack.enter_context(pq.ParquetWriter(path, schema, compression="zstd"))
                writers[path].write_table(pa.Table.from_pylist(rows_of_file, schema=schema))
                done += len(rows_of_file)
    return done


def _embed_all(rows: Sequence[Row], file: Path, rejects: Rejects) -> list[Row]:
    """The rows with their images' bytes instead of paths; those whose images are missing are left out."""
    rows_embedded: list[Row] = []
    for number, row in rows:
        try:
            rows_embedded.append((number, _embedded(row, file)))
        except (BrokenImageError, OSError) as error:
            rejects.add(str(file), number, str(error))
    return rows_embedded


def _embedded(row: dict[str, Any], file: Path) -> dict[str, Any]:
    value = row.get("image")

    def cell(value: Any) -> dict[str, Any] | None:
        if is_no_image(value):
            return None
        image = image_reference(value, _folder(file), "")
        content = image.read()
        if content is None:
            content = (image.path or Path()).read_bytes()
        return {"bytes": content, "path": image.name or None}

    return {**row, "image": [cell(image) for image in value] if isinstance(value, list) else cell(value)}


def _holds_bytes(kind: Any) -> bool:
    """Whether a type can hold an image's bytes and name; a column of only paths has bytes of type null."""
    import pyarrow as pa

    if not pa.types.is_struct(kind):
        return False
    types = {field.name: field.type for field in kind}
    return types.get("bytes") in (pa.binary(), pa.large_binary()) and types.get("path") in (
        pa.string(),
        pa.large_string(),
    )


def _columns(file: Path, column: str, several: bool) -> tuple[Any, dict[str, Shape] | None]:
    """The schema of a table with one more column, of texts or lists of them.

    Returns:
        That of a parquet file, images as bytes, described for ``datasets`` too, and None; or that of all rows
        of another table, and the shapes of its columns but images and the new one.
    """
    import pyarrow as pa
    from datasets import Features, Image, List, Value

    if not file.is_dir() and suffix_of(file, (".parquet",)):
        import pyarrow.parquet as pq

        written = pq.read_schema(file)
        features = Features.from_arrow_schema(written)
        if "image" in written.names:
            held = written.field("image").type
            inner = held.value_type if pa.types.is_list(held) or pa.types.is_large_list(held) else held
            if not _holds_bytes(inner):
                features["image"] = Image() if inner is held else List(Image())
        features[column] = List(Value("string")) if several else Value("string")
        return features.arrow_schema, None
    shapes: dict[str, Shape] = {}
    listed = False
    for _, row in _rows(file, Rejects(1.0)):
        listed = listed or isinstance(row.get("image"), list)
        for name, value in row.items():
            # The contents of image cells and of a column that is replaced do not matter.
            value_shape = NULL if name in ("image", column) else shape_of(value)
            shapes[name] = joined(shapes.get(name, NULL), value_shape)
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    made = pa.list_(pa.string()) if several else pa.string()
    columns = {"image": pa.list_(image) if listed else image, column: made}
    names = dict.fromkeys([*shapes, "image", column])
    schema = pa.schema([(name, columns.get(name) or arrow_type(shapes[name])) for name in names])
    return schema, {name: shape for name, shape in shapes.items() if name not in columns}
