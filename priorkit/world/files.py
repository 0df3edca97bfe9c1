"""The standard formats: parquet with embedded images, ImageFolder, COCO instances, JSON lines."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features
from PIL import Image

from priorkit.world.scenes.drawing import Scene, masks, pixel_box, render
from priorkit.world.scenes.entities import Entity
from priorkit.world.text.documents import Document

_ROWS_PER_GROUP = 1000


def png(scene: Scene) -> bytes:
    """The scene as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(render(scene)).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def embedded(scene: Scene, name: str) -> dict[str, Any]:
    """The scene as a value of the ``Image`` feature of Hugging Face datasets."""
    return {"bytes": png(scene), "path": f"{name}.png"}


def write_table(path: Path, features: Features, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as parquet; the features are in the schema, so that ``datasets`` decodes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows), schema=features.arrow_schema)
    pq.write_table(table, path, row_group_size=_ROWS_PER_GROUP, compression="zstd")


def write_image(path: Path, scene: Scene) -> None:
    """Write one PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(scene))


def write_documents(path: Path, documents: Sequence[Document]) -> None:
    """Write documents as JSON lines with ``id`` and ``text``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"id": document.id, "text": document.text}, ensure_ascii=False) + "\n"
        for document in documents
    ]
    path.write_text("".join(lines), encoding="utf-8")


def run_lengths(mask: np.ndarray) -> dict[str, list[int]]:
    """COCO's uncompressed run-length encoding of a (height, width) bool mask.

    Pixels are read column by column; ``counts`` alternates between runs outside and inside the mask
    and begins outside (cocoapi, ``common/maskApi.c``, ``rleEncode``).
    """
    pixels = np.concatenate(([False], mask.ravel(order="F")))
    turns = np.flatnonzero(pixels[1:] != pixels[:-1])
    counts = np.diff(np.concatenate(([0], turns, [mask.size])))
    return {"counts": [int(count) for count in counts], "size": [int(length) for length in mask.shape]}


def write_instances(folder: Path, scenes: Sequence[Scene], entities: Sequence[Entity]) -> int:
    """Write the scenes as ``images/*.png`` and ``instances.json`` in the form of COCO instances.

    Returns:
        The number of annotated objects.
    """
    categories = {entity.name: number for number, entity in enumerate(entities, start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, scene in enumerate(scenes, start=1):
        name = f"{number:06d}.png"
        write_image(folder / "images" / name, scene)
        images.append({"id": number, "file_name": name, "width": scene.side, "height": scene.side})
        for placed, mask in zip(scene.objects, masks(scene), strict=True):
            left, top, right, bottom = pixel_box(mask)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": categories[placed.object.entity.name],
                    "bbox": [left, top, right - left, bottom - top],
                    "area": int(mask.sum()),
                    "segmentation": run_lengths(mask),
                    "iscrowd": 0,
                }
            )
    known = [
        {"id": categories[entity.name], "name": entity.name, "supercategory": entity.category.name}
        for entity in entities
    ]
    content = {"images": images, "annotations": annotations, "categories": known}
    (folder / "instances.json").write_text(json.dumps(content), encoding="utf-8")
    return len(annotations)
