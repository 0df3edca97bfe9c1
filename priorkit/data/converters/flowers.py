"""Oxford 102 Flowers as published: ``imagelabels.mat``, ``setid.mat`` and ``jpg/image_NNNNN.jpg``.

The files number the classes; their names are torchvision's, or those of a file (Udacity's ``cat_to_name.json``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from priorkit.core.errors import InputError
from priorkit.data.converters.base import ConverterOptions, PerEntity, Row, entity_row
from priorkit.data.io.rejects import Rejects

_SPLITS = {"train": "trnid", "validation": "valid", "test": "tstid"}


def convert(source: Path, options: ConverterOptions, rejects: Rejects) -> Iterator[tuple[str, Row]]:
    """Yield a row per image, split by split.

    Raises:
        InputError: a file is missing or damaged.
    """
    labels = _matrix(source / "imagelabels.mat", "labels")
    splits = {name: _matrix(source / "setid.mat", key) for name, key in _SPLITS.items()}
    names = options.entity_names.by_id or _torchvision_names()
    root = options.images or source / "jpg"
    wanted = PerEntity(options.images_per_entity)
    if options.split and options.split not in splits:
        raise InputError(f"no split '{options.split}' ({', '.join(splits)})", where=str(source))
    for split, numbers in splits.items():
        for number in numbers if not options.split or split == options.split else ():
            name = f"image_{number:05}.jpg"
            try:
                if not 1 <= number <= len(labels):
                    raise ValueError(f"there is no label of image {number}")
                label = str(labels[number - 1])
                if label not in names:
                    raise ValueError(f"class {label} has no name")
                if not wanted.takes(split, names[label]):
                    continue
                row = entity_row(root / name, name, names[label])
            except ValueError as error:
                rejects.add(str(source / "setid.mat"), number, str(error))
                continue
            rejects.accept()
            yield split, row


def _matrix(file: Path, key: str) -> list[int]:
    """The integers of a matrix in a MATLAB file, in order."""
    from scipy.io import loadmat

    try:
        content: dict[str, Any] = loadmat(str(file), variable_names=[key])
        return [int(value) for value in content[key].ravel()]
    except FileNotFoundError:
        raise InputError(f"{file.name} is missing", where=str(file.parent)) from None
    except Exception as error:  # scipy raises what it runs into on damaged files.
        raise InputError(f"no matrix '{key}' can be read: {error}", where=str(file)) from None


def _torchvision_names() -> dict[str, str]:
    from torchvision.datasets import Flowers102

    return {str(number): name for number, name in enumerate(Flowers102.classes, start=1)}
