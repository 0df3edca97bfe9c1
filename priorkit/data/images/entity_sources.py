"""Where entity images come from: a folder per entity, tables of file names, tables with images, the splits of a data set."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from priorkit.core.errors import InputError, nearest
from priorkit.core.input_files import InputFiles, is_clutter, list_files
from priorkit.data.columns import IMAGES, RowLayout, require_column
from priorkit.data.images.decoding import IMAGE_SUFFIXES, BrokenImageError, ImageRef
from priorkit.data.images.entity_names import EntityNames
from priorkit.data.io.formats import format_of, row_suffixes, suffix_of
from priorkit.data.io.parquet import class_label_names
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.row_format import json_type
from priorkit.data.io.rows import read_rows

METADATA_FILES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
"""Tables of ``file_name`` and name next to the images, as ``datasets`` names them."""

IMAGE_TABLES = (".parquet", ".arrow")
"""Tables that embed images, as ``datasets`` writes them."""

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""Names of splits in those of files and folders, as ``datasets`` finds them; an ImageFolder whose folders are all
called so holds no entities of these names."""


@dataclass(frozen=True, slots=True, repr=False)
class EntityLayout:
    """How entity images are read.

    Attributes:
        rows: the columns of tables.
        split: the split that is read where there are several; empty for none.
        names: their names, where folders and labels are ids.
        only: names of the entities that are read; empty for all.
    """

    rows: RowLayout = field(default_factory=RowLayout)
    split: str = ""
    names: EntityNames = field(default_factory=EntityNames)
    only: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        # Features are cached by it: sets have no order, and it stays what it was where all entities are read.
        chosen = f", only={sorted(self.only)!r}" if self.only else ""
        return f"EntityLayout(rows={self.rows!r}, split={self.split!r}, names={self.names!r}{chosen})"


COMMON = EntityLayout()


def entity_references(
    path: Path, rejects: Rejects, listed: list[str], layout: EntityLayout = COMMON
) -> Iterator[tuple[str, ImageRef]]:
    """Entity and image of each row, by the folder's or the label's name.

    Args:
        path: a folder with one sub-folder per entity; or one of :data:`METADATA_FILES` (``file_name`` and a
            name) in it or in its folders; or a table of images and names, or a folder of such parquet or Arrow
            files. Of a folder of splits one is read.
        rejects: takes rows without a name or an image.
        listed: takes all names that the source lists, with or without an image.
        layout: how they are read.

    Raises:
        InputError: there are several splits, or no such columns.
    """
    if path.is_file():
        if format_of(path) is None:
            raise InputError(f"unknown file type; expected {', '.join(row_suffixes())}", where=str(path))
        yield from _from_tables([path], rejects, listed, layout)
        return
    files = list_files(path)
    near = [name for name in files.names if name.count("/") <= 1]
    metadata = [name for name in near if PurePosixPath(name).name in METADATA_FILES]
    # A data set of the hub keeps its tables one folder down.
    tables = [name for name in near if suffix_of(Path(name), IMAGE_TABLES)]
    if metadata:
        yield from _from_metadata(
            path, _of_one_split(path, metadata, layout.split), rejects, listed, layout.rows
        )
    elif tables:
        chosen = [path / name for name in _of_one_split(path, tables, layout.split)]
        yield from _from_tables(chosen, rejects, listed, layout)
    else:
        yield from _from_folders(path, files, rejects, listed, layout.split)


def _of_one_split(path: Path, tables: Sequence[str], wanted: str) -> list[str]:
    """The tables of the split that is wanted, or all of them where they are of one.

    Raises:
        InputError: there are several splits and none is wanted, or not the one that is.
    """
    by_split: dict[str, list[str]] = {}
    for name in tables:
        by_split.setdefault(_split_of(name), []).append(name)
    splits = {split: names for split, names in by_split.items() if split}
    if not wanted and len(splits) > 1:
        raise _several_splits(path, sorted(splits))
    if not wanted:
        return list(tables)
    return by_split[_known_split(path, wanted, list(splits))]


def _known_split(path: Path, wanted: str, splits: Sequence[str]) -> str:
    """A split by the name that the user gives it.

    Raises:
        InputError: there is none of the name.
    """
    canonical = SPLITS.get(wanted.lower(), wanted)
    for split in splits:
        if wanted == split or canonical == SPLITS.get(split.lower(), split):
            return split
    raise InputError(f"no split '{wanted}'", where=str(path), hint=nearest(wanted, splits))


def _split_of(name: str) -> str:
    """The split that a file belongs to by its name or its folder's; empty where they name none."""
    words = re.split(r"[^a-z0-9]+", name.lower())
    return next((SPLITS[word] for word in words if word in SPLITS), "")


