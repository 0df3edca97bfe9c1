"""Images that rows name belong to the input of the step that reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from priorkit.core.inputs import resolve
from priorkit.data.columns import RowLayout
from priorkit.data.conversations.conversation import CAPTION_IMAGES
from priorkit.data.images.entity_sources import EntityLayout
from priorkit.data.images.named_images import (
    References,
    images_of_conversations,
    images_of_entities,
    images_of_pairs,
    images_of_tables,
    may_name_images,
    named_images,
)
from tests.support.named_files import listed

TURNS = [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}]
PARTS = [
    {"role": "user", "content": [{"type": "image", "path": "b.png"}]},
    {"role": "assistant", "content": "a"},
]


def layout(_: str) -> RowLayout:
    return RowLayout(image=CAPTION_IMAGES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b", "unused", ".hidden"):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    return tmp_path


@pytest.mark.parametrize(
    ("references", "rows", "names"),
    [
        (images_of_pairs, [{"image": "a.png", "text": "t"}, {"image": "gone.png", "text": "t"}], ["a.png"]),
        (images_of_pairs, [{"image": "a.png", "conversations": TURNS}], ["a.png"]),
        (images_of_conversations, [{"image": ["b.png"], "conversations": TURNS}], ["b.png"]),
        (images_of_conversations, [{"images": ["a.png"], "conversations": TURNS}], ["a.png"]),
        (images_of_conversations, [{"messages": PARTS}, {"image": "", "conversations": TURNS}], ["b.png"]),
        (images_of_tables, [{"image": ["a.png", "b.png"]}, {"image": ""}], ["a.png", "b.png"]),
        (images_of_tables, [{"image": ".hidden.png"}], [".hidden.png"]),
    ],
)
def test_rows_of_a_file_name_images(
    folder: Path, references: References, rows: list[dict[str, Any]], names: list[str]
) -> None:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    item = resolve(str(folder / "rows.jsonl"), "pairs", ())
    found = named_images({"pairs": item}, ("pairs",), references, layout)
    assert listed(found) == {"images of pairs": (folder, names)}
    assert named_images({"pairs": item}, ("other",), references, layout) == {}


def test_of_a_folder_only_those_that_are_not_listed(folder: Path) -> None:
    (folder / "rows.jsonl").write_text('{"image": "a.png"}\n{"image": ".hidden.png"}\n')
    item = resolve(str(folder), "images", ())
    found = named_images({"images": item}, ("images",), images_of_tables, layout)
    assert listed(found) == {"images of images": (folder, [".hidden.png"])}


@pytest.mark.parametrize("embedded", [True, False])
def test_a_parquet_file_names_images_where_it_does_not_embed_them(folder: Path, embedded: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = (folder / "a.png").read_bytes() if embedded else None
    table = pa.table({"image": [{"bytes": content, "path": "a.png"}], "label": ["cat"]})
    pq.write_table(table, folder / "x.parquet")
    assert may_name_images(folder / "x.parquet", ("image",)) is not embedded
    item = resolve(str(folder / "x.parquet"), "images", ())
    references = lambda path, _: images_of_entities(path, EntityLayout())  # noqa: E731
    found = named_images({"images": item}, ("images",), references, layout)
    assert listed(found) == ({} if embedded else {"images of images": (folder, ["a.png"])})
