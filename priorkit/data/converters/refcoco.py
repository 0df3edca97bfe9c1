"""RefCOCO, RefCOCO+ and RefCOCOg as published: ``refs(SPLITTER).p`` and COCO's ``instances.json``.

The referring expressions are a pickle of plain containers. It is read by an unpickler that builds nothing else: a
file that names any class or function is refused before it is looked up. A pickle is one object, so the references
are held in memory (50,000 of RefCOCO: tens of megabytes); of the annotations, which are read element by element,
only the boxes that references name.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, cast

from priorkit.core.boxes import check_box
from priorkit.core.errors import InputError
from priorkit.data.converters.base import ConverterOptions, Row, inside
from priorkit.data.images.regions import four_numbers, scaled_box
from priorkit.data.io.json_array import object_elements
from priorkit.data.io.rejects import Rejects

INSTANCES = "instances.json"


class PlainUnpickler(pickle.Unpickler):
    """Reads numbers, texts, lists, tuples, sets and dictionaries; whatever else a pickle asks for is refused.

    Args:
        content: the pickle; texts that Python 2 wrote are read as UTF-8.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8", errors="surrogateescape")

    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        """Refuse it: importing and calling is how a pickle runs code."""
        raise pickle.UnpicklingError(f"it names {module_name}.{global_name}; only plain containers are read")

    def persistent_load(self, pid: Any) -> NoReturn:
        """Refuse it: plain containers refer to nothing outside."""
        raise pickle.UnpicklingError("it refers to an object outside the file")


def read_plain_pickle(path: Path) -> Any:
    """What a pickle of plain containers holds.

    Raises:
        InputError: it is truncated or damaged, or holds anything else.
    """
    try:
        return PlainUnpickler(path.read_bytes()).load()
    except Exception as error:  # The format's instructions fail in many ways on damaged files.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"no pickle of plain containers: {reason}", where=str(path)) from None


def convert(source: Path, options: ConverterOptions, rejects: Rejects) -> Iterator[tuple[str, Row]]:
    """Yield the references with their boxes, as :mod:`priorkit.data.conversations.regions` reads them.

    Raises:
        InputError: a file is missing or damaged, or there are several files of references.
    """
    file = _references_file(source)
    references = read_plain_pickle(file)
    if not isinstance(references, list):
        raise InputError("expected a list of references", where=str(file))
    wanted = {ref.get("ann_id") for ref in cast("list[Any]", references) if isinstance(ref, dict)}
    boxes, images = _boxes(file.with_name(INSTANCES), wanted)
    for number, ref in enumerate(cast("list[Any]", references), start=1):
        try:
            split = str(ref["split"])
            if options.split and split != options.split:
                continue
            row = _row(ref, boxes, images, options)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            rejects.add(str(file), number, reason)
            continue
        rejects.accept()
        yield split, row


def _references_file(source: Path) -> Path:
    files = [source] if source.is_file() else sorted(source.glob("refs*.p"))
    if len(files) != 1:
        names = ", ".join(file.name for file in files)
        raise InputError(
            f"several files of references: {names}" if files else "no file of references (refs(*).p) here",
            where=str(source),
            hint="name one of them" if files else "",
        )
    return files[0]


def _boxes(file: Path, wanted: set[Any]) -> tuple[dict[Any, Any], dict[Any, tuple[str, float, float]]]:
    """Boxes ``[x, y, width, height]`` of the annotations wanted; name and size in pixels of each image."""
    if not file.is_file():
        raise InputError(f"{INSTANCES} is missing", where=str(file.parent))
    boxes: dict[Any, Any] = {}
    images: dict[Any, tuple[str, float, float]] = {}
    for key, item in object_elements(file, ("annotations", "images")):
        if not isinstance(item, dict):
            continue
        entry = cast("Mapping[str, Any]", item)
        if key == "images" and {"file_name", "width", "height"} <= entry.keys():
            images[entry.get("id")] = str(entry["file_name"]), float(entry["width"]), float(entry["height"])
        elif key == "annotations" and entry.get("id") in wanted:
            boxes[entry["id"]] = entry.get("bbox")
    return boxes, images


def _row(
    ref: Mapping[str, Any],
    boxes: Mapping[Any, Any],
    images: Mapping[Any, tuple[str, float, float]],
    options: ConverterOptions,
) -> Row:
    """A reference as a row.

    Raises:
        KeyError, TypeError, ValueError: parts are missing or of another kind, or the box leaves the image.
    """
    if ref["ann_id"] not in boxes:
        raise ValueError(f"{INSTANCES} has no annotation {ref['ann_id']}")
    if ref["image_id"] not in images:
        raise ValueError(f"{INSTANCES} has no image {ref['image_id']}")
    name, width, height = images[ref["image_id"]]
    box = four_numbers(boxes[ref["ann_id"]])
    check_box(scaled_box(box, (width, height)), str(list(box)))
    sentences = [sentence["sent"] or sentence["raw"] for sentence in ref["sentences"]]
    if not sentences or not all(isinstance(sentence, str) and sentence.strip() for sentence in sentences):
        raise ValueError("no sentence")
    path = inside(options.images or Path(), name)
    if options.images is not None and not path.is_file():
        raise ValueError(f"the image {name} is missing")
    return {
        "id": str(ref["ref_id"]),
        "image": name,
        "width": width,
        "height": height,
        "bbox": list(box),
        "sentences": sentences,
    }
