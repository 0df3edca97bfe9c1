"""Entity images: which image shows which entity. ImageFolder, ``metadata.jsonl``, ``metadata.csv`` or parquet."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from priorkit.core.errors import InputError, Problems, rename_hint
from priorkit.core.input_files import InputFiles, is_clutter, list_files
from priorkit.data.images.decoding import IMAGE_SUFFIXES, BrokenImageError, ImageRef, image_reference
from priorkit.data.images.image_check import IN_MEMORY_CHECK, USABLE, ImageCheck
from priorkit.data.io.csv_rows import read_csv
from priorkit.data.io.formats import format_of, row_suffixes, suffix_of
from priorkit.data.io.parquet import class_label_names
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.row_format import json_type
from priorkit.data.io.rows import column_names, files_of, read_rows

logger = logging.getLogger(__name__)

NAME_COLUMNS = ("entity", "label", "name", "text")
"""Columns that may hold an entity's name, the first that is there."""


@dataclass(frozen=True)
class EntityImages:
    """Images with the entity that each shows.

    Attributes:
        entities: names, sorted; each has at least one image.
        images: where the images are, sorted by entity and name.
        entity_of: for each image, the index of its entity.
        without: names, sorted, of entities without a usable image.
    """

    entities: tuple[str, ...]
    images: tuple[ImageRef, ...]
    entity_of: tuple[int, ...]
    without: tuple[str, ...] = ()

    @property
    def named(self) -> tuple[str, ...]:
        """All names, those without an image last."""
        return (*self.entities, *self.without)

    @property
    def shown(self) -> list[str]:
        """The name of each image's entity."""
        return [self.entities[index] for index in self.entity_of]

    def keep(self, rows: Sequence[int]) -> EntityImages:
        """Only the images of these rows; entities that lose all of theirs go to ``without``."""
        return _gathered([(self.entities[self.entity_of[row]], self.images[row]) for row in rows],
                         (*self.without, *self.entities))  # fmt: skip


def read_entities(
    path: Path, rejects: Rejects, verify: bool = True, check: ImageCheck = IN_MEMORY_CHECK
) -> EntityImages:
    """Read entity images from an ImageFolder, a folder with ``metadata.jsonl``, or parquet.

    Args:
        path: a folder with one sub-folder per entity; or one of :data:`METADATA_FILES` (``file_name`` and one
            of :data:`NAME_COLUMNS`) in it or in its folders; or a parquet file or folder of them (``image`` and
            a name). A folder of splits is read only where there is one split.
        rejects: takes rows without a name or an image, and images that do not decode.
        verify: decode every image once now, so that broken ones are known before any work; without it
            the caller counts good and broken images and judges.
        check: how the images are checked.

    Raises:
        InputError: there are no images, or two entities have the same name in different spellings.
    """
    listed: list[str] = []
    spool = check.open_spool()
    references = [(entity, ref.spooled(spool)) for entity, ref in entity_references(path, rejects, listed)]
    if spool is not None:
        spool.flush()
    statuses = check.statuses([ref for _, ref in references]) if verify else {}
    usable: list[tuple[str, ImageRef]] = []
    for index, (entity, ref) in enumerate(references):
        status = statuses.get(index, USABLE)
        if status.fault:
            rejects.add(str(path), index + 1, f"{ref.name}: {status.fault}")
            continue
        if verify:
            rejects.accept()
            rejects.unusual.update(status.kinds)
        usable.append((entity, ref))
    if verify:
        rejects.raise_if_over_limit()
    if not usable and rejects.rows:
        first = rejects.rows[0]
        raise InputError(
            f"none of the {len(rejects)} entity images can be used; "
            f"the first: {first['file']}:{first['row']}: {first['reason']}",
            where=str(path),
        )
    if not usable:
        raise InputError(
            "no entity images here",
            where=str(path),
            hint=f"expected a folder per entity with images ({', '.join(IMAGE_SUFFIXES[:4])} ...), "
            "metadata.jsonl or .csv with file_name and entity, or parquet with image and entity",
        )
    check_names(sorted(set(listed)), str(path))
    return _gathered(usable, listed)


def _gathered(images: Sequence[tuple[str, ImageRef]], listed: Sequence[str]) -> EntityImages:
    """Images sorted by entity and name; listed entities without any go to ``without``."""
    names = tuple(sorted({entity for entity, _ in images}))
    index = {name: number for number, name in enumerate(names)}
    ordered = sorted(images, key=lambda item: (item[0], item[1].name))
    return EntityImages(
        names,
        tuple(ref for _, ref in ordered),
        tuple(index[entity] for entity, _ in ordered),
        tuple(sorted(set(listed) - set(names))),
    )


