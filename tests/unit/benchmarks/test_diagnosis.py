"""The experiments of ``benchmarks/diagnosis.py`` on simulated worlds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from priorkit.analysis.diagnosis.measures import PLANTED
from priorkit.analysis.diagnosis.verdict_model import read_verdict_model
from priorkit.core.artifact import write_manifest
from tests.support.benchmarks import load_benchmark
from tests.support.diagnosis_worlds import stored_world


@pytest.fixture(scope="module")
def benchmark() -> Any:
    return load_benchmark("diagnosis")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("worlds")
    given = []
    for seed in (1, 2):
        _, causes = stored_world(root / str(seed), seed)
        write_manifest(
            root / str(seed), kind="scores", step="diagnose", settings={}, inputs=(), metrics={}, versions={},
            seed=seed, cost={},
        )  # fmt: skip
        columns = {
            column: [part not in parts for parts in causes.values()] for column, part in PLANTED.items()
        }
        pq.write_table(pa.table({"entity": list(causes), **columns}), root / f"entities-{seed}.parquet")
        given.append(f"{root / str(seed)}={root / f'entities-{seed}.parquet'}")
    return given


def test_verdicts_are_validated_across_worlds(
    benchmark: Any, worlds: list[str], tmp_path: Path, capsys
) -> None:
    out = tmp_path / "validation.json"
    assert benchmark.main(["validate", str(out), *worlds, "--resamples", "100"]) == 0
    found = json.loads(out.read_text())
    assert json.loads(capsys.readouterr().out) == found
    assert found["fitted"]["balanced_accuracy"]["value"] > 0.9


def test_a_model_is_fitted_with_its_recipe(benchmark: Any, worlds: list[str], tmp_path: Path) -> None:
    out = tmp_path / "model.json"
    assert benchmark.main(["fit", str(out), *worlds, "--resamples", "100"]) == 0
    model = read_verdict_model(out)
    assert len(model.recipe["diagnoses"]) == 2
    assert model.recipe["across_worlds"]["balanced_accuracy"]["value"] > 0.9


def test_gains_and_forecasts_are_written(benchmark: Any, worlds: list[str], tmp_path: Path) -> None:
    first, second = (text.partition("=")[0] for text in worlds)
    out = tmp_path / "gains.json"
    assert benchmark.main(["remedies", str(out), worlds[0], f"encoder={second}", "--resamples", "100"]) == 0
    one = json.loads(out.read_text())
    assert set(one["gains"]["encoder"]) == {"encoder"}
    both = [worlds[0], f"encoder={second}", worlds[1], f"encoder={first}"]
    assert benchmark.main(["remedies", str(out), *both, "--resamples", "100"]) == 0
    assert json.loads(out.read_text())["entities"] == 2 * one["entities"]
    assert benchmark.main(["remedies", str(out), f"encoder={second}"]) == 2
    assert benchmark.main(["forecast", str(out), first, second, "--resamples", "100"]) == 0
    assert set(json.loads(out.read_text())["mean_absolute_error"]) == {"evidence", "mean", "rank_e"}


def test_what_is_no_diagnosis_exits_as_priorkit_does(benchmark: Any, tmp_path: Path, capsys) -> None:
    assert benchmark.main(["validate", str(tmp_path / "out.json"), f"{tmp_path}=entities.parquet"]) == 3
    assert "no table.parquet" in capsys.readouterr().err
    assert benchmark.main(["validate", str(tmp_path / "out.json"), "diagnosis"]) == 2


def test_entities_of_a_cause_are_listed(benchmark: Any, worlds: list[str], tmp_path: Path, capsys) -> None:
    model, out = tmp_path / "model.json", tmp_path / "encoder.txt"
    assert benchmark.main(["fit", str(model), worlds[1], "--resamples", "100"]) == 0
    diagnosis = worlds[0].partition("=")[0]
    given = ["entities", str(out)]
    assert benchmark.main([*given, f"{diagnosis}=encoder", "--verdict-model", str(model)]) == 0
    causes = pq.read_table(worlds[0].partition("=")[2]).to_pylist()
    planted = {row["entity"]: {part for column, part in PLANTED.items() if not row[column]} for row in causes}
    names = out.read_text().splitlines()
    assert len(names) > 10
    assert sum("encoder" in planted[name] for name in names) / len(names) > 0.9
    capsys.readouterr()
    stored = pq.read_table(Path(diagnosis) / "table.parquet").to_pydict()
    cause = stored["verdict"][0]
    assert benchmark.main([*given, f"{diagnosis}={cause}"]) == 0
    assert out.read_text().splitlines() == [
        entity
        for entity, verdict in zip(stored["entity"], stored["verdict"], strict=True)
        if verdict == cause
    ]
    assert benchmark.main([*given, f"{diagnosis}=eyes"]) == 2
    assert "got 'eyes'" in capsys.readouterr().err


def test_a_cause_without_entities_gives_an_empty_list(
    benchmark: Any, worlds: list[str], tmp_path: Path
) -> None:
    table = pq.read_table(Path(worlds[0].partition("=")[0]) / "table.parquet")
    same = table.set_column(table.column_names.index("verdict"), "verdict", [["none"] * len(table)])
    pq.write_table(same, tmp_path / "table.parquet")
    out = tmp_path / "out.txt"
    assert benchmark.main(["entities", str(out), f"{tmp_path}=encoder"]) == 0
    assert out.read_text() == ""
