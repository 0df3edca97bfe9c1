"""Columns of other names and images in other folders, for every kind of rows."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from priorkit.core.boxes import DECIMAL_BOXES
from priorkit.core.errors import InputError
from priorkit.core.inputs import resolve
from priorkit.data.columns import RowLayout, find_column, image_folders, require_column
from priorkit.data.conversations.conversation import (
    COMMON,
    Turn,
    check_conversations,
    conversation_of,
    conversations_of,
)
from priorkit.data.conversations.task_conversations import task_conversations_of
from priorkit.data.images.decoding import BrokenImageError
from priorkit.data.images.named_images import images_of_conversations, images_of_tables, named_images
from priorkit.data.images.tagged_tables import find_tables, rows_of, write_tagged
from priorkit.data.io.rejects import Rejects
from priorkit.data.pairs.reading import check_pairs, read_pairs
from priorkit.data.text.documents import check_text_source, read_documents
from priorkit.data.text.segments import read_records
from priorkit.training.finetuning.align_settings import AlignSettings
from priorkit.training.finetuning.blind_settings import BlindTuneSettings
from tests.support.named_files import listed


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of images, apart from the rows that name them."""
    folder = tmp_path / "pictures" / "coco"
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (4, 4)).save(folder / f"{name}.png")
    return folder.parent


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows in the format of the file's suffix."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".arrow":
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table)
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, rows[0], delimiter="," if path.suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


SUFFIXES = (".jsonl", ".json", ".parquet", ".arrow", ".csv", ".tsv")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_pairs_in_every_format(pictures: Path, tmp_path: Path, suffix: str) -> None:
    rows = [{"filepath": "coco/a.png", "title": 'one, "two"'}, {"filepath": "coco/b.png", "title": "three"}]
    path = write(tmp_path / f"rows{suffix}", rows)
    layout = RowLayout(image_folder=pictures)
    found = read_pairs(path, Rejects(0), layout=layout)
    assert tuple(found.texts) == ('one, "two"', "three")
    assert [image.path for image in found.images] == [pictures / "coco" / f"{name}.png" for name in "ab"]
    renamed = write(path, [{"where": row["filepath"], "what": row["title"], "text": "no"} for row in rows])
    named = RowLayout(image=("where",), text=("what",), image_folder=pictures)
    assert list(read_pairs(renamed, Rejects(0), layout=named).texts) == list(found.texts)
    with pytest.raises(InputError) as caught:
        check_pairs(renamed, RowLayout(image=("pic",), text=("said",)))
    message = str(caught.value)
    assert "the columns are where, what, text" in message
    assert "--image-column" in message
    assert "--text-column" in message


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_questions_and_captions_in_every_format(pictures: Path, tmp_path: Path, suffix: str) -> None:
    row = {"pic": "coco/a.png", "asked": "What?", "said": "A cat."}
    path = write(tmp_path / f"rows{suffix}", [row])
    asked = RowLayout(("pic",), text=(), question=("asked",), answer=("said",), image_folder=pictures)
    ((_, _, found),) = conversations_of(path, Rejects(0), asked)
    assert found.turns == (Turn("user", "<image>\nWhat?"), Turn("assistant", "A cat."))
    assert [image.path for image in found.images] == [pictures / "coco" / "a.png"]
    shown = RowLayout(("pic",), text=("said",), image_folder=pictures)
    ((_, _, found),) = conversations_of(path, Rejects(0), shown)
    assert found.turns == (Turn("user", "<image>"), Turn("assistant", "A cat."))
    ((_, _, found),) = task_conversations_of(path, Rejects(0), "task_type", "", DECIMAL_BOXES, layout=asked)
    assert found.payload["task_type"] == "image-level"
    with pytest.raises(InputError, match=r"the columns are pic, asked, said\n.*--question-column"):
        check_conversations(path)
    with pytest.raises(InputError, match=r"no column of the image \(img\); .*\n.*--image-column"):
        check_conversations(path, RowLayout(("img",), text=(), question=("asked",), answer=("said",)))