def with_known_spelling(entities: EntityImages, known: Sequence[str]) -> EntityImages:
    """The same images under known names, where theirs differ only in case or Unicode form."""
    spelling = {folded_name(name): name for name in known}
    names = [spelling.get(folded_name(name), name) for name in entities.entities]
    if tuple(names) == entities.entities:
        return entities
    shown = [names[index] for index in entities.entity_of]
    without = [spelling.get(folded_name(name), name) for name in entities.without]
    return _gathered(list(zip(shown, entities.images, strict=True)), (*names, *without))


def check_names(names: Sequence[str], where: str) -> None:
    """Refuse names that differ only in case or Unicode form: their ranks would be meaningless.

    Raises:
        InputError: naming each pair.
    """
    problems = Problems(InputError)
    seen: dict[str, str] = {}
    for name in names:
        folded = folded_name(name)
        if folded in seen:
            problems.add(
                f"'{seen[folded]}' and '{name}' differ only in case or Unicode form",
                where=where,
                hint="rename or merge them",
            )
        seen[folded] = name
    problems.raise_if_any()


def folded_name(name: str) -> str:
    """A name's form for comparison: Unicode compatibility form, case-folded, single blanks."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def name_suffixes() -> tuple[str, ...]:
    """Suffixes of the files that names are read from."""
    return (".txt", *row_suffixes())


def check_names_file(path: Path, where: str) -> None:
    """Check that a path is a file of a type that names are read from.

    Raises:
        InputError: it is not.
    """
    if not path.is_file() or suffix_of(path, name_suffixes()) is None:
        raise InputError(f"expected a file of names ({', '.join(name_suffixes())})", where=where)


def read_names(path: Path) -> list[str]:
    """Names from a text file, one per line, or from a table with one of :data:`NAME_COLUMNS`.

    Blank lines are skipped; a table's rows without a name are an error.

    Raises:
        InputError: the file is empty, not UTF-8, or has no column of names.
    """
    names = _names_of_table(path) if format_of(path) else _names_of_lines(path)
    if not names:
        raise InputError("the file holds no names", where=str(path))
    return names


def _names_of_lines(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig") as stream:
            return [line.strip() for line in stream if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text: {error.reason} at byte {error.start}", where=str(path)) from None


def _names_of_table(path: Path) -> list[str]:
    columns = column_names(path)
    column = next((name for name in NAME_COLUMNS if name in columns), None)
    if column is None:
        raise InputError(
            f"columns {', '.join(columns)}; expected one of {', '.join(NAME_COLUMNS)}", where=str(path)
        )
    rejects, names = Rejects(0), list[str]()
    for number, row in read_rows(path, rejects, [column]):
        value = row.get(column)
        if isinstance(value, str) and value.strip():
            names.append(value.strip())
        else:
            rejects.add(str(path), number, f"'{column}' is not a name: {value!r}")
    rejects.accept(len(names))
    rejects.raise_if_over_limit()
    return names


def candidate_names(entities: Sequence[str], extra: Sequence[str]) -> tuple[str, ...]:
    """The names to rank among: the entities, then further names that are none of them, without repeats."""
    known = {folded_name(name) for name in entities}
    further = [name for name in dict.fromkeys(extra) if folded_name(name) not in known]
    unique = {folded_name(name): name for name in reversed(further)}
    return (*entities, *reversed(unique.values()))


def warn_without_images(entities: EntityImages, effect: str) -> int:
    """Warn of entities without an image that can be used; returns how many there are.

    Args:
        entities: what was read.
        effect: what follows for them, such as "they have no rank".
    """
    count = len(entities.without)
    if count:
        logger.warning(f"entities without a usable image: {count}, such as '{entities.without[0]}'; {effect}")
    return count


def entity_references(path: Path, rejects: Rejects, listed: list[str]) -> Iterator[tuple[str, ImageRef]]:
    """Entity and image of each row; ``listed`` takes all names that a source lists, with or without an image."""
    if path.is_file():
        yield from _from_parquet([path], rejects, listed)
        return
    files = list_files(path)
    tables = [name for name in files.names if Path(name).name in METADATA_FILES and name.count("/") <= 1]
    if tables:
        yield from _from_metadata(path, _one_split(path, tables, files), rejects, listed)
    elif any(name.lower().endswith(".parquet") and name.count("/") <= 1 for name in files.names):
        # A data set of the hub keeps its parquet files one folder down.
        yield from _from_parquet(files_of(path, (".parquet",)), rejects, listed)
    else:
        yield from _from_folders(path, files, rejects, listed)


METADATA_FILES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
"""Tables of ``file_name`` and name next to the images, as ``datasets`` names them."""

SPLITS = frozenset(
    {"train", "training", "val", "valid", "validation", "dev", "eval", "evaluation", "test", "testing"}
)
"""Names that folders of splits have; an ImageFolder whose folders are all called so holds no entities of these names."""


def _one_split(path: Path, tables: list[str], files: InputFiles) -> list[str]:
    """The tables of a folder, or of the only split in it.

    Raises:
        InputError: there are several splits.
    """
    splits = sorted({name.split("/")[0] for name in tables if "/" in name})
    if len(splits) > 1 and SPLITS.issuperset(map(str.lower, splits)):
        raise _several_splits(path, splits)
    return tables


def _several_splits(path: Path, splits: Sequence[str]) -> InputError:
    return InputError(
        f"the folders {', '.join(splits)} are splits of a data set, not entities",
        where=str(path),
        hint="name one of them: " + " or ".join(str(path / name) for name in splits),
    )


def _from_folders(
    path: Path, files: InputFiles, rejects: Rejects, listed: list[str]
) -> Iterator[tuple[str, ImageRef]]:
    folders = sorted(item.name for item in path.iterdir() if item.is_dir() and _is_shown(item.name, files))
    if folders and SPLITS.issuperset(map(str.lower, folders)):
        if len(folders) > 1:
            raise _several_splits(path, folders)
        yield from _from_folders(path / folders[0], list_files(path / folders[0]), rejects, listed)
        return
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
    path: Path, tables: Sequence[str], rejects: Rejects, listed: list[str]
) -> Iterator[tuple[str, ImageRef]]:
    for table in tables:
        file = path / table
        if file.name.endswith(".csv"):
            rows = read_csv(file)
        else:
            rows = read_rows(file, rejects)
        for number, row in rows:
            column = next((name for name in NAME_COLUMNS if isinstance(row.get(name), str)), None)
            if column is None or not row[column].strip():
                rejects.add(str(file), number, _no_name(row) if column is None else f"'{column}' is blank")
                continue
            listed.append(row[column])
            if "file_name" not in row:
                rejects.add(str(file), number, f"no 'file_name'; got {', '.join(row)}")
                continue
            try:
                ref = image_reference(row["file_name"], file.parent, "")
            except BrokenImageError as error:
                rejects.add(str(file), number, str(error))
                continue
            yield (
                row[column],
                ImageRef(f"{Path(table).parent.as_posix()}/{ref.name}".removeprefix("./"), ref.path),
            )


def _no_name(row: Mapping[str, Any]) -> str:
    """Why a row names no entity."""
    for name in NAME_COLUMNS:
        if row.get(name) is not None:
            return f"'{name}' is {json_type(row[name])}, not a name"
    return f"no name ({' or '.join(NAME_COLUMNS)}); got {', '.join(row)}"


def _from_parquet(
    files: Sequence[Path], rejects: Rejects, listed: list[str]
) -> Iterator[tuple[str, ImageRef]]:
    for file in files:
        columns = column_names(file)
        column = next((name for name in NAME_COLUMNS if name in columns), None)
        if column is None or "image" not in columns:
            raise InputError(
                f"columns {', '.join(columns)}; expected image and one of {', '.join(NAME_COLUMNS)}",
                where=str(file),
                hint=_renaming(columns, column is None),
            )
        labels = class_label_names(file, column)
        listed.extend(label for label in labels if label.strip())
        for number, row in read_rows(file, rejects, ["image", column]):
            value = row.get(column)
            entity = labels[value] if isinstance(value, int) and 0 <= value < len(labels) else value
            if not isinstance(entity, str) or not entity.strip():
                rejects.add(str(file), number, f"'{column}' is not a name: {value!r}")
                continue
            listed.append(entity)
            try:
                yield entity, image_reference(row.get("image"), file.parent, f"{file.name}:{number}")
            except BrokenImageError as error:
                rejects.add(str(file), number, str(error))


def _renaming(columns: Sequence[str], no_name: bool) -> str:
    """Which columns to rename, where others may be meant."""
    renamed = [] if "image" in columns else [rename_hint("image", columns, only_close=True)]
    if no_name:
        meant = next((name for name in columns if any(known in name for known in NAME_COLUMNS)), "")
        renamed.append(f"rename '{meant}' to 'label'" if meant else "")
    return ", ".join(filter(None, renamed))
