"""``priorkit suggest-mix`` as its users meet it: from a table, from real evaluations, and its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tomli
from safetensors.numpy import load_file

from priorkit.analysis.mix_suggestion import TENSORS
from priorkit.core import artifact

GOLDEN = Path(__file__).parents[1] / "golden" / "lsbs"
SOURCES = "web-crawl,encyclopedia,academia,literature,math,code"
SMALL = ("--resamples", 60)


@pytest.fixture(scope="module")
def grid(cli, tmp_path_factory):
    """The paper's table 1: shares of labels, the remainder is a further component."""
    found = cli(
        "suggest-mix", "--table", GOLDEN / "grid.csv", "--shares", "reasoning,visual", "--remainder", "rest",
        "--score", "vision_accuracy", *SMALL, "--out", tmp_path_factory.mktemp("grid") / "out",
    )  # fmt: skip
    assert found.code == 0, found.err
    return found


def test_the_papers_grid_gives_its_vision_favourable_blend(grid) -> None:
    content = json.loads((grid.path / "suggestion.json").read_text())
    best = content["best"]["shares"]
    assert 0.55 <= best["reasoning"] <= 0.70
    assert 0.12 <= best["visual"] <= 0.22
    assert sum(best.values()) == pytest.approx(1)
    for name, (low, high) in content["best"]["shares_interval"].items():
        assert low <= high
        assert low - 0.05 <= best[name] <= high + 0.05
    score = content["best"]["score"]
    assert score["low"] <= score["value"] <= score["high"]
    assert 32.2 <= score["value"] <= 32.9
    quality = content["cross_validation"]
    assert set(quality) == {"quadratic", "gaussian-process"}
    assert content["surface"] == min(quality, key=lambda name: quality[name]["rmse"])
    assert content["goal"] == "maximise"


def test_its_files_agree_with_each_other(grid) -> None:
    tensors = load_file(grid.path / "scores.safetensors")
    assert set(tensors) == set(TENSORS)
    assert tensors["shares"].shape == (30, 3)
    assert tensors["optima"].shape == (60, 3)
    np.testing.assert_allclose(tensors["shares"].sum(1), 1)
    np.testing.assert_allclose(tensors["optima"].sum(1), 1)
    table = pq.read_table(grid.path / "table.parquet").to_pydict()
    assert {"mix", "share.reasoning", "share.rest", "score", "fitted", "left_out.quadratic"} <= set(table)
    np.testing.assert_array_equal(table["score"], tensors["scores"])
    for name in ("slices.png", "predictions.png"):
        assert (grid.path / name).read_bytes().startswith(b"\x89PNG")
    assert artifact.open_artifact(grid.path).kind == "scores"


def test_the_same_inputs_give_the_same_bytes(cli, grid, tmp_path: Path) -> None:
    again = cli(
        "suggest-mix", "--table", GOLDEN / "grid.csv", "--shares", "reasoning,visual", "--remainder", "rest",
        "--score", "vision_accuracy", *SMALL, "--out", tmp_path / "again",
    )  # fmt: skip
    assert artifact.open_artifact(again.path).digest == artifact.open_artifact(grid.path).digest


def test_recipes_of_labels_set_targets_and_recipes_of_sources_weights(
    cli, grid, artifacts, tmp_path: Path
) -> None:
    for name in ("best", "next"):
        found = tomli.loads((grid.path / f"{name}-mix.toml").read_text())
        assert set(found["mix"]["target"]) == {"reasoning", "visual"}
        assert cli("recipe", "check", grid.path / f"{name}-mix.toml").code == 0
    mixes = cli(
        "suggest-mix", "--table", GOLDEN / "mixes.csv", "--shares", SOURCES, "--score", "overall_rank",
        "--surface", "gaussian-process", *SMALL, "--out", tmp_path / "mixes",
    )  # fmt: skip
    assert mixes.code == 0, mixes.err
    content = json.loads((mixes.path / "suggestion.json").read_text())
    assert content["goal"] == "minimise", "a rank is the better the lower"
    assert content["best"]["score"]["value"] < 3
    recipe = mixes.path / "next-mix.toml"
    assert cli("recipe", "check", recipe).code == 0
    weights = tomli.loads(recipe.read_text())["mix"]["weight"]
    assert list(weights) == SOURCES.split(",")
    text = artifacts.world / "text"
    mixed = cli(
        "mix", *(f"{name}={text / 'facts.jsonl'}" for name in weights), "--tokenizer", artifacts.tokenizer,
        "--recipe", recipe, "--tokens", "4k", "--context-length", 32, "--max-epochs", 20, "--out", tmp_path / "corpus",
    )  # fmt: skip
    assert mixed.code == 0, mixed.err
    shares = json.loads((mixed.path / "corpus.json").read_text())["shares"]
    for name, weight in weights.items():
        assert shares[name] == pytest.approx(weight, abs=0.01)


