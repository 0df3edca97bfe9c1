"""``priorkit convert-data``: tables that other steps read, refused options, rejected rows, the example script."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

from priorkit.data.images.entities import read_entities
from priorkit.data.io.rejects import Rejects
from tests.support.small_artifacts import run_in_process as cli
from tests.unit.data.converters.test_converters import picture

ROOT = Path(__file__).parents[2]


def birds(folder: Path, count: int = 4) -> Path:
    names = [
        f"001.Grey_Heron/{number}.jpg" if number % 2 else f"002.Barn_Owl/{number}.jpg"
        for number in range(count)
    ]
    for number, name in enumerate(names):
        picture(folder / "images" / name, 10 * number)
    lines = {
        "classes.txt": ["1 001.Grey_Heron", "2 002.Barn_Owl"],
        "images.txt": [f"{number} {name}" for number, name in enumerate(names)],
        "image_class_labels.txt": [f"{number} {1 if number % 2 else 2}" for number in range(count)],
        "train_test_split.txt": [f"{number} {int(number < count // 2)}" for number in range(count)],
    }
    for name, content in lines.items():
        (folder / name).write_text("\n".join(content) + "\n")
    return folder


def test_entity_images_are_tables_that_rank_e_reads(tmp_path):
    result = cli("convert-data", birds(tmp_path / "cub"), "--format", "cub", "--out", tmp_path / "out")
    assert result.code == 0, result.err
    manifest = json.loads((tmp_path / "out" / "priorkit.json").read_text())
    assert (manifest["kind"], manifest["metrics"]["rows"]) == ("entity-images", {"test": 2, "train": 2})
    entities = read_entities(tmp_path / "out" / "test.parquet", Rejects(0))
    assert (entities.entities, len(entities.images)) == (("Barn Owl", "Grey Heron"), 2)
    assert cli("convert-data", tmp_path / "cub", "--format", "cub", "--out", tmp_path / "out").err.endswith(
        "up to date\n"
    )
    result = cli("rank-e", Path(__file__).parents[1] / "golden/tiny-clip", tmp_path / "out", "--split", "test", "--device",
                 "cpu", "--out", tmp_path / "ranks")  # fmt: skip
    assert result.code == 0, result.err


def test_large_tables_are_written_in_batches(tmp_path, monkeypatch):
    monkeypatch.setattr("priorkit.data.converters.writing.BATCH_ROWS", 3)
    result = cli("convert-data", birds(tmp_path / "cub", 16), "--format", "cub", "--out", tmp_path / "out")
    assert result.code == 0, result.err
    file = pq.ParquetFile(tmp_path / "out" / "train.parquet")
    assert (file.metadata.num_rows, file.metadata.num_row_groups) == (8, 3)


def test_options_without_effect_and_empty_results_are_refused(tmp_path):
    source = birds(tmp_path / "cub")

    def refused(*arguments):
        result = cli("convert-data", source, *arguments, "--out", tmp_path / "out")
        return result.code, result.err

    code, message = refused("--format", "cub", "--names", "scientific")
    assert (code, "--names: has no effect on the layout cub" in message) == (2, True)
    code, message = refused("--format", "cub", "--split", "val")
    assert (code, "no row of the split 'val' can be used" in message) == (3, True)
    assert refused("--format", "cub", "--images", tmp_path / "none")[0] == 3
    assert refused("--format", "refcoco")[0] == 3
    (source / "images" / "001.Grey_Heron" / "1.jpg").unlink()
    code, message = refused("--format", "cub")
    assert (code, "1 of 4 rows are broken" in message) == (3, True)
    assert refused("--format", "cub", "--reject-limit", "0.5")[0] == 0
    rejected = json.loads((tmp_path / "out" / "rejects.jsonl").read_text())
    assert rejected["reason"] == "the image 001.Grey_Heron/1.jpg is missing"


def test_the_example_script_makes_instructions(tmp_path):
    for name in ("heron/a.png", "owl/b.png"):
        picture(tmp_path / "images" / name)
    script = ROOT / "examples" / "naming_instructions.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "images"), str(tmp_path / "new" / "naming.parquet")],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(tmp_path / "new" / "naming.parquet").to_pylist()
    assert [row["conversations"][1]["value"] for row in rows] == ["heron", "owl"]
    assert Image.open(tmp_path / "images" / "heron" / "a.png").size == (40, 30)
