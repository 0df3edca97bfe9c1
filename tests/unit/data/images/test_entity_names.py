"""Names of entities whose folders and labels are ids."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from priorkit.core.errors import InputError
from priorkit.data.columns import RowLayout
from priorkit.data.images.entities import read_entities
from priorkit.data.images.entity_names import EntityNames, read_entity_names
from priorkit.data.images.entity_sources import EntityLayout
from priorkit.data.io.rejects import Rejects

TENCH = {"n01440764": "tench", "n01443537": "goldfish"}

FILES = {
    "LOC_synset_mapping.txt": "n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus\n",
    "words.tsv": "n01440764\ttench, Tinca tinca\nn01443537\tgoldfish, Carassius auratus\n",
    "names.csv": 'synset,words\nn01440764,"tench, Tinca tinca"\nn01443537,goldfish\n',
    "two.csv": "folder name,called\nn01440764,tench\nn01443537,goldfish\n",
    "names.jsonl": '{"id": "n01440764", "name": "tench"}\n{"id": "n01443537", "name": "goldfish"}\n',
    "map.json": json.dumps(TENCH),
    "lists.json": json.dumps({"n01440764": ["tench", "Tinca tinca"], "n01443537": ["goldfish"]}),
    "imagenet_class_index.json": json.dumps({"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}),
    "rows.json": json.dumps([{"id": key, "name": value} for key, value in TENCH.items()]),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_names(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("\ufeff" + FILES[name], encoding="utf-8")
    assert read_entity_names(tmp_path / name).by_id == TENCH


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "n01440764 tench\nn01443537\n", r"a\.txt:2: expected an id and its name, got 'n01443537'"),
        ("a.txt", "1 a\n1 b\n", r"a\.txt:2: '1' is there twice"),
        ("a.csv", "id,x,y\n1,2,3\n", r"the columns are id, x, y; expected one of ids .* and one of names"),
        ("a.json", "{", "not valid JSON"),
        ("a.json", "{}", "the file holds no names"),
        ("a.txt", "", "the file is empty"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_entity_names(tmp_path / name)


def test_names_that_two_ids_share() -> None:
    maillots = {"n03710637": "maillot", "n03710721": "maillot"}
    names = EntityNames(maillots, {**maillots, "n03710721": "maillot, tank suit"}, "f")
    assert names.names_of(maillots) == {"n03710637": "maillot", "n03710721": "maillot, tank suit"}
    cranes = {"n02012849": "crane", "n03126707": "crane"}
    with pytest.raises(
        InputError, match=r"n02012849 and n03126707 are all called 'crane'\n.*name of its own"
    ):
        EntityNames(cranes, cranes, "f").names_of(cranes)


def test_folders_and_labels_get_their_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for folder in (*TENCH, "n99999999"):
        (tmp_path / "images" / folder).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "images" / folder / "0.png")
    names = EntityNames(TENCH, TENCH, "f")
    with caplog.at_level(logging.WARNING):
        found = read_entities(tmp_path / "images", Rejects(0), layout=EntityLayout(names=names))
    assert found.entities == ("goldfish", "n99999999", "tench")
    assert [image.name for image in found.images] == [
        f"{key}/0.png" for key in ("n01443537", "n99999999", "n01440764")
    ]
    assert "1 of 3 entities are not in f, such as 'n99999999'" in caplog.text
    assert names.unnamed(found.named) == 1
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert read_entities(tmp_path / "images", Rejects(0)).entities == (*TENCH, "n99999999")
    assert "--entity-names" in caplog.text
    with pytest.raises(InputError, match="none of the 3 entities is in the file of their names"):
        read_entities(tmp_path / "images", Rejects(0), layout=EntityLayout(names=EntityNames({"1": "a"})))


def test_numbers_of_classes_get_their_names(tmp_path: Path) -> None:
    content = tmp_path / "0.png"
    Image.new("RGB", (4, 4)).save(content)
    pq.write_table(pa.table({"image": ["0.png", "0.png"], "label": [1, 0]}), tmp_path / "a.parquet")
    layout = EntityLayout(RowLayout(), names=EntityNames({"0": "cod", "1": "eel"}))
    assert read_entities(tmp_path / "a.parquet", Rejects(0), layout=layout).entities == ("cod", "eel")


def test_tables_of_several_splits_are_read_one_at_a_time(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "0.png")
    for name, label in (("train-00000-of-00001", "cod"), ("test-00000-of-00001", "eel")):
        pq.write_table(pa.table({"image": ["0.png"], "label": [label]}), tmp_path / f"{name}.parquet")
    with pytest.raises(InputError, match=r"several splits of a data set: test, train\n.*--split test"):
        read_entities(tmp_path, Rejects(0))
    for split, entity in (("train", "cod"), ("testing", "eel")):
        found = read_entities(tmp_path, Rejects(0), layout=EntityLayout(split=split))
        assert found.entities == (entity,)
    with pytest.raises(InputError, match="no split 'dev'"):
        read_entities(tmp_path, Rejects(0), layout=EntityLayout(split="dev"))
    (tmp_path / "test-00000-of-00001.parquet").unlink()
    assert read_entities(tmp_path, Rejects(0)).entities == ("cod",)
