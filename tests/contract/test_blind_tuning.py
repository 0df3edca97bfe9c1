"""blind-tune and its arms: the inputs of the model, checked by what the arms make of the same data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlavaForConditionalGeneration

from priorkit.core.artifact import open_artifact

SHORT = ("--steps", 2, "--batch-size", 4, "--warmup-steps", 0, "--precision", "fp32", "--device", "cpu")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("talk")
    Image.new("RGB", (48, 48), "red").save(folder / "red.png")
    rows: list[dict[str, Any]] = []
    for number in range(24):
        seen = number % 3 > 0
        question = ("<image>\n" if seen else "") + f"question {number}"
        talk = [{"from": "human", "value": question}, {"from": "gpt", "value": f"answer {number}"}]
        rows.append({"id": number, "conversations": talk, **({"image": "red.png"} if seen else {})})
    path = folder / "c.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def made(cli: Any, *words: object) -> Path:
    found = cli("blind-tune", *words)
    assert found.code == 0, found.err
    return found.path


def metrics(out: Path) -> dict[str, Any]:
    return open_artifact(out).manifest.metrics


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_the_language_side_of_a_multimodal_model(artifacts, cli, tmp_path: Path, source: Path) -> None:
    out = made(cli, artifacts.mllm, source, *SHORT, "--learning-rate", "1e-2", "--out", tmp_path / "blind")
    assert open_artifact(out).kind == "mllm"
    before, after = (LlavaForConditionalGeneration.from_pretrained(path) for path in (artifacts.mllm, out))
    changed = {
        name.split(".")[1] for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True)
        if not torch.equal(old, new)
    }  # fmt: skip
    assert changed == {"language_model"}
    assert metrics(out)["trained"] == {
        **dict.fromkeys(("projector", "encoder"), 0),
        "llm": metrics(out)["parameters"]["llm"],
    }
    tuned = cli("tune", out, source, *SHORT, "--out", tmp_path / "tuned")
    assert tuned.code == 0, tuned.err


def test_the_same_arm_before_and_after_alignment_reads_the_same_words(
    artifacts, cli, tmp_path: Path, source: Path
) -> None:
    one = made(cli, artifacts.llm, source, *SHORT, "--out", tmp_path / "llm")
    two = made(cli, artifacts.mllm, source, *SHORT, "--out", tmp_path / "mllm")
    assert losses(one) == pytest.approx(losses(two), rel=1e-4)


@pytest.mark.parametrize("model", ["llm", "mllm"])
def test_a_learned_placeholder(artifacts, cli, tmp_path: Path, source: Path, model: str) -> None:
    words = (getattr(artifacts, model), source, *SHORT, "--learning-rate", "1e-2", "--placeholder", "learned")
    out = made(cli, *words, "--out", tmp_path / "learned")
    rows = 9 if model == "mllm" else 1
    assert load_file(out / "placeholder.safetensors")["placeholder"].shape == (rows, 64)
    assert metrics(out)["trained"]["placeholder"] == rows * 64
    still = made(cli, *words, "--learning-rate", "1e-9", "--out", tmp_path / "still")
    moved = (
        load_file(out / "placeholder.safetensors")["placeholder"]
        - load_file(still / "placeholder.safetensors")["placeholder"]
    )
    assert moved.abs().max() > 1e-3
    three = made(cli, *words, "--placeholder-tokens", 3, "--out", tmp_path / "three")
    assert load_file(three / "placeholder.safetensors")["placeholder"].shape == (3, 64)


def test_a_kept_placeholder_is_one_token_more(artifacts, cli, tmp_path: Path, source: Path) -> None:
    drop, keep = (
        made(cli, artifacts.llm, source, *SHORT, "--placeholder", name, "--out", tmp_path / name)
        for name in ("drop", "keep")
    )
    assert losses(drop) != pytest.approx(losses(keep), rel=1e-6)
    assert metrics(drop)["tokens"] == metrics(keep)["tokens"]
    assert "evaluate --blind drops the image's place" in metrics(keep)["placeholder"]
    assert "placeholder" not in metrics(drop)
    AutoModelForCausalLM.from_pretrained(keep)
    assert AutoTokenizer.from_pretrained(keep).chat_template


def test_controls_train_as_long_as_the_arm_they_control(artifacts, cli, tmp_path: Path, source: Path) -> None:
    plain, text, sighted, shuffled = (
        made(
            cli,
            artifacts.mllm,
            source,
            *SHORT[2:],
            "--epochs",
            1,
            *extra,
            "--out",
            tmp_path / f"arm-{number}",
        )
        for number, extra in enumerate(
            ((), *(("--control", name) for name in ("text", "sighted", "shuffled")))
        )
    )
    assert {metrics(out)["steps"] for out in (plain, text, sighted, shuffled)} == {6}
    assert [metrics(out)["samples"] for out in (plain, text, sighted)] == [24, 8, 24]
    assert [metrics(out)["arm"] for out in (text, sighted)] == ["control: text", "control: sighted"]
    assert metrics(shuffled)["arm"] == "control: shuffled"
    assert (metrics(shuffled)["samples"], metrics(shuffled)["unshuffled"]) == (24, 0)
    assert metrics(plain)["tokens"] == metrics(sighted)["tokens"]
    assert losses(plain) != pytest.approx(losses(sighted), rel=1e-6)


def test_arms_of_one_mixture_take_as_many_steps(artifacts, cli, tmp_path: Path, source: Path) -> None:
    """One text-only source, one with images: the layout that docs and recipes recommend."""
    seen, text = tmp_path / "seen.jsonl", tmp_path / "text.jsonl"
    Image.new("RGB", (48, 48), "red").save(tmp_path / "red.png")
    rows = [line + "\n" for line in source.read_text().splitlines()]
    seen.write_text("".join(row for row in rows if '"image"' in row))
    text.write_text("".join(row for row in rows if '"image"' not in row))
    words = (
        artifacts.mllm, f"seen={seen}", f"text={text}", "--weight", "seen=0.5,text=0.5", *SHORT[2:], "--epochs", 1,
    )  # fmt: skip
    plain, control, sighted = (
        made(cli, *words, *extra, "--out", tmp_path / f"arm-{number}")
        for number, extra in enumerate(((), ("--control", "text"), ("--control", "sighted")))
    )
    assert [metrics(out)["sources"] for out in (plain, control, sighted)] == [
        {"seen": 8, "text": 8},
        {"seen": 0, "text": 8},
        {"seen": 8, "text": 8},
    ]
    assert [metrics(out)["steps"] for out in (plain, control, sighted)] == [4, 4, 4]
    words = (*words[:-2], "--tokens", 200)
    steps = [
        metrics(made(cli, *words, *extra, "--out", tmp_path / f"tokens-{number}"))["steps"]
        for number, extra in enumerate(((), ("--control", "text"), ("--control", "sighted")))
    ]
    assert steps[0] > 1
    assert len(set(steps)) == 1


def test_broken_samples_of_a_control_are_named(artifacts, cli, tmp_path: Path, source: Path) -> None:
    rows = source.read_text().splitlines()
    broken = tmp_path / "c.jsonl"
    broken.write_text("".join(row.replace('"human"', '"robot"') + "\n" for row in rows))
    found = cli("blind-tune", artifacts.llm, broken, *SHORT, "--control", "text", "--out", tmp_path / "x")
    assert found.code == 3
    assert "24 of 24 rows are broken" in found.err
    assert "unknown role 'robot'" in found.err


def test_shuffled_answers_are_all_used_and_none_is_kept(artifacts, cli, tmp_path: Path, source: Path) -> None:
    out = made(cli, artifacts.llm, source, *SHORT, "--shuffle-answers", "--out", tmp_path / "shuffled")
    assert metrics(out)["unshuffled"] == 0
    plain = made(cli, artifacts.llm, source, *SHORT, "--out", tmp_path / "plain")
    assert losses(out) != pytest.approx(losses(plain), rel=1e-6)


def test_answerable_questions_and_abstention(artifacts, cli, tmp_path: Path, source: Path) -> None:
    common = (artifacts.llm, source, *SHORT)
    everything = made(cli, *common, "--answerable-only", "--answerable-gain", -99, "--out", tmp_path / "all")
    assert metrics(everything)["unanswerable"] == 0
    assert metrics(everything)["samples"] == 24
    strict = made(cli, *common, "--answerable-only", "--answerable-gain", 99, "--out", tmp_path / "none")
    assert metrics(strict)["unanswerable"] == 16
    assert metrics(strict)["samples"] == 8
    abstaining = made(cli, *common, "--abstain", "--answerable-gain", 99, "--out", tmp_path / "abstain")
    assert metrics(abstaining)["samples"] == 24
    assert metrics(abstaining)["unanswerable"] == 16
    assert np.isfinite(metrics(abstaining)["mean_gain"])


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--control", "sighted"), "a language model takes no images"),
        (("--control", "shuffled"), "a language model takes no images"),
        (("--control", "text", "--abstain"), "--abstain: cannot be combined with --control"),
        (("--control", "text", "--placeholder", "keep"), "--placeholder: cannot be combined with --control"),
        (("--abstain", "--answerable-only"), "cannot be both left out and refused"),
        (("--placeholder-tokens", 3), "only has an effect with --placeholder learned"),
        (("--placeholder", "blank"), "should be 'drop', 'keep' or 'learned'"),
    ],
)
def test_arms_that_do_not_go_together(
    artifacts, cli, tmp_path: Path, source: Path, extra: tuple[object, ...], message: str
) -> None:
    found = cli("blind-tune", artifacts.llm, source, *SHORT, *extra, "--out", tmp_path / "x")
    assert found.code == 2
    assert message in found.err


def test_no_text_to_tune_on(artifacts, cli, tmp_path: Path) -> None:
    found = cli(
        "blind-tune", artifacts.llm, artifacts.captions, *SHORT, "--control", "text", "--out", tmp_path / "x"
    )
    assert found.code == 3
    assert "every sample has an image; there is no text to tune on" in found.err
