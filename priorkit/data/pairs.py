"""Image-text pairs: parquet or JSON Lines with an image and a caption."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from priorkit.core.errors import InputError
from priorkit.data.images import BrokenImageError, ImageRef, decode, image_of
from priorkit.data.rejects import Rejects
from priorkit.data.rows import TABLE_SUFFIXES, column_names, files_of, read_rows

IMAGE_COLUMNS = ("image", "file_name", "jpg", "png")
TEXT_COLUMNS = ("text", "caption", "txt")


@dataclass(frozen=True)
class Pairs:
    """Images and their texts, in the order of the files."""

    images: tuple[ImageRef, ...]
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)


def check_pairs(path: Path) -> list[Path]:
    """The files of a source of pairs, their columns checked from headers.

    Raises:
        InputError: no file of a known type, or no image or text column.
    """
    files = files_of(path, TABLE_SUFFIXES)
    for file in files:
        columns = column_names(file)
        for known, what in ((IMAGE_COLUMNS, "image"), (TEXT_COLUMNS, "text")):
            if not any(name in columns for name in known):
                raise InputError(
                    f"no {what} column; expected {' or '.join(known)}, got {', '.join(columns)}",
                    where=str(file),
                )
    return files


def read_pairs(path: Path, rejects: Rejects) -> Pairs:
    """Read image-text pairs; rows without text or with an image that does not decode go to ``rejects``.

    Raises:
        InputError: nothing is left, or a file is damaged.
    """
    images: list[ImageRef] = []
    texts: list[str] = []
    for file in check_pairs(path):
        columns = column_names(file)
        image_column = next(name for name in IMAGE_COLUMNS if name in columns)
        text_column = next(name for name in TEXT_COLUMNS if name in columns)
        for number, row in read_rows(file, rejects, [image_column, text_column]):
            text = row.get(text_column)
            if not isinstance(text, str) or not text.strip():
                rejects.add(str(file), number, f"'{text_column}' is empty or not text")
                continue
            try:
                ref = image_of(row.get(image_column), file.parent, f"{file.name}:{number}")
            except BrokenImageError as error:
                rejects.add(str(file), number, str(error))
                continue
            try:
                decode(ref)
            except BrokenImageError as error:
                rejects.add(str(file), number, f"{ref.name}: {error}")
                continue
            rejects.good()
            images.append(ref)
            texts.append(text)
    rejects.judge()
    if not texts:
        raise InputError("no image-text pairs here", where=str(path))
    return Pairs(tuple(images), tuple(texts))
