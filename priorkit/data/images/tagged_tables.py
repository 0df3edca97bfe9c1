"""Adding a column, such as tags, to tables of images: parquet, JSON Lines, or a folder of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from priorkit.core.errors import InputError
from priorkit.core.input_files import list_files, paths_below
from priorkit.data.columns import RowLayout, find_column, require_column
from priorkit.data.images.decoding import IMAGE_SUFFIXES, BrokenImageError, ImageRef, is_no_image
from priorkit.data.io.arrow import stored_schema
from priorkit.data.io.formats import format_of
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.row_schema import NULL, Shape, arrow_type, fitted_row, joined, shape_of
from priorkit.data.io.rows import files_of, has_column, read_rows

BATCH = 256
"""Rows in memory at a time."""

Row = tuple[int, dict[str, Any]]
"""A row with its number in its file, from 1; its image is under ``image``, whatever the file calls it."""

COMMON = RowLayout()

Tag = Callable[[Sequence[Row], Path], list[list[str] | BrokenImageError | None]]
"""Maps rows and their file to their tags; None without an image, the error where it cannot be used."""


def find_tables(path: Path, layout: RowLayout = COMMON) -> list[Path]:
    """The tables of a source with a column of images, or the folder of images itself.

    A CSV or TSV in a folder of images is no table where it has no such column.

    Raises:
        InputError: there are neither images nor tables with images.
    """
    if path.is_dir():
        names = list_files(path).names
        shows = any(name.lower().endswith(IMAGE_SUFFIXES) for name in names)
        formats = {name: found for name in names if (found := format_of(Path(name)))}
        lists = [name for name, found in formats.items() if found.secondary]
        if shows and len(lists) == len(formats) and not any(_has(path / name, layout) for name in lists):
            return [path]
        if not formats:
            raise InputError("no images and no tables here", where=str(path))
    files = files_of(path)
    for file in files:
        require_column(file, "image", layout.image)
    return files


def _has(file: Path, layout: RowLayout) -> bool:
    try:
        return find_column(file, layout.image)[0] is not None
    except InputError:
        return False


def lacks_column(file: Path, name: str) -> bool:
    """Whether no row of a table, or of a folder of images, has a column."""
    return file.is_dir() or not has_column(file, name)


def image_cells(row: dict[str, Any]) -> list[Any]:
    """The cells of a row that hold an image."""
    value = row.get("image")
    return [cell for cell in (value if isinstance(value, list) else [value]) if not is_no_image(cell)]


def row_image(row: dict[str, Any], file: Path, number: int, layout: RowLayout = COMMON) -> ImageRef | None:
    """The first image of a row; None where it has none.

    Raises:
        BrokenImageError: it cannot be found.
    """
    value = row.get("image")
    if isinstance(value, list):
        value = value[0] if value else None
    return None if is_no_image(value) else layout.image_of(value, file, f"{file.name}:{number}")


def rows_of(file: Path, rejects: Rejects, layout: RowLayout = COMMON) -> Iterator[list[Row]]:
    """Rows in batches; each image of a folder is a row."""
    batch: list[Row] = []
    for row in _rows(file, rejects, layout):
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _rows(file: Path, rejects: Rejects, layout: RowLayout) -> Iterator[Row]:
    if file.is_dir():
        images = [path for path in paths_below(file) if path.name.lower().endswith(IMAGE_SUFFIXES)]
        for number, image in enumerate(images, start=1):
            yield number, {"image": image.relative_to(file).as_posix()}
        return
    column = find_column(file, layout.image)[0]
    for number, row in read_rows(file, rejects):
        yield number, _renamed(row, column)


def _renamed(row: dict[str, Any], column: str | None) -> dict[str, Any]:
    """A row with its image under ``image``."""
    if column in ("image", None):
        return row
    return {"image" if name == column else name: value for name, value in row.items() if name != "image"}


def write_tagged(
    file: Path, target: Path, column: str, tag: Tag, rejects: Rejects, layout: RowLayout = COMMON
) -> int:
    """Write a table's rows with their tags as parquet; images are embedded, so the file needs no others.

    Args:
        file: from :func:`find_tables`.
        target: the parquet file.
        column: of the tags; a column of that name is replaced.
        tag: gives the tags of rows.
        rejects: takes rows that do not parse or whose images cannot be used; they are left out.
        layout: the column of images, which is written as ``image``, and where they are.

    Returns:
        How many rows were written.
    """
    return write_rows(file, column, True, tag, lambda _: target, rejects, layout)


def write_rows(
    file: Path,
    column: str,
    several: bool,
    fill: Callable[[Sequence[Row], Path], Sequence[Any]],
    target: Callable[[Any], Path],
    rejects: Rejects,
    layout: RowLayout = COMMON,
) -> int:
    """Write a table's rows with one more column as parquet, images embedded.

    Args:
        file: a table or a folder of images.
        column: the column's name; one that is there is replaced.
        several: whether it holds lists of texts instead of texts.
        fill: gives rows their values; a :class:`BrokenImageError` for a row to leave out.
        target: the parquet file of the rows with a value.
        rejects: takes rows that are left out.
        layout: the column of images, which is written as ``image``, and where they are.

    Returns:
        How many rows were written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, shapes = _columns(file, column, several, layout)
    listed = "image" in schema.names and not pa.types.is_struct(schema.field("image").type)
    done = 0
    with ExitStack() as stack:
        writers: dict[Path, pq.ParquetWriter] = {}
        for batch in rows_of(file, rejects, layout):
            rows = _embed_all(batch, file, rejects, layout)
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


def _embed_all(rows: Sequence[Row], file: Path, rejects: Rejects, layout: RowLayout) -> list[Row]:
    """The rows with their images' bytes instead of paths; those whose images are missing are left out."""
    rows_embedded: list[Row] = []
    for number, row in rows:
        try:
            rows_embedded.append((number, _embedded(row, file, layout)))
        except (BrokenImageError, OSError) as error:
            rejects.add(str(file), number, str(error))
    return rows_embedded


def _embedded(row: dict[str, Any], file: Path, layout: RowLayout) -> dict[str, Any]:
    value = row.get("image")

    def cell(value: Any) -> dict[str, Any] | None:
        if is_no_image(value):
            return None
        image = layout.image_of(value, file, "")
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


def _columns(
    file: Path, column: str, several: bool, layout: RowLayout
) -> tuple[Any, dict[str, Shape] | None]:
    """The schema of a table with one more column, of texts or lists of them.

    Returns:
        That of a parquet or Arrow file, images as bytes, described for ``datasets`` too, and None; or that of all rows
        of another table, and the shapes of its columns but images and the new one.
    """
    import pyarrow as pa
    from datasets import Features, Image, List, Value

    if not file.is_dir() and (written := stored_schema(file)) is not None:
        source = find_column(file, layout.image)[0]
        features = Features(_renamed(dict(Features.from_arrow_schema(written)), source))
        if source is not None:
            held = written.field(source).type
            inner = held.value_type if pa.types.is_list(held) or pa.types.is_large_list(held) else held
            if not _holds_bytes(inner):
                features["image"] = Image() if inner is held else List(Image())
        features[column] = List(Value("string")) if several else Value("string")
        return features.arrow_schema, None
    shapes: dict[str, Shape] = {}
    listed = False
    for _, row in _rows(file, Rejects(1.0), layout):
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