def _several_splits(path: Path, splits: Sequence[str]) -> InputError:
    folders = [str(path / name) for name in splits if (path / name).is_dir()]
    return InputError(
        f"there are several splits of a data set: {', '.join(splits)}",
        where=str(path),
        hint=f"read one of them with --split, such as --split {splits[0]}"
        + (f", or name its folder: {' or '.join(folders)}" if folders else ""),
    )


def _from_folders(
    path: Path, files: InputFiles, rejects: Rejects, listed: list[str], split: str
) -> Iterator[tuple[str, ImageRef]]:
    folders = sorted(item.name for item in path.iterdir() if item.is_dir() and _is_shown(item.name, files))
    if folders and SPLITS.keys() >= set(map(str.lower, folders)):
        if len(folders) > 1 and not split:
            raise _several_splits(path, folders)
        chosen = path / (_known_split(path, split, folders) if split else folders[0])
        yield from _from_folders(chosen, list_files(chosen), rejects, listed, "")
        return
    if split:
        raise InputError(
            f"no split '{split}'; the folders are entities", where=str(path), hint="leave --split out"
        )
    listed.extend(folders)
    dangling = set(files.dangling)
    for name in sorted(dangling - {name for name in dangling if is_image(name)}):
        rejects.add(str(path / name), 1, "the link leads nowhere")
    by_folder: dict[str, list[Path]] = {}
    for name in (*files.names, *files.dangling):
        if "/" in name and is_image(name):
            by_folder.setdefault(name.split("/")[0], []).append(path / name)
    for folder in folders:
        for file in sorted(by_folder.get(folder, [])):
            yield folder, ImageRef(file.relative_to(path).as_posix(), file)


def _is_shown(name: str, files: InputFiles) -> bool:
    return not is_clutter(name) and name not in files.artifacts


def is_image(name: str) -> bool:
    """Whether a file is an image by its suffix."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def _from_metadata(
    path: Path, tables: Sequence[str], rejects: Rejects, listed: list[str], layout: RowLayout
) -> Iterator[tuple[str, ImageRef]]:
    # A table of this name has file names in ``file_name``, whatever other columns it has.
    wanted = ("file_name", *layout.image) if layout.image == IMAGES else layout.image
    for table in tables:
        file = path / table
        for number, row in read_rows(file, rejects):
            column = next((name for name in layout.label if isinstance(row.get(name), str)), None)
            if column is None or not row[column].strip():
                reason = _no_name(row, layout.label) if column is None else f"'{column}' is blank"
                rejects.add(str(file), number, reason)
                continue
            listed.append(row[column])
            image = next((name for name in wanted if row.get(name) is not None), None)
            if image is None:
                rejects.add(str(file), number, f"no '{wanted[0]}'; got {', '.join(row)}")
                continue
            try:
                ref = layout.image_of(row[image], file, "")
            except BrokenImageError as error:
                rejects.add(str(file), number, str(error))
                continue
            lead = PurePosixPath(table).parent.as_posix()
            yield row[column], ImageRef(f"{lead}/{ref.name}".removeprefix("./"), ref.path, ref.content)


def _no_name(row: Mapping[str, Any], wanted: Sequence[str]) -> str:
    """Why a row names no entity."""
    for name in wanted:
        if row.get(name) is not None:
            return f"'{name}' is {json_type(row[name])}, not a name"
    return f"no name ({' or '.join(wanted)}; --label-column); got {', '.join(row)}"


def _from_tables(
    files: Sequence[Path], rejects: Rejects, listed: list[str], layout: EntityLayout
) -> Iterator[tuple[str, ImageRef]]:
    rows = layout.rows
    for file in files:
        image = require_column(file, "image", rows.image)
        label = require_column(file, "label", rows.label)
        labels = class_label_names(file, label)
        listed.extend(name for name in labels if name.strip())
        for number, row in read_rows(file, rejects, [image, label]):
            entity = _name_of(row.get(label), labels, numbered=bool(layout.names.by_id))
            if entity is None:
                rejects.add(str(file), number, f"'{label}' is not a name: {row.get(label)!r}")
                continue
            listed.append(entity)
            try:
                yield entity, rows.image_of(row.get(image), file, f"{file.name}:{number}")
            except BrokenImageError as error:
                rejects.add(str(file), number, str(error))


def _name_of(value: Any, labels: Sequence[str], *, numbered: bool) -> str | None:
    """The name in a cell: text, the number of a class, or a number that the user's file gives a name."""
    if isinstance(value, int) and not isinstance(value, bool):
        if 0 <= value < len(labels):
            return labels[value]
        return str(value) if numbered and not labels else None
    return value if isinstance(value, str) and value.strip() else None
