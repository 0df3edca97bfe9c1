"""``--chat-template``: what align, blind-tune and evaluate do with it, and where it has no effect."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import AutoProcessor, AutoTokenizer

from tests.support.small_artifacts import FP32

SHORT = ("--steps", 1, "--batch-size", 4, "--warmup-steps", 1, *FP32)


def test_the_aligned_model_keeps_the_format_and_tuning_reads_it(artifacts, cli, tmp_path: Path) -> None:
    aligned, tuned = tmp_path / "aligned", tmp_path / "tuned"
    done = cli("align", artifacts.llm, artifacts.encoder, artifacts.captions, "--chat-template", "llava-plain", *SHORT,
               "--out", aligned)  # fmt: skip
    assert done.code == 0, done.err
    assert json.loads((aligned / "priorkit.json").read_text())["metrics"]["chat_template"] == "llava-plain"
    parts = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    turns = [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": [{"type": "text", "text": "A sail."}]},
    ]
    assert AutoProcessor.from_pretrained(aligned).apply_chat_template(turns) == "<image>A sail.\n"
    done = cli("tune", aligned, artifacts.instructions, "--chat-template", "vicuna", *SHORT, "--out", tuned)
    assert done.code == 0, done.err
    text = AutoProcessor.from_pretrained(tuned).apply_chat_template(turns)
    assert text.startswith("A chat between a curious user")
    assert "USER: <image>\nWhat is it? ASSISTANT: A sail.</s>" in text


def test_a_file_is_an_input_of_the_step(artifacts, cli, tmp_path: Path) -> None:
    template = tmp_path / "mine.jinja"
    template.write_text("{% for message in messages %}[{{ message['content'] }}]{{ eos_token }}{% endfor %}")
    call = (
        "blind-tune",
        artifacts.llm,
        artifacts.instructions,
        "--chat-template",
        template,
        *SHORT,
        "--out",
        tmp_path / "out",
    )
    assert cli(*call).code == 0
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template.endswith(template.read_text())
    assert cli(*call).err.endswith("up to date\n")
    template.write_text(template.read_text() + " ")
    done = cli(*call)
    assert (done.code, "the input chat template" in done.err) == (2, True), done.err
    broken = cli(
        "blind-tune",
        artifacts.llm,
        artifacts.instructions,
        "--chat-template",
        "vicunna",
        "--check",
        "--out",
        tmp_path / "no",
    )
    assert (broken.code, "did you mean 'vicuna'?" in broken.err) == (2, True)


def test_an_evaluation_asks_in_the_format(artifacts, cli, tmp_path: Path) -> None:
    benchmark = artifacts.world / "benchmarks" / "naming.parquet"
    call = ("evaluate", artifacts.mllm, benchmark, "--limit", 2, "--device", "cpu", "--out")
    done = cli(*call, tmp_path / "vicuna", "--chat-template", "vicuna")
    assert done.code == 0, done.err
    sample = json.loads((tmp_path / "vicuna" / "samples.jsonl").read_text().splitlines()[0])
    assert sample["prompt"].startswith("A chat between a curious user")
    for more, words in (
        (("--prompt", "plain"), "--chat-template: has no effect: --prompt plain uses none"),
        (("--chat-template", "none-such"), "no conversation format and no file 'none-such'"),
    ):
        given = () if "--chat-template" in more else ("--chat-template", "vicuna")
        refused = cli(*call, tmp_path / "no", *given, *more)
        assert (refused.code, words in refused.err) == (2, True), refused.err
    refused = cli(
        "evaluate", artifacts.encoder, benchmark, "--chat-template", "vicuna", "--out", tmp_path / "no"
    )
    assert (refused.code, "an encoder has no conversations" in refused.err) == (2, True)
