"""``priorkit report`` as its users meet it: one page from real artifacts, and its refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from priorkit.core import artifact


@pytest.fixture(scope="module")
def reported(cli, artifacts, tmp_path_factory):
    """A report on the small artifacts and the encoder's answers."""
    root = tmp_path_factory.mktemp("report")
    naming = artifacts.world / "benchmarks" / "naming.parquet"
    done = cli(
        "evaluate",
        artifacts.encoder,
        naming,
        "--resamples",
        100,
        "--device",
        "cpu",
        "--out",
        root / "answers",
    )
    assert done.code == 0, done.err
    assert (
        cli("correlate", artifacts.scores, done.path, "--resamples", 100, "--out", root / "correlation").code
        == 0
    )
    found = cli(
        "report", f"ranks={artifacts.scores}", done.path, root / "correlation", artifacts.mllm, "--title", "Small & <quick>",
        "--resamples", 100, "--out", root / "page",
    )  # fmt: skip
    assert found.code == 0, found.err
    return found


def test_the_page_shows_its_inputs_and_their_inputs(reported) -> None:
    manifest = artifact.open_artifact(reported.path).manifest
    assert manifest.kind == "report"
    assert manifest.metrics["sections"] == [
        *("findings", "rank-e", "accuracy", "correlation", "examples", "lineage", "mixtures", "training"),
        *("cost", "provenance"),
    ]
    # What they were made from: the world, the encoder, the language model, its corpus and tokenizer.
    assert manifest.metrics["found_behind_them"] == 5
    text = (reported.path / "report.html").read_text(encoding="utf-8")
    assert "<h1>Small &amp; &lt;quick&gt;</h1>" in text
    for word in ("weak prior", "glyph-world", "pretrain-encoder", "Spearman"):
        assert word in text
    assert "http://" not in text.replace("http://www.w3.org/", "")
    assert "https://" not in text


def test_the_page_opens_with_what_was_found(reported) -> None:
    text = (reported.path / "report.html").read_text(encoding="utf-8")
    opening = text[text.index('<section id="findings">') : text.index('<section id="summary">')]
    assert 2 <= opening.count("<li>") <= 4
    assert "right (" in opening
    assert "Rank_e in ranks is" in opening
    assert 'href="#rank-e"' in opening


def test_the_headline_is_printed_only_on_standard_error(reported) -> None:
    assert reported.out.count("\n") == 1
    assert "Rank_e in ranks is" in reported.err
    for word in ("Rank_e on", "strong prior", "Accuracy", "naming", "Spearman"):
        assert word in reported.err


def test_plots_and_tables_are_next_to_the_page(reported) -> None:
    plots = {file.name for file in (reported.path / "plots").iterdir()}
    assert {"rank-distribution.svg", "rank-distribution.png", "loss.svg", "mixtures.svg"} <= plots
    lines = (reported.path / "tables" / "rank-e.csv").read_text().splitlines()
    assert lines[0] == "group,entities,ranks,ranks low,ranks high"
    assert [line.split(",")[0] for line in lines[1:]] == ["all", "strong prior", "weak prior", "no prior"]


def test_it_quiets_down_and_speaks_json(cli, artifacts, tmp_path: Path) -> None:
    found = cli("report", artifacts.corpus, "--quiet", "--json", "--out", tmp_path / "page")
    assert (found.code, found.err) == (0, "")
    assert json.loads(found.out)["kind"] == "report"


def test_what_does_not_fit_is_refused(cli, artifacts, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    out = ("--out", tmp_path / "out" / "page")
    found = cli("report", artifacts.scores, tmp_path / "notes", tmp_path / "gone", *out)
    assert found.code == 3
    assert "no such file or directory" in found.err
    plain = cli("report", artifacts.scores, tmp_path / "notes", *out)
    assert plain.code == 3
    assert "not an artifact" in plain.err
    part = cli("report", artifacts.world / "benchmarks", *out)
    assert part.code == 3
    assert "not an artifact" in part.err
    twice = cli("report", f"a={artifacts.scores}", f"a={artifacts.corpus}", *out)
    assert twice.code == 2
    assert "given twice" in twice.err
    column = cli("report", artifacts.scores, "--entities", artifacts.scores / "table.parquet", *out)
    assert column.code == 3
    assert "no column 'prior'" in column.err
    assert not (tmp_path / "out").exists()


def test_a_damaged_artifact_is_refused(cli, artifacts, tmp_path: Path) -> None:
    copy = tmp_path / "ranks"
    shutil.copytree(artifacts.scores, copy)
    (copy / "table.parquet").write_bytes(b"PAR1")
    found = cli("report", copy, "--out", tmp_path / "page")
    assert found.code == 3
    assert "table.parquet" in found.err
    assert not (tmp_path / "page").exists()
