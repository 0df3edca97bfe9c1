"""``priorkit correlate`` as its users meet it: real ranks, real evaluations, its files and its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from priorkit.analysis.correlation_result import TENSORS
from priorkit.core import artifact
from priorkit.scoring.representations.rank_summary import SIGN_CONVENTION

SMALL = ("--bins", 3, "--resamples", 100)


@pytest.fixture(scope="module")
def evaluations(cli, artifacts, tmp_path_factory):
    """The encoder's own answers to the naming questions, all of them and with another template."""
    root = tmp_path_factory.mktemp("evaluations")
    naming = artifacts.world / "benchmarks" / "naming.parquet"
    for name, template in (("plain", "{}"), ("photo", "a photo of a {}")):
        done = cli(
            "evaluate", artifacts.encoder, naming, "--template", template, "--resamples", 100, "--device", "cpu",
            "--out", root / name,
        )  # fmt: skip
        assert done.code == 0, done.err
    return root


@pytest.fixture(scope="module")
def correlated(cli, artifacts, evaluations, tmp_path_factory):
    """Two arms with both controls."""
    found = cli(
        "correlate", artifacts.scores, evaluations / "plain", f"other={evaluations / 'photo'}", *SMALL,
        "--blind-evaluation", evaluations / "photo", "--entities", artifacts.world / "entities.parquet",
        "--out", tmp_path_factory.mktemp("correlated") / "out",
    )  # fmt: skip
    assert found.code == 0, found.err
    return found


def test_the_sign_convention_is_on_every_output(correlated) -> None:
    out = correlated.path
    assert SIGN_CONVENTION in correlated.err
    content = json.loads((out / "correlation.json").read_text())
    assert content["sign"] == SIGN_CONVENTION
    assert artifact.open_artifact(out).manifest.metrics["sign"] == SIGN_CONVENTION
    for name in ("scatter.svg", "bins.svg"):
        text = " ".join((out / name).read_text().replace("</text>", " ").split())
        assert "low mean rank is a strong prior" in text
    assert (out / "scatter.png").read_bytes().startswith(b"\x89PNG")
    for name in ("table.parquet", "bins.parquet"):
        assert pq.read_schema(out / name).metadata[b"sign"].decode() == SIGN_CONVENTION
    with safe_open(out / "scores.safetensors", "np") as tensors:
        assert tensors.metadata() == {"sign": SIGN_CONVENTION}


def test_models_are_compared_in_pairs(correlated) -> None:
    content = json.loads((correlated.path / "correlation.json").read_text())
    table = pq.read_table(correlated.path / "table.parquet").to_pydict()
    (found,) = content["comparisons"]
    assert (found["first"], found["second"]) == ("plain", "other")
    difference = np.array(table["accuracy.other"]) - np.array(table["accuracy.plain"])
    assert found["overall"]["value"] == pytest.approx(difference.mean())
    assert len(found["bins"]) == 3
    means = [difference[np.array(table["bin"]) == number].mean() for number in range(3)]
    assert [part["value"] for part in found["bins"]] == pytest.approx(means)
    assert found["worst_minus_best"]["value"] == pytest.approx(means[2] - means[0])
    assert 0 < found["overall"]["p_value"] <= 1


def test_tensors_and_tables_agree(correlated, artifacts) -> None:
    out = correlated.path
    tensors = load_file(out / "scores.safetensors")
    table = pq.read_table(out / "table.parquet").to_pydict()
    content = json.loads((out / "correlation.json").read_text())
    assert set(tensors) == set(TENSORS) == set(content["tensors"])
    entities = len(table["entity"])
    assert table["entity"] == pq.read_table(artifacts.scores / "table.parquet")["entity"].to_pylist()
    assert tensors["accuracy"].shape == tensors["items"].shape == (2, entities)
    assert tensors["bin_accuracy"].shape == (2, 3, 3)
    assert tensors["rank_e"].tolist() == table["mean_rank"]
    assert tensors["accuracy"].tolist() == [table["accuracy.plain"], table["accuracy.other"]]
    found = content["evaluations"]["plain"]
    assert set(found["measures"]) == {
        "mean_rank", "percentile", "mean_log_rank", "mrr", "recall_at_1", "recall_at_5", "median_rank",
    }  # fmt: skip
    assert all(entry["kendall"]["low"] is not None for entry in found["measures"].values())
    assert set(found["partial"]) == {"blind accuracy", "frequency", "blind accuracy and frequency"}
    assert tensors["spearman"][0, 0] == found["measures"]["mean_rank"]["spearman"]["value"]
    bins = pq.read_table(out / "bins.parquet").to_pylist()
    assert [(row["evaluation"], row["bin"]) for row in bins] == [
        (e, b) for e in ("plain", "other") for b in range(3)
    ]
    assert sum(row["entities"] for row in bins) == 2 * entities
    assert [row["difference"] is None for row in bins] == [True] * 3 + [False] * 3
    for one, other in zip(bins[:3], bins[3:], strict=True):
        assert (one["low"], one["high"]) == (other["low"], other["high"])
        assert other["difference"] == pytest.approx(other["accuracy"] - one["accuracy"])
    ranks = np.array(table["mean_rank"])
    for number in range(3):
        chosen = ranks[np.array(table["bin"]) == number]
        assert (chosen.min(), chosen.max()) == (bins[number]["low"], bins[number]["high"])


