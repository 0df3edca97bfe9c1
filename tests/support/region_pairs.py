"""Image-text pairs with regions: colored squares on gray."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

COLORS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 220), "yellow": (230, 210, 30)}
REGION = pa.list_(pa.struct([("text", pa.string()), ("box", pa.list_(pa.float64()))]))


def region_rows(
    count: int,
    seed: int = 0,
    size: tuple[int, int] = (48, 48),
    keep: Callable[[int], bool] = lambda row: True,
) -> list[dict[str, Any]]:
    """Rows of one or two squares; those that are not kept have no regions."""
    random = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        image = Image.new("RGB", size, (200, 200, 200))
        draw, regions = ImageDraw.Draw(image), []
        half = size[0] // 2
        for place in range(int(random.integers(1, 3))):
            side = int(random.integers(10, half))
            x, y = (
                int(random.integers(0, half - side)) + place * half,
                int(random.integers(0, size[1] - side)),
            )
            color = sorted(COLORS)[int(random.integers(len(COLORS)))]
            draw.rectangle((x, y, x + side - 1, y + side - 1), fill=COLORS[color])
            box = [x / size[0], y / size[1], (x + side) / size[0], (y + side) / size[1]]
            regions.append({"text": f"a {color} square", "box": box})
        stream = io.BytesIO()
        image.save(stream, "PNG")
        text = " and ".join(str(region["text"]) for region in regions)
        rows.append(
            {
                "image": {"bytes": stream.getvalue(), "path": None},
                "text": text,
                "regions": regions if keep(number) else None,
            }
        )
    return rows


def write_pairs(file: Path, rows: list[dict[str, Any]], regions: bool = True) -> Path:
    """The rows as parquet, with the column of regions or without."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = [("image", image), ("text", pa.string()), *([("regions", REGION)] if regions else [])]
    names = [name for name, _ in fields]
    kept = [{name: row[name] for name in names} for row in rows]
    pq.write_table(pa.Table.from_pylist(kept, schema=pa.schema(fields)), file)
    return file
