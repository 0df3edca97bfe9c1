"""Published layouts of data, on small fakes of them: rows, names, splits, and what is rejected and why."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from priorkit.core.errors import InputError
from priorkit.data.converters.base import ConverterOptions
from priorkit.data.converters.refcoco import read_plain_pickle
from priorkit.data.converters.registry import LAYOUTS, converter
from priorkit.data.images.entity_names import EntityNames
from priorkit.data.io.json_array import object_elements
from priorkit.data.io.rejects import Rejects


def picture(path: Path, shade: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), (shade, 20, 200)).save(path)


def converted(name: str, source: Path, **options: Any) -> tuple[list[tuple[str, dict[str, Any]]], Rejects]:
    rejects = Rejects(1.0)
    return list(converter(name)(source, ConverterOptions(**options), rejects)), rejects


def reasons(rejects: Rejects) -> list[str]:
    return [str(row["reason"]) for row in rejects.rows]


def write(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def reference(number: int, split: str = "train", **changes: Any) -> dict[str, Any]:
    ref = {
        "ref_id": number, "ann_id": number, "image_id": 7, "category_id": 1, "split": split, "sent_ids": [number],
        "file_name": f"COCO_train2014_000000000007_{number}.jpg",
        "sentences": [{"tokens": ["the", "cat"], "raw": "The cat!", "sent_id": number, "sent": f"the cat {number}"}],
    }  # fmt: skip
    return {key: value for key, value in {**ref, **changes}.items() if value is not None}


@pytest.fixture
def refcoco(tmp_path):
    references = [
        reference(1),
        reference(2, "testA"),
        reference(3, ann_id=99),
        reference(4, image_id=8),
        reference(5, ann_id=6),
        reference(6, sentences=None, ann_id=1),
        reference(7, sentences=[], ann_id=1),
    ]
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps(references, protocol=2))
    annotations = [
        {"id": number, "image_id": 7, "bbox": [1, 2, 10, 20], "segmentation": [[1] * 50]}
        for number in (1, 2, 4)
    ]
    annotations.append({"id": 6, "image_id": 7, "bbox": [35, 2, 10, 20]})
    images = [{"id": 7, "file_name": "COCO_train2014_000000000007.jpg", "width": 40, "height": 30}]
    write(tmp_path / "instances.json", {"info": {"x": [1]}, "images": images, "annotations": annotations})
    return tmp_path


def test_refcoco_gives_expressions_with_pixel_boxes(refcoco):
    rows, rejects = converted("refcoco", refcoco)
    assert [split for split, _ in rows] == ["train", "testA"]
    assert rows[0][1] == {
        "id": "1", "image": "COCO_train2014_000000000007.jpg", "width": 40.0, "height": 30.0,
        "bbox": [1.0, 2.0, 10.0, 20.0], "sentences": ["the cat 1"],
    }  # fmt: skip
    assert reasons(rejects) == [
        "instances.json has no annotation 99",
        "instances.json has no image 8",
        "the box [35.0, 2.0, 10.0, 20.0] leaves the image of 40 x 30 pixels",
        "no 'sentences'",
        "no sentence",
    ]
    assert rejects.rows[0]["row"] == 3
    assert len(converted("refcoco", refcoco, split="testA")[0]) == 1
    _, rejects = converted("refcoco", refcoco, images=refcoco)
    assert "the image COCO_train2014_000000000007.jpg is missing" in reasons(rejects)
    (refcoco / "refs(google).p").write_bytes(b"")
    with pytest.raises(InputError, match=r"several files of references: refs\(google\)\.p, refs\(unc\)\.p"):
        converted("refcoco", refcoco)


class Runs:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_reads_plain_containers_only(tmp_path, protocol):
    path, mark = tmp_path / "refs(x).p", tmp_path / "was-run"
    plain = (
        [{"a": [1, 2.5, "ä", None, True], "b": (1,), "c": {2}}]
        if protocol == 4
        else [{"a": [1, 2.5, "ä", None]}]
    )
    path.write_bytes(pickle.dumps(plain, protocol))
    assert read_plain_pickle(path) == plain
    path.write_bytes(pickle.dumps([{"a": Runs(mark)}], protocol))
    with pytest.raises(InputError, match=r"it names .*mkdir; only plain containers are read"):
        read_plain_pickle(path)
    assert not mark.exists()
    path.write_bytes(pickle.dumps([np.float64(1)], protocol))
    with pytest.raises(InputError, match=r"it names .*numpy"):
        read_plain_pickle(path)
    content = pickle.dumps(plain, protocol)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="no pickle of plain containers"):
        read_plain_pickle(path)


def test_texts_that_python_2_wrote_are_read(tmp_path):
    path = tmp_path / "old.p"
    path.write_bytes(b"(lp0\n(dp1\nS'sent'\np2\nS'the cat'\np3\nsa.")
    assert read_plain_pickle(path) == [{"sent": "the cat"}]


def test_visual_genome_counts_each_region(tmp_path):
    write(tmp_path / "image_data.json", [
        {"image_id": 1, "url": "https://x/rak248/VG_100K_2/1.jpg", "width": 40, "height": 30},
        {"image_id": 2, "url": "https://x/rak248/VG_100K/2.jpg", "width": 40, "height": 30},
    ])  # fmt: skip
    region = {
        "region_id": 5,
        "x": 1,
        "y": 2,
        "width": 10,
        "height": 20,
        "image_id": 1,
        "phrase": " a red car ",
    }
    write(tmp_path / "region_descriptions.json", [
        {"id": 1, "regions": [region, {**region, "x": 90}, {**region, "phrase": ""}, {**region, "width": 0}]},
        {"id": 2, "regions": [{**region, "x": 90}]},
        {"id": 3, "regions": [region]},
        {"id": 1},
        17,
    ])  # fmt: skip
    rows, rejects = converted("visual-genome", tmp_path)
    assert rows == [
        ("train", {
            "id": "1", "image": "VG_100K_2/1.jpg", "image_width": 40.0, "image_height": 30.0,
            "regions": [{"phrase": "a red car", "x": 1.0, "y": 2.0, "width": 10.0, "height": 20.0}],
        }),
    ]  # fmt: skip
    places = [(row["row"], row.get("region")) for row in rejects.rows]
    assert places == [(1, 2), (1, 3), (1, 4), (2, 1), (3, None), (4, None), (5, None)]
    picture(tmp_path / "vg" / "VG_100K_2" / "1.jpg")
    assert len(converted("visual-genome", tmp_path, images=tmp_path / "vg")[0]) == 1
    assert converted("visual-genome", tmp_path, images=tmp_path)[0] == []
    (tmp_path / "image_data.json").unlink()
    with pytest.raises(InputError, match=r"image_data\.json is missing"):
        converted("visual-genome", tmp_path)


def species(**changes: Any) -> dict[str, Any]:
    content = {
        "info": {"year": 2021},
        "categories": [
            {"id": 0, "name": "Felis catus", "common_name": "Cat"},
            {"id": 1, "name": "Canis lupus", "common_name": "Wolf"},
            {"id": 2, "name": "Canis rufus", "common_name": "Wolf"},
            {"id": 3, "name": "Musca domestica"},
        ],
        "images": [{"id": 10 + number, "file_name": f"val/{number}.png", "width": 40, "height": 30, "latitude": float("nan")} for number in range(6)],
        "annotations": [{"id": number, "image_id": 15 - number, "category_id": number % 4} for number in range(6)],
    }  # fmt: skip
    return {**content, **changes}


def test_inaturalist_names_species(tmp_path):
    write(tmp_path / "val.json", species())
    for number in range(6):
        picture(tmp_path / "val" / f"{number}.png", 10 * number)
    rows, rejects = converted("inaturalist", tmp_path)
    assert [row["entity"] for _, row in rows] == [
        "Wolf (Canis lupus)", "Cat", "Musca domestica", "Wolf (Canis rufus)", "Wolf (Canis lupus)", "Cat",
    ]  # fmt: skip
    assert {split for split, _ in rows} == {"val"}
    assert rows[1][1]["image"]["bytes"] == (tmp_path / "val" / "1.png").read_bytes()
    assert not rejects.rows
    rows, _ = converted("inaturalist", tmp_path, names="scientific", images_per_entity=1)
    assert [row["entity"] for _, row in rows] == [
        "Canis lupus",
        "Felis catus",
        "Musca domestica",
        "Canis rufus",
    ]
    (tmp_path / "val" / "0.png").unlink()
    (tmp_path / "val" / "1.png").write_bytes(b"no image")
    images = [
        *species()["images"],
        {"id": 99, "file_name": "val/5.png"},
        {"id": 11, "file_name": "../../x.png"},
        {},
    ]
    write(tmp_path / "val.json", species(images=images))
    rows, rejects = converted("inaturalist", tmp_path)
    assert len(rows) == 4
    found = reasons(rejects)
    assert found[0] == "the image val/0.png is missing"
    assert found[1].startswith("val/1.png: ")
    assert found[2:] == [
        "no annotation of image 99",
        "the path ../../x.png leaves its folder",
        "'file_name' is no text: None",
    ]


def test_an_inaturalist_class_that_is_not_listed_is_rejected(tmp_path):
    content = species()
    content["annotations"][0]["category_id"] = 77
    write(tmp_path / "val.json", content)
    for number in range(6):
        picture(tmp_path / "val" / f"{number}.png", 10 * number)
    rows, rejects = converted("inaturalist", tmp_path)
    assert (len(rows), reasons(rejects)) == (5, ["unknown class 77"])


def test_inaturalist_splits_are_files(tmp_path):
    """``train_mini.json`` repeats images of ``train.json``; ``test.json`` has no annotations."""
    for name in ("train", "train_mini", "test"):
        content = species()
        if name == "test":
            del content["annotations"]
        write(tmp_path / f"{name}.json", content)
    picture(tmp_path / "val" / "0.png")
    assert [split for split, _ in converted("inaturalist", tmp_path, split="train")[0]] == ["train"]
    assert {split for split, _ in converted("inaturalist", tmp_path)[0]} == {"train", "train_mini"}
    with pytest.raises(InputError, match=r"test\.json: no annotations here"):
        converted("inaturalist", tmp_path, split="test")


def test_inaturalist_of_years_with_classes_apart(tmp_path):
    content = species()
    write(tmp_path / "categories.json", content.pop("categories"))
    write(tmp_path / "train2018.json", content)
    picture(tmp_path / "val" / "0.png")
    rows, rejects = converted("inaturalist", tmp_path, split="train")
    assert (len(rows), len(rejects)) == (1, 5)
    (tmp_path / "train2018.json").write_text(json.dumps(content)[:-40])
    with pytest.raises(InputError, match="not valid JSON"):
        converted("inaturalist", tmp_path)
    with pytest.raises(InputError, match="no file of annotations here"):
        converted("inaturalist", tmp_path, split="test")


def test_cub_has_names_and_splits(tmp_path):
    (tmp_path / "classes.txt").write_text("1 001.Black_footed_Albatross\n2 002.Laysan_Albatross\n")
    names = [
        "001.Black_footed_Albatross/a.jpg",
        "002.Laysan_Albatross/b.jpg",
        "002.Laysan_Albatross/c.jpg",
        "x/d.jpg",
    ]
    (tmp_path / "images.txt").write_text(
        "".join(f"{number} {name}\n" for number, name in enumerate(names, 1))
    )
    (tmp_path / "image_class_labels.txt").write_text("1 1\n2 2\n3 2\n4 7\n")
    (tmp_path / "train_test_split.txt").write_text("1 1\n2 0\n3 1\n4 1\n")
    for name in names[:2]:
        picture(tmp_path / "images" / name)
    rows, rejects = converted("cub", tmp_path)
    assert [(split, row["entity"]) for split, row in rows] == [
        ("train", "Black footed Albatross"),
        ("test", "Laysan Albatross"),
    ]
    assert reasons(rejects) == [f"the image {names[2]} is missing", "image 4 has the unknown class 7"]
    assert [split for split, _ in converted("cub", tmp_path, split="test")[0]] == ["test"]
    (tmp_path / "classes.txt").write_text("one\n")
    with pytest.raises(InputError, match=r"classes\.txt:1: expected a number and a text, got 'one'"):
        converted("cub", tmp_path)
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(InputError, match=r"classes\.txt is missing"):
        converted("cub", tmp_path)


def test_oxford_flowers_have_numbers_and_names(tmp_path):
    from scipy.io import savemat

    savemat(tmp_path / "imagelabels.mat", {"labels": np.array([[1, 102, 1]], np.uint8)})
    splits = {
        "trnid": np.array([[1]], np.uint16),
        "valid": np.array([[2]], np.uint16),
        "tstid": np.array([[3, 9]], np.uint16),
    }
    savemat(tmp_path / "setid.mat", splits)
    for number in (1, 2, 3):
        picture(tmp_path / "jpg" / f"image_{number:05}.jpg")
    rows, rejects = converted("flowers", tmp_path)
    assert [(split, row["entity"]) for split, row in rows] == [
        ("train", "pink primrose"), ("validation", "blackberry lily"), ("test", "pink primrose"),
    ]  # fmt: skip
    assert reasons(rejects) == ["there is no label of image 9"]
    rows, rejects = converted("flowers", tmp_path, entity_names=EntityNames({"1": "primula"}), split="test")
    assert ([row["entity"] for _, row in rows], len(rejects)) == (["primula"], 1)
    content = (tmp_path / "setid.mat").read_bytes()
    (tmp_path / "setid.mat").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"setid\.mat: no matrix"):
        converted("flowers", tmp_path)


def test_oven_finds_images_by_id(tmp_path):
    """Fields, ids, shards and the list of paths as the release has them."""
    names = ("Eiffel Tower", "Eiffel Tower", "Big Ben", None, "Big Ben")
    lines = [
        {
            "data_id": f"oven_entity_train_{number:08}", "image_id": f"oven_0{number}000000",
            "question": "what is the name of this building?", "entity_id": "Q1", "entity_text": name,
            "data_split": "entity_train",
        }
        for number, name in enumerate(names, start=1)
    ]  # fmt: skip
    path = tmp_path / "oven_entity_train.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "no json\n")
    for name in ("oven_images/01/oven_01000000.jpg", "flat/oven_02000000.JPEG", "inat/train/x.jpg"):
        picture(tmp_path / name)
    rows, rejects = converted("oven", tmp_path)
    assert [(split, row["entity"], row["entity_id"], row["data_split"]) for split, row in rows] == [
        ("train", "Eiffel Tower", "Q1", "entity_train")
    ]
    assert reasons(rejects)[:4] == [
        "the image oven_02000000 is missing", "the image oven_03000000 is missing", "'entity_text' is no text: None",
        "the image oven_05000000 is missing",
    ]  # fmt: skip
    assert len(converted("oven", tmp_path, images=tmp_path / "flat")[0]) == 1
    (tmp_path / "ovenid2impath.csv").write_text(
        "oven_03000000,inat/train/x.jpg\noven_05000000,../secret.jpg\n"
    )
    rows, rejects = converted("oven", tmp_path, images=tmp_path)
    assert [row["entity"] for _, row in rows] == ["Big Ben"]
    assert "the path ../secret.jpg leaves its folder" in reasons(rejects)


def test_entity_images_become_questions_for_their_names(tmp_path):
    for name in ("heron/a.png", "heron/b.png", "owl/c.png"):
        picture(tmp_path / name)
    (tmp_path / "owl" / "d.png").write_bytes(b"broken")
    rows, rejects = converted("naming", tmp_path, entity_names=EntityNames({"owl": "barn owl"}))
    assert [row["conversations"][1]["value"] for _, row in rows] == ["heron", "heron", "barn owl"]
    assert len({row["conversations"][0]["value"] for _, row in rows}) == 3
    assert len(rejects) == 1
    assert len(converted("naming", tmp_path, images_per_entity=1)[0]) == 2


def test_objects_of_arrays_are_read_element_by_element(tmp_path, monkeypatch):
    monkeypatch.setattr("priorkit.data.io.json_array.PIECE_BYTES", 7)
    value = {
        "info": {"a": [1, {"b": "]"}]},
        "x": [1, 22, "3,"],
        "n": 12.5,
        "empty": [],
        "y": [{"k": [1]}],
        "z": None,
    }
    path = write(tmp_path / "o.json", value)
    assert list(object_elements(path, ("x", "y", "empty"))) == [
        ("x", 1),
        ("x", 22),
        ("x", "3,"),
        ("y", {"k": [1]}),
    ]
    assert list(object_elements(write(path, {}), ("x",))) == []
    for text in ('{"x": [1, 2', '{"x" [1]}', '{"x": [1] "y": 2}', '{"x": [1],', "[1]", '{"x": 5}'):
        path.write_text(text)
        with pytest.raises(InputError):
            list(object_elements(path, ("x",)))


def test_every_layout_has_a_converter():
    assert all(callable(converter(name)) for name in LAYOUTS)