def test_bounds_and_the_next_most_uncertain_mix(cli, tmp_path: Path) -> None:
    found = cli(
        "suggest-mix", "--table", GOLDEN / "mixes.csv", "--shares", SOURCES, "--score", "vision_accuracy",
        "--minimum", "web-crawl=0.35", "--maximum", "code=0.33", "--acquire", "variance", "--region", "simplex",
        "--surface", "quadratic", *SMALL, "--out", tmp_path / "out",
    )  # fmt: skip
    assert found.code == 0, found.err
    content = json.loads((found.path / "suggestion.json").read_text())
    for name in ("best", "next"):
        assert content[name]["shares"]["web-crawl"] >= 0.3499
        assert content[name]["shares"]["code"] <= 0.3301
    assert content["next"]["acquire"] == "variance"
    assert list(content["cross_validation"]) == ["quadratic"]


@pytest.fixture(scope="module")
def evaluations(cli, artifacts, tmp_path_factory) -> list[Path]:
    """Evaluations of four models that read different mixes of two sources; the last one read two corpora."""
    root = tmp_path_factory.mktemp("mixes")
    text = artifacts.world / "text"
    found: list[Path] = []
    previous: Path | None = None
    for number, share in enumerate((0.1, 0.4, 0.7, 0.9)):
        corpus = cli(
            "mix", f"facts={text / 'facts.jsonl'}", f"code={text / 'code.jsonl'}", "--tokenizer", artifacts.tokenizer,
            "--weight", f"facts={share},code={1 - share}", "--tokens", "2k", "--context-length", 32,
            "--max-epochs", 20, "--out", root / f"corpus-{number}",
        )  # fmt: skip
        assert corpus.code == 0, corpus.err
        start = ("--from", previous) if number == 3 else ("--preset", "pocket-tiny")
        llm = cli(
            "pretrain", corpus.path, *start, "--steps", 2, "--batch-size", 4, "--precision", "fp32",
            "--device", "cpu", "--out", root / f"llm-{number}",
        )  # fmt: skip
        assert llm.code == 0, llm.err
        previous = llm.path
        held_out = artifacts.world / "text" / "heldout" / "facts.jsonl"
        done = cli(
            "evaluate", llm.path, held_out, "--task", "perplexity", "--limit", 4, "--resamples", 100,
            "--device", "cpu", "--out", root / f"evaluation-{number}",
        )  # fmt: skip
        assert done.code == 0, done.err
        found.append(done.path)
    return found


def test_shares_are_found_behind_evaluations(cli, evaluations, tmp_path: Path) -> None:
    found = cli("suggest-mix", *evaluations, "--score", "facts", *SMALL, "--out", tmp_path / "out")
    assert found.code == 0, found.err
    table = pq.read_table(found.path / "table.parquet").to_pydict()
    assert table["mix"] == [path.name for path in evaluations]
    # The last model continued from the third and was trained on as many tokens again.
    np.testing.assert_allclose(table["share.facts"], [0.1, 0.4, 0.7, 0.8], atol=0.02)
    np.testing.assert_allclose(np.add(table["share.facts"], table["share.code"]), 1)
    content = json.loads((found.path / "suggestion.json").read_text())
    assert content["goal"] == "minimise", "a benchmark's name stands for its first metric, here of text"
    part = cli(
        "suggest-mix", *evaluations, "--score", "facts.perplexity", "--shares", "facts", "--remainder", "rest",
        *SMALL, "--out", tmp_path / "part",
    )  # fmt: skip
    assert part.code == 0, part.err
    other = pq.read_table(part.path / "table.parquet").to_pydict()
    np.testing.assert_allclose(other["share.rest"], table["share.code"], atol=1e-9)


