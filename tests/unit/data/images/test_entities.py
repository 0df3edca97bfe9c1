from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from priorkit.core.errors import InputError
from priorkit.data.columns import RowLayout
from priorkit.data.images.entities import (
    candidate_names,
    check_names,
    folded_name,
    read_entities,
    read_names,
    with_known_spelling,
)
from priorkit.data.images.entity_sources import EntityLayout
from priorkit.data.io.rejects import Rejects


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
    assert found.without == ("empty",)
    assert ["heron/x.png" in str(row["reason"]) for row in rejects.rows] == [True]
    with pytest.raises(InputError, match="1 of 9 rows are broken"):
        read_entities(tmp_path, Rejects(0.1))


def test_rows_can_be_kept_and_entities_without_images_are_known(tmp_path: Path) -> None:
    found = read_entities(folder(tmp_path, heron=2, egret=1, ibis=1, none=0), Rejects(0), verify=False)
    assert found.shown == ["egret", "heron", "heron", "ibis"]
    kept = found.keep([0, 2])
    assert (kept.entities, kept.entity_of, kept.without) == (("egret", "heron"), (0, 1), ("ibis", "none"))
    assert [ref.name for ref in kept.images] == ["egret/0.png", "heron/1.png"]


def test_an_empty_folder_spelt_like_another_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, heron=1, Heron=0)
    with pytest.raises(InputError, match="differ only in case"):
        read_entities(tmp_path, Rejects(0))


def test_names_of_a_second_source_take_the_spelling_of_the_first(tmp_path: Path) -> None:
    found = read_entities(folder(tmp_path, Heron=2, egret=1), Rejects(0))
    assert found.entities == ("Heron", "egret")
    same = with_known_spelling(found, ["heron", "ibis"])
    assert (same.entities, same.entity_of) == (("egret", "heron"), (0, 1, 1))
    assert [ref.name for ref in same.images] == ["egret/0.png", "Heron/0.png", "Heron/1.png"]
    assert with_known_spelling(found, ["Heron"]) is found


