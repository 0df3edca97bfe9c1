"""What a converter of a published layout provides, and how its rows are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from priorkit.data.images.entity_names import EntityNames
from priorkit.data.io.rejects import Rejects

Row = dict[str, Any]


@dataclass(frozen=True)
class ConverterOptions:
    """What the options of ``convert-data`` say.

    Attributes:
        images: the folder of the images; the data's own where not given.
        split: the split that is wanted; empty for all.
        names: which of an entity's names is used, where there are several.
        entity_names: names by id, for layouts that have only numbers.
        images_per_entity: most images of each entity; 0 for all.
    """

    images: Path | None = None
    split: str = ""
    names: Literal["common", "scientific"] = "common"
    entity_names: EntityNames = field(default_factory=EntityNames)
    images_per_entity: int = 0


Convert = Callable[[Path, ConverterOptions, Rejects], Iterator[tuple[str, Row]]]
"""Yields the split and the row of each usable item, in the order of the source; the others go to ``rejects``.

What it holds in memory does not grow with the rows, unless its module says so.
"""


class PerEntity:
    """Counts the images of each entity, and says which are wanted.

    Args:
        most: images of an entity in a split; 0 for all.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._counts: dict[tuple[str, str], int] = {}

    def takes(self, split: str, entity: str) -> bool:
        """Whether a further image of an entity is wanted; it is counted then."""
        if not self._most:
            return True
        count = self._counts.get((split, entity), 0)
        if count >= self._most:
            return False
        self._counts[split, entity] = count + 1
        return True


def entity_row(file: Path, name: str, entity: str, **more: Any) -> Row:
    """A row of an entity image, its bytes embedded as ``datasets`` embeds them.

    Raises:
        ValueError: the file is missing, empty or no image.
    """
    from priorkit.data.images.decoding import BrokenImageError, ImageRef, upright_size

    try:
        content = file.read_bytes()
        upright_size(ImageRef(name, content=content))
    except FileNotFoundError:
        raise ValueError(f"the image {name} is missing") from None
    except (OSError, BrokenImageError) as error:
        raise ValueError(f"{name}: {error}") from None
    return {"image": {"bytes": content, "path": Path(name).name}, "entity": entity, **more}


def inside(folder: Path, name: Any) -> Path:
    """A file below a folder by its name.

    Raises:
        ValueError: no name, or one that leaves the folder.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"no file name: {name!r}")
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"the path {name} leaves its folder")
    return folder / path


def text_of(row: Mapping[str, Any], key: str) -> str:
    """A text of a row.

    Raises:
        ValueError: there is none.
    """
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"'{key}' is no text: {str(value)[:60]}")
    return value.strip()