def test_turns_in_a_cell_of_text_and_images_as_a_list(pictures: Path) -> None:
    turns = [{"from": "human", "value": "<image>\n<image>\nq"}, {"from": "gpt", "value": "a"}]
    row = {"images": '["coco/a.png", "coco/b.png"]', "conversations": json.dumps(turns)}
    found = conversation_of(row, pictures / "rows.csv", 2)
    assert [image.name for image in found.images] == ["coco/a.png", "coco/b.png"]
    with pytest.raises(ValueError, match="'answer' is a number, not text"):
        conversation_of({"question": "q", "answer": 3}, pictures / "rows.csv", 2)
    with pytest.raises(BrokenImageError, match="leaves its folder"):
        conversation_of({**row, "images": "../rows.csv"}, pictures / "rows.csv", 2)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_text_in_every_format(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"rows{suffix}", [{"content": "one\ntwo"}, {"content": ""}, {"content": "three"}])
    assert check_text_source(path) == [path]
    rejects = Rejects(0)
    assert list(read_documents(path, rejects)) == ["one\ntwo", "three"]
    assert [record.text for record in read_records(path, rejects)] == ["one\ntwo", "three"]
    assert not rejects.rows
    with pytest.raises(InputError, match=r"the columns are content\n.*--text-column content"):
        check_text_source(path, ("contents",))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_tables_of_images_are_written_with_the_column_image(
    pictures: Path, tmp_path: Path, suffix: str
) -> None:
    path = write(tmp_path / f"rows{suffix}", [{"img": "coco/a.png", "id": "1"}])
    layout = RowLayout(image_folder=pictures)
    assert find_tables(path, layout) == [path]
    target = tmp_path / "out.parquet"
    assert write_tagged(path, target, "tags", lambda rows, _: [["x"] for _ in rows], Rejects(0), layout) == 1
    (row,) = pq.read_table(target).to_pylist()
    assert row["image"]["bytes"] == (pictures / "coco" / "a.png").read_bytes()
    assert (row["id"], row["tags"], "img" in row) == ("1", ["x"], False)
    assert [list(row) for rows in rows_of(path, Rejects(0), layout) for _, row in rows] == [["image", "id"]]


def test_a_list_next_to_images_is_no_table(pictures: Path) -> None:
    write(pictures / "labels.csv", [{"name": "a", "label": "cat"}])
    assert find_tables(pictures) == [pictures]
    write(pictures / "labels.csv", [{"image": "coco/a.png", "label": "cat"}])
    assert find_tables(pictures) == [pictures / "labels.csv"]


def test_images_of_a_folder_of_their_own_belong_to_the_input(pictures: Path, tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}]
    rows = write(tmp_path / "rows.json", [{"image": "coco/a.png", "conversations": turns}])
    common = {"llm": "llm", "out": "o"}
    for settings, option in (
        (AlignSettings(**common, encoder="e", captions=str(rows), images=str(pictures)), "captions"),
        (BlindTuneSettings(**common, instructions=[f"x={rows}"], images=[f"x={pictures}"]), "instructions"),
    ):
        source = "x" if option == "instructions" else "all"
        item = resolve(str(rows), option, ())
        found = settings.named_files({f"{option}.{source}": item})
        assert listed(found) == {f"images of {option}.{source}": (pictures, ["coco/a.png"])}
    item = resolve(str(rows), "images", ())
    layout = RowLayout(image=("image",), image_folder=pictures)
    for references in (images_of_conversations, images_of_tables):
        found = named_images({"images": item}, ("images",), references, lambda _: layout)
        assert listed(found) == {"images of images": (pictures, ["coco/a.png"])}


def test_image_folders(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    given = [str(tmp_path / "one"), f"b={tmp_path / 'two'}"]
    assert image_folders(given) == {"": tmp_path / "one", "b": tmp_path / "two"}
    with pytest.raises(InputError, match="no such folder"):
        image_folders([str(tmp_path / "three")])
    with pytest.raises(InputError, match="two folders for 'b'"):
        image_folders([f"b={tmp_path / 'one'}", f"b={tmp_path / 'two'}"])


def test_the_first_name_that_a_file_has(tmp_path: Path) -> None:
    rows = [{"img": "a"}, {"img": "b", "image": "c"}]
    path = write(tmp_path / "rows.jsonl", rows)
    assert find_column(path, ("image", "img")) == ("image", ["img", "image"])
    assert find_column(path, ("text",)) == (None, ["img", "image"])
    assert require_column(path, "image", ("jpg", "img")) == "img"
    assert COMMON.folder_of(path) == tmp_path