def test_a_data_set_of_the_hub_keeps_its_files_one_folder_down(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    table = pa.table({"image": [{"bytes": png(), "path": None}], "label": ["heron"]})
    pq.write_table(table, tmp_path / "data" / "test-00000-of-00001.parquet")
    assert read_entities(tmp_path, Rejects(0)).entities == ("heron",)


def test_metadata_names_the_entities(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    rows = [
        {"file_name": "a.png", "label": "heron"},
        {"file_name": "a.png"},
        {"file_name": "b.png", "text": "x"},
        {"file_name": "a.png", "entity": " ", "label": "heron"},
    ]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rejects = Rejects(1)
    found = read_entities(tmp_path, rejects)
    assert (found.entities, found.without, found.named) == (("heron",), ("x",), ("heron", "x"))
    assert len(rejects) == 3
    assert rejects.rows[2]["reason"] == "'entity' is blank"


def test_hidden_folders_and_files_are_passed_over(tmp_path: Path) -> None:
    folder(tmp_path, heron=1)
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.parquet").write_bytes(b"no parquet")
    for name in ("heron/.ipynb_checkpoints/0-checkpoint.png", ".trash/1.png", "heron/._0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png())
    found = read_entities(tmp_path, Rejects(0))
    assert ([ref.name for ref in found.images], found.named) == (["heron/0.png"], ("heron",))


def test_parquet_with_class_labels(tmp_path: Path) -> None:
    table = pa.table({"image": [{"bytes": png(), "path": None}] * 3, "label": [1, 0, 7]})
    features = {"info": {"features": {"label": {"names": ["egret", "heron", "ibis"], "_type": "ClassLabel"}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, tmp_path / "x.parquet")
    rejects = Rejects(1)
    found = read_entities(tmp_path / "x.parquet", rejects)
    assert (found.entities, found.without) == (("egret", "heron"), ("ibis",))
    assert "'label' is not a name: 7" in str(rejects.rows[0]["reason"])


def test_parquet_without_names_is_reported(tmp_path: Path) -> None:
    pq.write_table(pa.table({"imag": [b"x"], "label": ["y"]}), tmp_path / "x.parquet")
    with pytest.raises(
        InputError, match=r"no column of the image .*; the columns are imag, label\n.*--image-column imag"
    ):
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
    assert folded_name(one) == folded_name(other)
    with pytest.raises(InputError, match="differ only in case or Unicode form"):
        check_names([one, other], "here")


def test_candidates_come_after_the_entities_without_repeats() -> None:
    assert candidate_names(("b", "a"), ["A", "c", "C", "d", "c"]) == ("b", "a", "c", "d")


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


def test_names_from_tables(tmp_path: Path) -> None:
    lines = tmp_path / "names.jsonl"
    lines.write_text('{"entity": " heron "}\n{"entity": "egret"}\n')
    assert read_names(lines) == ["heron", "egret"]
    table = tmp_path / "names.parquet"
    pq.write_table(pa.table({"name": ["heron", "egret"], "x": [1, 2]}), table)
    assert read_names(table) == ["heron", "egret"]
    pq.write_table(pa.table({"x": [1, 2]}), table)
    with pytest.raises(InputError, match="columns x; expected one of entity"):
        read_names(table)
    lines.write_text('{"entity": "heron"}\n{"entity": null}\n')
    with pytest.raises(InputError, match=r"names\.jsonl:2: 'entity' is not a name: None"):
        read_names(lines)


def pictures(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png())


def test_metadata_may_be_csv_with_a_byte_order_mark_and_lie_in_a_split(tmp_path: Path) -> None:
    pictures(tmp_path, "train/a.png", "train/b.png")
    (tmp_path / "train" / "metadata.csv").write_text(
        "file_name,label\na.png,cat\nb.png,dog\n", encoding="utf-8-sig"
    )
    for root in (tmp_path, tmp_path / "train"):
        assert read_entities(root, Rejects(0)).entities == ("cat", "dog")


def test_splits_are_not_entities(tmp_path: Path) -> None:
    pictures(tmp_path, "train/cat/0.png", "train/dog/0.png")
    assert read_entities(tmp_path, Rejects(0)).entities == ("cat", "dog")
    pictures(tmp_path, "val/cat/0.png")
    with pytest.raises(
        InputError, match=r"several splits .*: train, val\n.*--split train, or name .*train or .*val"
    ):
        read_entities(tmp_path, Rejects(0))
    pictures(tmp_path, "car/0.png")
    assert read_entities(tmp_path, Rejects(0)).entities == ("car", "train", "val")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"file_name": "a.png", "label": 3}', "metadata.jsonl:1: 'label' is a number, not a name"),
        ('{"picture": "a.png", "label": "cat"}', "metadata.jsonl:1: no 'file_name'; got picture, label"),
        ('{"file_name": "b.png", "label": "cat"}', "metadata.jsonl:1: no such image: b.png"),
    ],
)
def test_the_reason_is_named_where_no_row_can_be_used(tmp_path: Path, row: str, reason: str) -> None:
    pictures(tmp_path, "a.png")
    (tmp_path / "metadata.jsonl").write_text(row + "\n")
    with pytest.raises(InputError) as caught:
        read_entities(tmp_path, Rejects(1.0))
    assert reason in str(caught.value)


def test_cifar_is_read_and_its_columns_can_be_named(tmp_path: Path) -> None:
    images = [{"bytes": png(), "path": None}, {"bytes": png(), "path": None}]
    columns = {"img": images, "fine_label": [1, 0], "coarse_label": [0, 0]}
    features = {"fine_label": {"names": ["cod", "eel"]}, "coarse_label": {"names": ["fish"]}}
    notes = {"huggingface": json.dumps({"info": {"features": features}})}
    for name in ("x.parquet", "x.arrow"):
        table = pa.table(columns).replace_schema_metadata(notes)
        if name == "x.parquet":
            pq.write_table(table, tmp_path / name)
        else:
            with pa.ipc.new_stream(str(tmp_path / name), table.schema) as writer:
                writer.write_table(table)
        assert read_entities(tmp_path / name, Rejects(0)).shown == ["cod", "eel"]
        coarse = EntityLayout(RowLayout(label=("coarse_label",)))
        assert read_entities(tmp_path / name, Rejects(0), layout=coarse).shown == ["fish", "fish"]
    wrong = EntityLayout(RowLayout(label=("coarse",)))
    with pytest.raises(InputError, match=r"img, fine_label, coarse_label\n.*--label-column coarse_label"):
        read_entities(tmp_path / "x.parquet", Rejects(0), layout=wrong)
