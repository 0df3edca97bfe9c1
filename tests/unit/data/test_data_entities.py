from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from priorkit.core.errors import InputError
from priorkit.data.entities import candidates, check_names, fold, read_entities, read_names
from priorkit.data.rejects import Rejects


def png(color: str = "red") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), color).save(stream, "PNG")
    return stream.getvalue()


def folder(root: Path, **entities: int) -> Path:
    for name, count in entities.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number}.png").write_bytes(png())
    return root


def test_a_folder_per_entity(tmp_path: Path) -> None:
    found = read_entities(folder(tmp_path, heron=2, egret=1), Rejects(0))
    assert found.entities == ("egret", "heron")
    assert [ref.name for ref in found.images] == ["egret/0.png", "heron/0.png", "heron/1.png"]
    assert found.entity_of == (0, 1, 1)


def test_entities_without_images_and_broken_images_are_counted(tmp_path: Path) -> None:
    folder(tmp_path, heron=8, empty=0)
    (tmp_path / "heron" / "x.png").write_bytes(png()[:20])
    rejects = Rejects(0.5)
    found = read_entities(tmp_path, rejects)
    assert found.entities == ("heron",)
    reasons = [str(row["reason"]) for row in rejects.rows]
    assert any("'empty' has no images" in reason for reason in reasons)
    assert any("heron/x.png" in reason for reason in reasons)
    with pytest.raises(InputError, match="2 of 10 rows are broken"):
        read_entities(tmp_path, Rejects(0.1))


def test_metadata_names_the_entities(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    rows = [
        {"file_name": "a.png", "label": "heron"},
        {"file_name": "a.png"},
        {"file_name": "b.png", "text": "x"},
    ]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rejects = Rejects(1)
    assert read_entities(tmp_path, rejects).entities == ("heron",)
    assert len(rejects) == 2


def test_parquet_with_class_labels(tmp_path: Path) -> None:
    table = pa.table({"image": [{"bytes": png(), "path": None}] * 3, "label": [1, 0, 7]})
    features = {"info": {"features": {"label": {"names": ["egret", "heron"], "_type": "ClassLabel"}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, tmp_path / "x.parquet")
    rejects = Rejects(1)
    found = read_entities(tmp_path / "x.parquet", rejects)
    assert found.entities == ("egret", "heron")
    assert "'label' is no name: 7" in str(rejects.rows[0]["reason"])


def test_parquet_without_names_is_told(tmp_path: Path) -> None:
    pq.write_table(pa.table({"imag": [b"x"], "label": ["y"]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="expected image and one of"):
        read_entities(tmp_path / "x.parquet", Rejects(0))


def test_no_images_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no entity images here"):
        read_entities(tmp_path, Rejects(0))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Heron", "heron"),
        ("cafe\u0301", "caf\u00e9"),
        ("\ufb01n", "fin"),
        ("a  b", "a b"),
        ("STRASSE", "straße"),
    ],
)
def test_one_name_in_two_spellings_is_refused(one: str, other: str) -> None:
    assert fold(one) == fold(other)
    with pytest.raises(InputError, match="one name but for case or Unicode form"):
        check_names([one, other], "here")


def test_candidates_come_after_the_entities_without_repeats() -> None:
    assert candidates(("b", "a"), ["A", "c", "C", "d", "c"]) == ("b", "a", "c", "d")


def test_names_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text(" a \n\nb\n")
    assert read_names(path) == ["a", "b"]
    path.write_text("\n")
    with pytest.raises(InputError, match="holds no names"):
        read_names(path)
    path.write_bytes(b"\xff")
    with pytest.raises(InputError, match="not UTF-8"):
        read_names(path)
