"""Reading of regions: every form that data sets have, and what is refused."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from priorkit.core.errors import InputError
from priorkit.data.images.decoding import ImageRef
from priorkit.data.images.masks import RunLengths
from priorkit.data.images.regions import ImageRegion, read_regions
from priorkit.data.io.rejects import Rejects
from priorkit.data.pairs.reading import check_regions, read_pairs


def png(width: int = 40, height: int = 20) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (9, 200, 30)).save(stream, "PNG")
    return stream.getvalue()


IMAGE = ImageRef("x", content=png())
EGRET = ImageRegion("an egret", (0.25, 0.1, 0.75, 0.6))


@pytest.mark.parametrize(
    "row",
    [
        {"regions": [{"text": " an egret ", "box": [0.25, 0.1, 0.75, 0.6]}]},
        {"regions": [{"phrase": "an egret", "x": 10, "y": 2, "width": 20, "height": 10}]},
        {"objects": {"bbox": [[10, 2, 20, 10]], "category": ["an egret"], "area": [200]}},
        {"objects": [{"bbox": [10.0, 2.0, 20.0, 10.0], "category": 1, "mask": None}]},
        {"objects": [{"bbox": [20, 20, 40, 100], "label": "an egret"}], "width": 80, "height": 200},
        {"noun_chunks": [[6, 14, 0.25, 0.1, 0.75, 0.6, 0.99]], "ref_exps": [[0, 5, 0, 0, 1, 1, 0.9]]},
        {"noun_chunks": None, "ref_exps": [[6.0, 14.0, 0.25, 0.1, 0.75, 0.6, 0.99]]},
    ],
)
def test_every_form_of_a_region_is_read(row: dict[str, Any]) -> None:
    names = {("objects", "category"): ["a heron", "an egret"]}
    found = read_regions(row, IMAGE, "Here: an egret.", lambda *key: names.get(key, []))
    assert [region.text for region in found] == ["an egret"]
    assert found[0].box == pytest.approx(EGRET.box)
    assert found[0].mask is None


def test_rows_without_regions_are_fine() -> None:
    for row in ({}, {"regions": None}, {"regions": []}, {"objects": {"bbox": [], "category": []}}):
        assert read_regions(row, IMAGE, "x") == ()
    assert read_regions({"objects": {"bbox": None, "category": None}}, IMAGE, "x") == ()


def test_masks_give_a_box_and_stay_exact() -> None:
    mask = np.zeros((20, 40), dtype=bool)
    mask[2:12, 10:30] = True
    mask[3, 12] = False
    runs = RunLengths.encode(mask)
    rle = {"size": [20, 40], "counts": runs.counts.tolist()}
    (found,) = read_regions({"regions": [{"text": "an egret", "mask": rle}]}, IMAGE, "")
    assert found.box == pytest.approx(EGRET.box)
    assert found.mask == runs
    assert np.array_equal(runs.decode(), mask)
    polygon = [[10, 2, 30, 2, 30, 12, 10, 12]]
    (found,) = read_regions({"objects": {"segmentation": [polygon], "category": ["an egret"]}}, IMAGE, "")
    assert found.box == pytest.approx(EGRET.box)
    (boxed,) = read_regions({"regions": [{"text": "a", "box": [0, 0, 1, 1], "mask": rle}]}, IMAGE, "")
    assert boxed.box == (0, 0, 1, 1)
    assert boxed.mask == runs


@pytest.mark.parametrize("start", [True, False])
def test_run_lengths_round_trip(start: bool) -> None:
    for mask in (np.full((3, 2), start), np.eye(4, dtype=bool) ^ start):
        runs = RunLengths.encode(mask)
        assert np.array_equal(runs.decode(), mask)
        assert not runs.counts[0] or not mask[0, 0]


BOX = [0.1, 0.1, 0.5, 0.5]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"regions": "a heron"}, "'regions' is a text, not a list"),
        ({"regions": 3}, "'regions' is a number"),
        ({"regions": ["a heron"]}, "region 1: expected a structure"),
        ({"regions": [{"text": "a", "box": BOX}, None]}, "region 2: expected a structure"),
        ({"regions": [{"box": BOX}]}, "no text or category; got box"),
        ({"regions": [{}]}, "got nothing"),
        ({"regions": [{"text": "  ", "box": BOX}]}, "its text is empty"),
        ({"regions": [{"text": 3, "box": BOX}]}, "the file names no classes"),
        ({"regions": [{"text": True, "box": BOX}]}, "its text is a boolean"),
        ({"regions": [{"text": ["a"], "box": BOX}]}, "its text is a list"),
        ({"regions": [{"text": "\ud800", "box": BOX}]}, "not valid Unicode"),
        ({"regions": [{"text": "a"}]}, "neither box, bbox nor mask; got text"),
        ({"regions": [{"text": "a", "box": [0.5, 0.1, 0.5, 0.5]}]}, "no area"),
        ({"regions": [{"text": "a", "box": [0.6, 0.1, 0.5, 0.5]}]}, "reversed corners"),
        ({"regions": [{"text": "a", "box": [0.1, 0.1, 0.5, 1.1]}]}, r"leaves \[0, 1\]"),
        ({"regions": [{"text": "a", "box": [10, 2, 30, 12]}]}, r"leaves \[0, 1\]"),
        ({"regions": [{"text": "a", "box": [0.1, 0.1, 0.5]}]}, "four numbers"),
        ({"regions": [{"text": "a", "box": "0.1,0.1,0.5,0.5"}]}, "four numbers"),
        ({"regions": [{"text": "a", "box": [0.1, 0.1, 0.5, float("nan")]}]}, "finite"),
        ({"regions": [{"text": "a", "box": [0.1, 0.1, 0.5, 10**400]}]}, "four numbers"),
        ({"regions": [{"text": "a", "box": [False, False, True, True]}]}, "four numbers"),
        ({"regions": [{"text": "a", "bbox": [10, 2, 40, 12]}]}, "leaves the image of 40 x 20"),
        ({"regions": [{"text": "a", "bbox": [1, 2, 4, 4]}], "width": 0, "height": 9}, "image size is 0 x 9"),
        ({"regions": [{"text": "a", "bbox": [1, 2, 4, 4]}], "width": "w", "height": 9}, "image size is w x 9"),
        ({"objects": {"bbox": [[1, 2, 4, 4]], "category": ["a", "b"]}}, "lists of one length"),
        ({"objects": {"bbox": 3}}, "lists of one length, got none"),
        ({"objects": [{"bbox": [1, 2, 4, 4], "category": 7}]}, "'category' is 7, and there are 2 names"),
        ({"objects": [{"bbox": [1, 2, 4, 4], "category": -1}]}, "'category' is -1"),
        ({"noun_chunks": [[0, 99, 0, 0, 1, 1]]}, "characters 0 to 99 are not in the caption"),
        ({"noun_chunks": [[2, 2, 0, 0, 1, 1]]}, "not in the caption"),
        ({"noun_chunks": [[0, 1, 0, 0]]}, "expected start, end"),
        ({"ref_exps": [[0, 1, 0, 0, 0, 1]]}, "no area"),
        ({"regions": [{"text": "a", "mask": {"size": [20, 40], "counts": [800]}}]}, "mask is empty"),
        ({"regions": [{"text": "a", "mask": {"size": [40, 20], "counts": [0, 800]}}]}, "have size"),
        ({"regions": [{"text": "a", "mask": {"size": [20, 40], "counts": [0, 10**12]}}]}, "add up to"),
        ({"regions": [{"text": "a", "mask": [[0, 0, 900, 0, 900, 9]]}]}, "beyond the image's width"),
        ({"regions": [{"text": "a", "mask": [[0, 0, 10**400, 0, 9, 9]]}]}, "finite numbers"),
        ({"regions": [{"text": "a", "mask": "png"}]}, "list of polygons or run lengths"),
        (
            {"regions": [{"text": "a", "mask": [[0, 0, 5, 0, 5, 9]]}], "width": 10**6, "height": 10**6},
            "exceed the limit",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_region_is_said(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_regions(row, IMAGE, "a heron", lambda *key: ["a heron", "b"] if key[0] == "objects" else [])


def table(folder: Path, regions: list[Any]) -> Path:
    images = [{"bytes": png(), "path": None}] * len(regions)
    rows = {"image": images, "text": [f"t{place}" for place in range(len(regions))], "regions": regions}
    pq.write_table(pa.table(rows), folder / "pairs.parquet")
    return folder / "pairs.parquet"


def test_broken_regions_reject_their_row_by_file_row_and_reason(tmp_path: Path) -> None:
    good = [{"text": "an egret", "box": list(EGRET.box)}]
    file = table(tmp_path, [good, [{"text": "a", "box": [0.5, 0, 0.1, 1]}], [], None, good])
    rejects = Rejects(0.5)
    pairs = read_pairs(file, rejects, with_regions=True)
    assert tuple(pairs.texts) == ("t0", "t2", "t3", "t4")
    assert tuple(pairs.regions) == ((EGRET,), (), (), (EGRET,))
    assert [(row["file"], row["row"]) for row in rejects.rows] == [(str(file), 2)]
    assert "region 1" in str(rejects.rows[0]["reason"])
    plain = read_pairs(file, Rejects(0.0))
    assert len(plain) == 5
    assert tuple(plain.regions) == ()


def test_names_of_classes_come_from_the_tables_schema(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    label = datasets.ClassLabel(names=["a heron", "an egret"])
    for place, objects in enumerate(
        (
            datasets.Sequence({"bbox": datasets.Sequence(datasets.Value("float32"), 4), "category": label}),
            [{"bbox": datasets.Sequence(datasets.Value("float32"), 4), "category": label}],
            {"bbox": datasets.Sequence(datasets.Sequence(datasets.Value("float32"), 4)), "category": datasets.Sequence(label)},
        )
    ):  # fmt: skip
        listed = isinstance(objects, list) or type(objects).__name__ == "List"
        entries: Any = {"bbox": [[10, 2, 20, 10]], "category": [1]}
        if listed:
            entries = [{"bbox": [10, 2, 20, 10], "category": 1}]
        features = datasets.Features(
            {"image": datasets.Image(), "text": datasets.Value("string"), "objects": objects}
        )
        rows = {"image": [{"bytes": png(), "path": None}], "text": ["t"], "objects": [entries]}
        file = tmp_path / f"{place}.parquet"
        datasets.Dataset.from_dict(rows, features=features).to_parquet(file)
        (regions,) = read_pairs(file, Rejects(0.0), with_regions=True).regions
        assert [region.text for region in regions] == ["an egret"]
        assert regions[0].box == pytest.approx(EGRET.box)


def test_json_lines_and_shards_hold_the_same_fields(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    row = {"caption": "Here: an egret.", "noun_chunks": [[6, 14, *EGRET.box, 0.9]]}
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"image": "a.png", **row}) + "\n")
    assert tuple(read_pairs(tmp_path / "pairs.jsonl", Rejects(0.0), with_regions=True).regions) == ((EGRET,),)
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        members = {
            "a.png": png(), "a.txt": b" Here: an egret.", "a.json": json.dumps(row).encode(),
            "b.png": png(), "b.txt": b"no regions",
            "c.png": png(), "c.txt": b"c", "c.json": b'{"regions": [{"text": "", "box": [0, 0, 1, 1]}]}',
            "d.png": png(), "d.txt": b"d", "d.json": b"{",
        }  # fmt: skip
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    rejects = Rejects(0.9)
    pairs = read_pairs(tmp_path / "0.tar", rejects, with_regions=True)
    assert tuple(pairs.regions) == ((EGRET,), ())
    assert [row["row"] for row in rejects.rows] == [3, 4]
    assert "its text is empty" in str(rejects.rows[0]["reason"])


def test_pairs_without_any_region_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no row has a region"):
        check_regions(table(tmp_path, [[], None]))
    with pytest.raises(InputError, match=r"pairs.parquet:1: 'regions', region 1: its text is empty"):
        check_regions(table(tmp_path, [[{"text": "", "box": [0.0, 0, 1, 1]}]]))
    check_regions(table(tmp_path, [None, [{"text": "a", "box": [0.0, 0, 1, 1]}]]))