def test_seeds_of_a_model_count_as_one(correlated, cli, artifacts, evaluations, tmp_path: Path) -> None:
    """With as many items in each, the accuracy of every entity is the mean of the two seeds' accuracies."""
    found = cli(
        "correlate", artifacts.scores, f"model@1={evaluations / 'plain'}", f"model@2={evaluations / 'photo'}",
        f"once@1={evaluations / 'plain'}", *SMALL, "--out", tmp_path / "out",
    )  # fmt: skip
    assert found.code == 0, found.err
    content = json.loads((found.path / "correlation.json").read_text())
    assert list(content["evaluations"]) == ["model", "once@1"]
    single = json.loads((correlated.path / "correlation.json").read_text())["evaluations"]
    assert content["evaluations"]["model"]["items"] == 2 * single["plain"]["items"]
    table = pq.read_table(found.path / "table.parquet").to_pydict()
    apart = pq.read_table(correlated.path / "table.parquet").to_pydict()
    means = (np.array(apart["accuracy.plain"]) + np.array(apart["accuracy.other"])) / 2
    assert table["accuracy.model"] == pytest.approx(means)


def test_the_same_inputs_give_the_same_bytes(cli, artifacts, evaluations, tmp_path: Path) -> None:
    command = ("correlate", artifacts.scores, evaluations / "plain", *SMALL, "--out")
    first, second = (cli(*command, tmp_path / name) for name in ("one", "two"))
    digests = [artifact.open_artifact(found.path).digest for found in (first, second)]
    assert digests[0] == digests[1]
    again = cli(*command, tmp_path / "one")
    assert "up to date" in again.err


def test_what_does_not_fit_is_refused(cli, artifacts, evaluations, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    plain = evaluations / "plain"
    swapped = cli("correlate", plain, artifacts.scores, *out)
    assert swapped.code == 3
    assert "expected scores, got an artifact of kind 'evaluation'" in swapped.err
    assert "expected evaluation, got an artifact of kind 'scores'" in swapped.err
    unknown = cli("correlate", artifacts.scores, plain, "--benchmark", "namming", *out)
    assert unknown.code == 3
    assert "did you mean 'naming'" in unknown.err
    column = cli(
        "correlate", artifacts.scores, plain, "--entities", artifacts.world / "entities.parquet",
        "--frequency-column", "pair", *out,
    )  # fmt: skip
    assert column.code == 3
    assert "did you mean 'pairs'" in column.err
    words = cli(
        "correlate", artifacts.scores, plain, "--entities", artifacts.world / "entities.parquet",
        "--frequency-column", "category", *out,
    )  # fmt: skip
    assert words.code == 3
    assert "the column 'category' holds no numbers" in words.err
    assert "--frequency-column" in words.err
    table = tmp_path / "t.csv"
    table.write_text("entity,pairs\nheron,True\nheron,\n")
    for check in ((), ("--check",)):
        cells = cli("correlate", artifacts.scores, plain, "--entities", table, *check, *out)
        assert cells.code == 3
        assert "t.csv, row 2 (line 3), column 'entity': 'heron' is there twice, first in row 1" in cells.err
    table.unlink()
    assert cli("correlate", artifacts.scores, *out).code == 2
    assert list(tmp_path.iterdir()) == []


def test_the_plan_is_printed_without_running(cli, artifacts, evaluations, tmp_path: Path) -> None:
    found = cli("correlate", artifacts.scores, evaluations / "plain", "--check", "--out", tmp_path / "out")
    assert found.code == 0
    assert "plain" in found.err
    assert list(tmp_path.iterdir()) == []
