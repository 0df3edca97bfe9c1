"""An evaluation shared by two processes, and one that was stopped, give the bytes of a single run."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from priorkit.cli.main import run
from priorkit.evaluation.runner import request_runner
from priorkit.models.language.causal_lm import build_config, build_llm, preset_fields
from priorkit.models.language.tokenizer import load_tokenizer, save_tokenizer, train_bpe
from tests.support.evaluation_models import picture
from tests.support.image_text_models import save_image_text_model

FILES = ("results.json", "samples.jsonl", "scores.safetensors")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments: a tiny model, choices and questions, small batches."""
    root = tmp_path_factory.mktemp("together")
    texts = ["Which one is it? The red circle, the blue star.", "Say what you see: a small green arrow."]
    save_tokenizer(train_bpe(texts * 3, 300), root / "llm")
    fields = {**preset_fields("pocket-tiny"), "initializer_range": 0.3}
    build_llm(build_config(fields, load_tokenizer(root / "llm")), 1).save_pretrained(root / "llm")
    rows: list[dict[str, Any]] = [
        {
            "question": "Which " + "one " * (n % 5),
            "choices": ["a red circle", "it", f"star {n}"],
            "answer": n % 3,
        }
        for n in range(17)
    ]
    asked: list[dict[str, Any]] = [
        {"question": f"Say {n}", "answer": "red", "task": "exact"} for n in range(21)
    ]
    for name, benchmark_rows in (("choices", rows), ("asked", asked)):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in benchmark_rows))
    files = [str(root / "choices.jsonl"), str(root / "asked.jsonl")]
    return [str(root / "llm"), *files, "--batch-size", "2", "--max-new-tokens", "6", "--resamples", "100"]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def alone(given: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("alone") / "out"
    assert run(["evaluate", *given, "--out", str(out), "--quiet"]) == 0
    return content(out)


def in_two_processes(given: list[str], out: Path) -> None:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port()),
        "-m", "priorkit", "evaluate", *given, "--out", str(out), "--quiet",
    ]  # fmt: skip
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_two_processes_share_the_items(tmp_path: Path, given: list[str], alone: dict[str, bytes]) -> None:
    in_two_processes(given, tmp_path / "out")
    assert content(tmp_path / "out") == alone


def test_two_processes_share_the_images_of_any_model(tmp_path: Path) -> None:
    """A model that transformers' ``generate`` runs: written answers and likelihoods, as of one process."""
    save_image_text_model("qwen2_5_vl", tmp_path / "model")
    rows: list[dict[str, Any]] = [
        {
            "question": "Which " + "one " * (n % 3), "choices": ["a red circle", "it"], "answer": n % 2,
            "image": "data:image/png;base64," + base64.b64encode(picture(n, 40 + 30 * (n % 2))).decode(),
        }
        for n in range(7)
    ]  # fmt: skip
    (tmp_path / "choices.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = [
        {"question": row["question"], "image": row["image"], "answer": "red", "task": "exact"} for row in rows
    ]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    given = [str(tmp_path / name) for name in ("model", "choices.jsonl", "asked.jsonl")]
    given += ["--device", "cpu", "--batch-size", "2", "--max-new-tokens", "4", "--resamples", "100"]
    assert run(["evaluate", *given, "--out", str(tmp_path / "one"), "--quiet"]) == 0
    in_two_processes(given, tmp_path / "two")
    assert content(tmp_path / "two") == content(tmp_path / "one")


def test_resumes_after_a_kill_without_answering_again(
    tmp_path: Path, given: list[str], alone: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    score = request_runner.scoring.score_batch

    def counted(*arguments: Any) -> Any:
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(len(arguments[1]))
        return score(*arguments)

    out = tmp_path / "out"
    monkeypatch.setattr(request_runner.scoring, "score_batch", counted)
    assert run(["evaluate", *given, "--out", str(out), "--quiet"]) == 130
    (folder,) = (tmp_path / "out.partial" / "state" / "answers").iterdir()
    lines = folder.read_bytes()
    assert lines.count(b"\n") == 3
    # A killed process may leave half a line.
    folder.write_bytes(lines[:-20])
    kept = 2
    total = -(-17 // 2)
    monkeypatch.setattr(
        request_runner.scoring, "score_batch", lambda *arguments: calls.append(0) or score(*arguments)
    )
    assert run(["evaluate", *given, "--out", str(out), "--quiet"]) == 0
    assert len(calls) - 3 == total - kept
    assert content(out) == alone


def test_other_settings_do_not_take_over_the_answers(tmp_path: Path, given: list[str]) -> None:
    folder = tmp_path / "folder"
    from priorkit.inference.answer_cache import AnswerCache

    first = AnswerCache(folder, "b").get_or_compute(
        [[1, 0], [2]], lambda batch: [f"a{n}" for n in batch], "t", key="one"
    )
    assert first == ["a0", "a1", "a2"]

    def never(batch: Any) -> Any:
        raise AssertionError(batch)

    assert AnswerCache(folder, "b").get_or_compute([[1, 0], [2]], never, "t", key="one") == first
    other = AnswerCache(folder, "b").get_or_compute([[1, 0], [2]], list, "t", key="two")
    assert other == [0, 1, 2]
