"""Which columns of a source's rows hold what, and where the images are that rows name: options that steps share.

An option takes several names: of each file the first that it has is read. The defaults are the names that data
sets commonly use.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from priorkit.core.errors import InputError, Problems, nearest
from priorkit.core.options.settings import Settings, option
from priorkit.core.options.values import Words
from priorkit.data.images.decoding import ImageRef, image_reference
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.rows import column_names, has_schema, read_rows

IMAGES = ("image", "img", "file_name", "image_path", "filepath", "jpg", "png")
"""Columns of images: of ``datasets``, CIFAR, ImageFolder, open_clip's tables, and shards made into tables."""

CAPTIONS = ("text", "caption", "txt", "title")
"""Columns of captions, the last as open_clip calls it."""

NAMES = ("entity", "label", "name", "text", "fine_label", "class_name", "class", "category")
"""Columns of an entity's name."""

TEXTS = ("text", "content")
"""Columns of a document."""

QUESTIONS = ("question", "query", "prompt")
ANSWERS = ("answer", "response")

_SEARCHED_ROWS = 1000
"""Of JSON, whose rows need not have the same keys, so many are searched for a better name than one that is there."""


class ImageColumnSettings(Settings):
    """Which column holds a row's images."""

    group: ClassVar[str] = "columns"

    image_column: Words = option(
        IMAGES, "Column of the image; the first of several that a file has.", metavar="COLUMN", advanced=True
    )


class TextColumnSettings(Settings):
    """Which column holds a row's text."""

    group: ClassVar[str] = "columns"

    text_column: Words = option(
        TEXTS,
        "Column or key of the text or caption; the first of several that a file has.",
        metavar="COLUMN",
    )


class LabelColumnSettings(Settings):
    """Which column names a row's entity."""

    group: ClassVar[str] = "columns"

    label_column: Words = option(
        NAMES,
        "Column of the entity's name or class; the first of several that a file has.",
        metavar="COLUMN",
        advanced=True,
    )


class QuestionColumnSettings(Settings):
    """Which columns hold a question and its answer."""

    group: ClassVar[str] = "columns"

    question_column: Words = option(
        QUESTIONS,
        "Column of the question; the first of several that a file has.",
        metavar="COLUMN",
        advanced=True,
    )
    answer_column: Words = option(
        ANSWERS,
        "Column of the answer; the first of several that a file has.",
        metavar="COLUMN",
        advanced=True,
    )


IMAGE_FOLDER_HELP = "Folder of the image files that rows name; next to the rows where not given"


class ImageFolderSettings(Settings):
    """Where the images are that rows name."""

    group: ClassVar[str] = "columns"

    images: tuple[str, ...] = option(
        (), IMAGE_FOLDER_HELP + "; NAME=DIR for one source, repeated.", metavar="[NAME=]DIR"
    )


@dataclass(frozen=True, slots=True)
class RowLayout:
    """How the rows of a source are read.

    Attributes:
        image: names that the column of the image may have, and so on.
        image_folder: where the image files are that rows name; next to the rows' file where None.
    """

    image: tuple[str, ...] = IMAGES
    text: tuple[str, ...] = CAPTIONS
    label: tuple[str, ...] = NAMES
    question: tuple[str, ...] = QUESTIONS
    answer: tuple[str, ...] = ANSWERS
    choices: tuple[str, ...] = ("choices",)
    image_folder: Path | None = None

    def folder_of(self, file: Path) -> Path:
        """Where the images are that a table's rows name; a folder of images is its own."""
        return self.image_folder or (file if file.is_dir() else file.parent)

    def image_of(self, cell: Any, file: Path, name: str) -> ImageRef:
        """The image of a cell.

        Raises:
            BrokenImageError: there is none, or its path leaves the folder.
        """
        return image_reference(cell, self.folder_of(file), name)


COLUMN_KINDS = tuple(field.name for field in fields(RowLayout) if field.name != "image_folder")
"""What there are options for: ``--image-column`` and so on."""


def layout_of(settings: Settings, source: str = "") -> RowLayout:
    """How a source of a step is read.

    Args:
        settings: the step's, with any of the groups of this module.
        source: the source's name, which may have a folder of images of its own.

    Raises:
        InputError: a folder of images is missing.
    """
    given: dict[str, Any] = {
        kind: getattr(settings, f"{kind}_column")
        for kind in COLUMN_KINDS
        if hasattr(settings, f"{kind}_column")
    }
    if isinstance(settings, ImageFolderSettings):
        folders = image_folders(settings.images)
        given["image_folder"] = folders.get(source, folders.get(""))
    return RowLayout(**given)


def image_folders(given: Sequence[str]) -> dict[str, Path]:
    """Read folders of images, each ``DIR`` for all sources or ``NAME=DIR`` for one; ``DIR`` is under ``""``.

    Raises:
        InputError: no such folder, or two of them for the same.
    """
    problems = Problems(InputError)
    found: dict[str, Path] = {}
    for word in given:
        name, sign, folder = word.partition("=")
        if not sign or Path(word).expanduser().is_dir():
            name, folder = "", word
        path = Path(folder).expanduser()
        if not path.is_dir():
            problems.add("no such folder", where=f"--images {word}")
        elif name in found:
            problems.add("two folders for " + (f"'{name}'" if name else "all"), where=f"--images {word}")
        found[name] = path
    problems.raise_if_any()
    return found


def check_image_folders(settings: ImageFolderSettings, sources: Iterable[str]) -> None:
    """Check the folders of images, and that each is of a source that there is.

    Raises:
        InputError: naming each that is missing or of no source.
    """
    names = list(sources)
    problems = Problems(InputError)
    for name in image_folders(settings.images):
        if name and name not in names:
            hint = nearest(name, names) if names else "there is one source: give --images DIR"
            problems.add(f"no source '{name}'", where=f"--images {name}=", hint=hint)
    problems.raise_if_any()


def find_column(file: Path, wanted: Sequence[str]) -> tuple[str | None, list[str]]:
    """The first of several columns that a file has, None where it has none of them, and the columns seen.

    Raises:
        InputError: the file is empty or damaged.
    """
    if has_schema(file):
        present = column_names(file)
    else:
        seen: dict[str, None] = {}
        for count, (_, row) in enumerate(read_rows(file, Rejects(1.0))):
            seen.update(dict.fromkeys(row))
            if wanted[0] in seen or (count >= _SEARCHED_ROWS and not seen.keys().isdisjoint(wanted)):
                break
        present = list(seen)
    return next((name for name in wanted if name in present), None), present


def require_column(file: Path, kind: str, wanted: Sequence[str]) -> str:
    """The first of several columns that a file has.

    Args:
        file: the file.
        kind: of :data:`COLUMN_KINDS`.
        wanted: the names.

    Raises:
        InputError: it has none of them; naming those that it has and the option.
    """
    found, present = find_column(file, wanted)
    if found is None:
        raise InputError(
            f"no column of the {kind} ({' or '.join(wanted)}); the columns are {', '.join(present) or 'none'}",
            where=str(file),
            hint=column_hint(kind, wanted, present),
        )
    return found


def column_hint(kind: str, wanted: Sequence[str], present: Sequence[str]) -> str:
    """Which option names the column, with the column that is probably meant."""
    close = next(
        (name for name in present if any(known in name or name in known for known in wanted)), "NAME"
    )
    return f"name it with --{kind}-column, such as --{kind}-column {close}"