def test_refusals(cli, artifacts, evaluations, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")

    def refused(code: int, *parts: str) -> None:
        assert found.code == code, found.err
        for part in parts:
            assert part in found.err, found.err
        assert "Traceback" not in found.err

    found = cli("suggest-mix", *out)
    refused(2, "give evaluations, or --table FILE")
    found = cli("suggest-mix", *evaluations, "--table", GOLDEN / "grid.csv", *out)
    refused(2, "not both")
    found = cli("suggest-mix", "--table", GOLDEN / "grid.csv", "--shares", "reasoning,visua", *out)
    refused(2, "--score is missing", "no column 'visua'", "did you mean 'visual'")
    found = cli(
        "suggest-mix",
        "--table",
        GOLDEN / "grid.csv",
        "--shares",
        "reasoning,visual",
        "--score",
        "visual",
        *out,
    )
    refused(3, "grid.csv, row 1 (line 2): the shares add up to 0.55", "--remainder")
    found = cli(
        "suggest-mix", "--table", GOLDEN / "mixes.csv", "--shares", "mix,code", "--score", "perplexity", *out
    )
    refused(3, "the column 'mix' holds no numbers")
    found = cli(
        "suggest-mix", "--table", GOLDEN / "mixes.csv", "--shares", SOURCES, "--score", "perplexity,vision_accuracy", *out
    )  # fmt: skip
    refused(2, "higher is better for some")
    found = cli(
        "suggest-mix", "--table", GOLDEN / "mixes.csv", "--shares", SOURCES, "--score", "perplexity",
        "--minimum", "cod=0.1", "--maximum", "math=2", *out,
    )  # fmt: skip
    refused(2, "no component 'cod'", "between 0 and 1, got 2")
    found = cli("suggest-mix", *evaluations[:3], "--score", "facts", *out)
    refused(3, "at least 4 mixes", "got 3")
    found = cli("suggest-mix", *evaluations, *out)
    refused(3, "no benchmark here has an accuracy")
    found = cli("suggest-mix", *evaluations, "--score", "facts.perplexit", *out)
    refused(3, "no score 'facts.perplexit'", "did you mean 'facts.perplexity'")
    few = tmp_path / "few.csv"
    few.write_text("a,b,y\n0.5,0.5,1\n0.4,,2\n")
    found = cli("suggest-mix", "--table", few, "--shares", "a,b", "--score", "y", *out)
    refused(3, f"{few}, row 2 (line 3), column 'b': the cell is empty")
    for rows, code, words in (
        ("0.5,0.5,1\n" * 5, 3, f"{few}: all 5 mixes are the same"),
        ("0.5,0.5,1\n", 3, f"{few}: a surface of 2 components"),
        ("0.1,0.9,1\n0.2,0.8,1\n0.4,0.6,1\n0.7,0.3,1\n", 3, f"{few}: the score y is 1 for all 4 mixes"),
        (
            "0.1,0.9,1\n0.2,0.8,True\n0.4,0.6,1\n0.7,0.3,1\n",
            3,
            "row 2 (line 3), column 'y': expected a number",
        ),
        ("0.1,0.9,1\n0.2,0.7,3\n0.4,0.6,1\n0.7,0.3,1\n", 3, "row 2 (line 3): the shares add up to 0.9"),
    ):
        few.write_text("\ufeffa,b,y\n" + rows, encoding="utf-8")
        for check in ((), ("--check",)):
            found = cli("suggest-mix", "--table", few, "--shares", "a,b", "--score", "y", *check, *out)
            refused(code, words)


def test_a_corpus_that_is_gone_is_named(cli, evaluations, tmp_path: Path) -> None:
    import shutil

    root = tmp_path / "moved"
    shutil.copytree(evaluations[0].parent, root, ignore=shutil.ignore_patterns("corpus-1"))
    hidden = evaluations[0].parent.rename(evaluations[0].parent.with_name("hidden"))
    try:
        found = cli(
            "suggest-mix",
            *(root / path.name for path in evaluations),
            "--score",
            "facts",
            "--out",
            tmp_path / "o",
        )
    finally:
        hidden.rename(evaluations[0].parent)
    assert found.code == 3
    assert "is missing or has changed" in found.err
    assert "--table" in found.err


def scaled_table(path: Path, sizes=(1e8, 3e8, 1e9), tokens=(1e9, 5e9, 2e10), noise: float = 0.004) -> Path:
    """Runs of seven mixes at several scales by an additive law whose best mix is known: half a, half b."""
    generator = np.random.default_rng(0)
    lines = ["a,b,n,d,loss"]
    for share in np.linspace(0.1, 0.9, 7):
        for n in sizes:
            for d in tokens:
                loss = 1.5 + 1 / (share**0.5 + (1 - share) ** 0.5) + 400 / n**0.34 + 410 / d**0.28
                lines.append(f"{share},{1 - share},{n},{d},{loss + generator.normal(0, noise)}")
    path.write_text("\n".join(lines) + "\n")
    return path


SCALED = ("--shares", "a,b", "--score", "loss", "--goal", "minimise", "--scale", "--parameters-column", "n",
          "--tokens-column", "d", *SMALL)  # fmt: skip


def test_laws_over_scale_suggest_a_mix_for_a_larger_model(cli, tmp_path: Path) -> None:
    table = scaled_table(tmp_path / "runs.csv")
    found = cli(
        "suggest-mix", "--table", table, *SCALED, "--at-parameters", "3B", "--at-tokens", "60B", "--out", tmp_path / "out"
    )  # fmt: skip
    assert found.code == 0, found.err
    content = json.loads((found.path / "suggestion.json").read_text())
    assert content["surface"].endswith("-law")
    assert content["best"]["shares"]["a"] == pytest.approx(0.5, abs=0.08)
    expected = 1.5 + 1 / 2**0.5 + 400 / 3e9**0.34 + 410 / 6e10**0.28
    score = content["best"]["score"]
    assert score["low"] <= expected <= score["high"]
    assert score["value"] == pytest.approx(expected, abs=0.03)
    scale = content["scale"]
    assert (scale["parameters"], scale["tokens"]) == (3e9, 6e10)
    assert scale["extrapolates"] == ["parameters", "tokens"]
    for test in scale["left_out_largest"].values():
        assert test["rmse"] < test["baseline_rmse"]
    columns = pq.read_table(found.path / "table.parquet").to_pydict()
    assert {"parameters", "tokens", "fitted"} <= set(columns)
    np.testing.assert_allclose(columns["fitted"], columns["score"], atol=0.05)
    assert tomli.loads((found.path / "best-mix.toml").read_text())["mix"]["weight"].keys() == {"a", "b"}
    inside = cli("suggest-mix", "--table", table, *SCALED, "--out", tmp_path / "inside")
    assert inside.code == 0, inside.err
    scale = json.loads((inside.path / "suggestion.json").read_text())["scale"]
    assert (scale["parameters"], scale["tokens"], scale["extrapolates"]) == (1e9, 2e10, [])


@pytest.mark.parametrize(
    ("design", "extra", "code", "message"),
    [
        ({}, ("--at-parameters", "100B"), 3, "the runs span a factor of 10 in parameters"),
        ({"sizes": (1e8, 1e9)}, ("--at-parameters", "3B"), 3, "needs 3 different numbers of parameters, got 2"),
        ({"sizes": (1e8,)}, ("--at-parameters", "3B"), 3, "the runs say nothing about other numbers of parameters"),
        ({"sizes": (1e8,), "tokens": (1e9,)}, (), 3, "all runs have the same number of parameters and of tokens"),
        ({"noise": 1.0}, ("--at-parameters", "3B"), 3, "the runs do not carry an extrapolation"),
        ({}, ("--at-tokens", "1M"), 3, "below all runs"),
        ({}, ("--surface", "quadratic"), 2, "a surface without scale"),
    ],
)  # fmt: skip
def test_what_runs_do_not_carry_is_refused(
    cli, tmp_path: Path, design: dict, extra: tuple, code: int, message: str
) -> None:
    table = scaled_table(tmp_path / "runs.csv", **design)
    found = cli("suggest-mix", "--table", table, *SCALED, *extra, "--out", tmp_path / "out")
    assert found.code == code, found.err
    assert message in found.err
    assert "Traceback" not in found.err


def test_options_of_scale(cli, evaluations, tmp_path: Path) -> None:
    table = scaled_table(tmp_path / "runs.csv")
    words = ("suggest-mix", "--table", table, "--shares", "a,b", "--score", "loss", "--out", tmp_path / "out")
    found = cli(*words, "--at-tokens", "1B", "--surface", "joint-law")
    assert found.code == 2
    assert "--at-tokens: no effect without --scale" in found.err
    assert "a law needs --scale" in found.err
    found = cli(*words, "--scale")
    assert found.code == 2
    assert "the table has neither 'parameters' nor 'tokens'" in found.err
    found = cli("suggest-mix", *evaluations, "--score", "facts", "--scale", *SMALL, "--out", tmp_path / "e")
    assert found.code == 3
    assert "runs, got 4" in found.err, "sizes and tokens are read from the runs; four are too few"
