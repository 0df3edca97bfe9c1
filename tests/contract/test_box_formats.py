"""One format of boxes in the world, in training and in evaluation, and what does not fit together is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from priorkit.core.artifact import open_artifact
from priorkit.core.boxes import BoxWriter
from priorkit.scoring.answers.box_formats import BOX_FORMATS
from tests.support.small_artifacts import FP32, SMALL_WORLD

TOKENS = ("--box-format", "location-tokens", "--box-bins", 48)
WRITER = BoxWriter("location-tokens", bins=48)
BRIEF = ("--steps", 1, "--batch-size", 4, "--warmup-steps", 0, *FP32)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def world(cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world whose boxes are location tokens, with regions."""
    made = cli(
        "glyph-world", *SMALL_WORLD, *TOKENS, "--regions", 8, "--out", tmp_path_factory.mktemp("w") / "world"
    )
    assert made.code == 0, made.err
    return made.path


@pytest.fixture(scope="module")
def aligned(artifacts, cli, world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was given location tokens."""
    out = tmp_path_factory.mktemp("a") / "aligned"
    captions = world / "captions" / "train.parquet"
    made = cli("align", artifacts.llm, artifacts.encoder, captions, *TOKENS, *BRIEF, "--out", out)
    assert made.code == 0, made.err
    return made.path


def test_a_tokenizer_with_location_tokens(artifacts, cli, tmp_path: Path) -> None:
    arguments = ("tokenizer", f"facts={artifacts.facts}", "--vocab-size", 400, "--location-tokens", 48)
    assert "49 of them location tokens" in cli(*arguments, "--check", "--out", tmp_path / "t").err
    made = cli(*arguments, "--out", tmp_path / "t")
    tokenizer = AutoTokenizer.from_pretrained(made.path)
    assert len(tokenizer) == 400 == open_artifact(made.path).metrics["vocab_size"]
    text = f"It is at {WRITER.write((0, 0.25, 0.5, 1))}, is it?"
    ids = tokenizer(text)["input_ids"]
    assert len(set(tokenizer.convert_tokens_to_ids(list(WRITER.tokens))) & set(ids)) == 4
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    refused = cli(
        "tokenizer", f"facts={artifacts.facts}", "--vocab-size", 400, "--location-tokens", 1000, "--check"
    )
    assert refused.code == 2
    assert "raise vocab_size or lower location_tokens" in refused.err


def test_align_adds_what_the_tokenizer_lacks(
    artifacts, cli, world: Path, aligned: Path, tmp_path: Path
) -> None:
    captions = world / "captions" / "train.parquet"
    plan = cli(
        "align", artifacts.llm, artifacts.encoder, captions, *TOKENS, "--check", "--out", tmp_path / "no"
    )
    assert "49 of 49 added" in plan.err
    tokenizer = AutoTokenizer.from_pretrained(aligned)
    assert all(token in tokenizer.get_vocab() for token in WRITER.tokens)
    assert json.loads((aligned / "config.json").read_text())["text_config"]["vocab_size"] == len(tokenizer)
    assert open_artifact(aligned).metrics["vocabulary_grown_by"] >= 49


def test_regions_are_tuned_on_and_asked_for_in_the_same_format(
    cli, world: Path, aligned: Path, tmp_path: Path
) -> None:
    regions = world / "regions" / "train.parquet"
    tuned = cli("tune", aligned, regions, *TOKENS, *BRIEF, "--out", tmp_path / "tuned")
    assert tuned.code == 0, tuned.err
    assert open_artifact(tuned.path).metrics["samples"] >= 16
    benchmark = world / "benchmarks" / "grounding.parquet"
    asked: list[str] = []
    for number, given in enumerate([(), ("--box-format", "thousandths")]):
        arguments = ("--limit", 2, "--max-new-tokens", 8, *given, *FP32, "--out", tmp_path / f"e{number}")
        scores = cli("evaluate", tuned.path, benchmark, *arguments)
        assert scores.code == 0, scores.err
        sample = json.loads((scores.path / "samples.jsonl").read_text().splitlines()[0])
        asked.append(sample["prompt"])
    assert WRITER.request in asked[0]
    assert BoxWriter("thousandths").request in asked[1]


def test_a_blind_arm_and_lion_read_the_same_regions(
    artifacts, cli, world: Path, aligned: Path, tmp_path: Path
) -> None:
    regions = world / "regions" / "train.parquet"
    blind = cli("blind-tune", aligned, regions, *TOKENS, *BRIEF, "--out", tmp_path / "blind")
    assert blind.code == 0, blind.err
    lion = ("--architecture", "lion", "--stage", 2, "--aggregator-heads", 2)
    made = cli("tune", aligned, regions, *lion, *TOKENS, "--augment-flip", *BRIEF, "--out", tmp_path / "lion")
    assert made.code == 0, made.err
    # The same rows in decimals, where the model needs no location tokens.
    other = cli("glyph-world", *SMALL_WORLD, "--regions", 8, "--out", tmp_path / "decimals")
    made = cli(
        "tune", artifacts.mllm, other.path / "regions" / "train.parquet", *BRIEF, "--out", tmp_path / "tuned"
    )
    assert made.code == 0, made.err


@pytest.mark.parametrize("step", ["tune", "lion", "blind-tune"])
def test_a_tokenizer_without_the_tokens_is_refused(
    artifacts, cli, world: Path, tmp_path: Path, step: str
) -> None:
    regions = world / "regions" / "train.parquet"
    lion = ("--architecture", "lion", "--stage", 2, "--aggregator-heads", 2) if step == "lion" else ()
    command = ("blind-tune", artifacts.llm) if step == "blind-tune" else ("tune", artifacts.mllm)
    for check in (("--check",), ()):
        refused = cli(*command, regions, *lion, *TOKENS, *BRIEF, *check, "--out", tmp_path / "no")
        assert refused.code == 3
        assert "lacks 49 of the 49 location tokens" in refused.err
        assert "align --box-format" in refused.err
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_with_tokens_of_another_grid_names_it(cli, aligned: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A cat."}]
    own.write_text(json.dumps({"conversations": turns}))
    other = ("--box-format", "location-tokens", "--box-bins", 64)
    refused = cli("tune", aligned, own, *other, "--check", "--out", tmp_path / "no")
    assert refused.code == 3, refused.err
    assert "it has those of --box-bins 48" in refused.err


@pytest.mark.parametrize("step", ["tune", "lion", "blind-tune", "align"])
def test_a_world_in_another_format_is_refused(
    artifacts, cli, world: Path, aligned: Path, tmp_path: Path, step: str
) -> None:
    regions = world / "regions" / "train.parquet"
    lion = ("--architecture", "lion", "--stage", 2, "--aggregator-heads", 2) if step == "lion" else ()
    command = (
        ("align", artifacts.llm, artifacts.encoder)
        if step == "align"
        else (step.replace("lion", "tune"), aligned)
    )
    refused = cli(*command, regions, *lion, "--check", "--out", tmp_path / "no")
    assert refused.code == 2
    assert "boxes were written as location-tokens, not as decimals" in refused.err
    assert "--box-format location-tokens" in refused.err
    refused = cli(
        *command, regions, *lion, "--box-format", "location-tokens", "--check", "--out", tmp_path / "no"
    )
    assert refused.code == 2
    assert "with 48 bins, not 1000" in refused.err


def test_what_evaluation_refuses(artifacts, cli, world: Path, tmp_path: Path) -> None:
    def refuse(code: int, *arguments: object) -> str:
        result = cli("evaluate", *arguments, "--check", "--out", tmp_path / "no")
        assert result.code == code, result.err
        return result.err

    counting, boxes = (world / "benchmarks" / f"{name}.parquet" for name in ("counting", "grounding"))
    chosen = ("--box-format", "thousandths")
    assert "no benchmark asks for boxes" in refuse(2, artifacts.mllm, counting, *chosen)
    words = refuse(3, artifacts.mllm, boxes, "--box-format", "location-tokens")
    assert "lacks 2 of the 2 location tokens" in words
    own = tmp_path / "own.toml"
    table = f'about = "a"\ntask = "grounding"\nversion = 1\n[data]\npath = "{boxes}"\n[columns]\n'
    table += 'id = "id"\nquestion = "question"\nbox = "box"\nimage = "image"\n[prompt]\nchat = "{question} [x1,y1,x2,y2]"\n'
    own.write_text(table)
    assert "the prompt of own says how boxes are written" in refuse(2, artifacts.mllm, own, *chosen)
    own.write_text(table.replace("[x1,y1,x2,y2]", "{box_request}"))
    refuse(0, artifacts.mllm, own, *chosen)


def test_the_documented_table_of_forms_is_that_of_the_parser() -> None:
    lines = (ROOT / "docs" / "metrics.md").read_text("utf-8").splitlines()
    start = lines.index("| form | models | coordinates |") + 2
    documented = lines[start : start + len(BOX_FORMATS) + 1]
    assert documented == [f"| {form.form} | {form.models} | {form.coordinates} |" for form in BOX_FORMATS] + [
        ""
    ]
