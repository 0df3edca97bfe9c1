"""pretrain's options: what they change, what they must not change, and what they refuse."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from priorkit.core import artifact
from priorkit.core.process.runtime import Runtime
from priorkit.data.corpus.reader import Corpus
from priorkit.models.kernels.attention import choose_attention
from priorkit.training.engine.validation_loss import ValidationText
from priorkit.training.objectives.language_modeling import CausalLMObjective, CausalLMWithLoss

COMMON = ("--preset", "pocket-tiny", "--batch-size", 4, "--precision", "fp32", "--device", "cpu", "--quiet")


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def plain(artifacts, cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plain") / "llm"
    assert cli("pretrain", artifacts.corpus, *COMMON, "--steps", 6, "--out", out).code == 0
    return out


@pytest.mark.parametrize("which", ["selective", "full"])
def test_recomputed_activations_change_nothing(
    artifacts, cli, plain: Path, tmp_path: Path, which: str
) -> None:
    words = ("--steps", 6, "--checkpoint-activations", which, "--out", tmp_path / "llm")
    assert cli("pretrain", artifacts.corpus, *COMMON, *words).code == 0
    for a, b in zip(rows(plain), rows(tmp_path / "llm"), strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-6)
        assert b["gradient_norm"] == pytest.approx(a["gradient_norm"], rel=1e-5)


def test_exports_are_artifacts_of_the_run_so_far(artifacts, cli, plain: Path, tmp_path: Path) -> None:
    """Rows of 32 tokens, 4 a step: 300 tokens are reached in the third step."""
    out = tmp_path / "llm"
    words = ("pretrain", artifacts.corpus, *COMMON, "--steps", 6, "--schedule", "constant")
    found = cli(*words, "--export-at", "300,0.5k", "--out", out)
    assert found.code == 0, found.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llm", "llm-at-300", "llm-at-500"]
    three = tmp_path / "three"
    assert cli(*words[:-3], 3, "--schedule", "constant", "--out", three).code == 0
    early = tmp_path / "llm-at-300"
    assert (early / "model.safetensors").read_bytes() == (three / "model.safetensors").read_bytes()
    metrics = artifact.open_artifact(early).manifest.metrics
    assert metrics == {
        "tokens": 300, "annealed": False, "decay_steps": 0,
        "parameters": artifact.open_artifact(out).manifest.metrics["parameters"],
    }  # fmt: skip
    assert cli("verify", early).code == 0
    AutoModelForCausalLM.from_pretrained(early)
    AutoTokenizer.from_pretrained(early)
    again = cli(*words, "--export-at", "300,0.5k", "--out", out)
    assert again.code == 0
    assert "up to date" in again.err or not again.err


def test_annealed_exports_are_short_runs_that_decay(artifacts, cli, tmp_path: Path, monkeypatch) -> None:
    """Six steps constant; the export after four of them decays over its last two: a wsd run of four steps.

    The run itself is as without exports, and a run killed in the branch resumes there.
    """
    words = ("pretrain", artifacts.corpus, *COMMON, "--schedule", "constant")
    assert cli(*words, "--steps", 6, "--out", tmp_path / "plain").code == 0
    branch = ("--steps", 6, "--export-at", "512,256", "--export-decay", "0.5,0", "--out", tmp_path / "llm")
    from priorkit.training.pretraining import annealing

    original = annealing.train

    def killed(*given: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(annealing, "train", killed)
    assert cli(*words, *branch).code == 130
    assert not (tmp_path / "llm").exists()
    assert not (tmp_path / "llm-at-512").exists()
    monkeypatch.setattr(annealing, "train", original)
    found = cli(*words, *branch)
    assert found.code == 0, found.err
    wsd = (*words[:-1], "wsd", "--decay-share", 0.5, "--steps", 4, "--out", tmp_path / "wsd")
    assert cli(*wsd).code == 0

    def weights(name: str) -> bytes:
        return (tmp_path / name / "model.safetensors").read_bytes()

    assert weights("llm") == weights("plain")
    assert weights("llm-at-512") == weights("wsd")
    metrics = artifact.open_artifact(tmp_path / "llm-at-512").manifest.metrics
    assert (metrics["tokens"], metrics["annealed"], metrics["decay_steps"]) == (512, True, 2)
    assert not artifact.open_artifact(tmp_path / "llm-at-256").manifest.metrics["annealed"]
    assert rows(tmp_path / "llm") == rows(tmp_path / "plain")


def test_a_model_of_zero_tokens(artifacts, cli, tmp_path: Path) -> None:
    """What training begins with, bit by bit, as an artifact that later steps take."""
    words = (
        "pretrain",
        artifacts.corpus,
        "--preset",
        "pocket-tiny",
        "--device",
        "cpu",
        "--precision",
        "fp32",
    )
    assert cli(*words, "--random-init", "--out", tmp_path / "zero").code == 0
    # One step with a learning rate that moves nothing: warm-up begins below what fp32 weights can show.
    still = ("--steps", 1, "--batch-size", 2, "--learning-rate", 1e-30, "--weight-decay", 0)
    assert cli(*words, *still, "--out", tmp_path / "still").code == 0
    zero, other = (load_file(tmp_path / name / "model.safetensors") for name in ("zero", "still"))
    assert all(torch.allclose(value, other[name], rtol=0, atol=1e-20) for name, value in zero.items())
    metrics = artifact.open_artifact(tmp_path / "zero").manifest.metrics
    assert (metrics["steps"], metrics["tokens"]) == (0, 0)
    AutoModelForCausalLM.from_pretrained(tmp_path / "zero")
    AutoTokenizer.from_pretrained(tmp_path / "zero")
    found = cli(*words, "--random-init", "--steps", 3, "--export-at", "1k", "--out", tmp_path / "x")
    assert found.code == 2
    assert "--steps: no effect with --random-init" in found.err
    assert "--export-at: no effect with --random-init" in found.err


def test_held_out_loss_equals_transformers(artifacts, cli, tmp_path: Path) -> None:
    text = tmp_path / "text.jsonl"
    documents = ["A star is a shape with points.", "Two and two are four, and more.", "x = 1\n" * 20]
    text.write_text("".join(json.dumps({"text": document}) + "\n" for document in documents))
    out = tmp_path / "llm"
    words = ("--steps", 5, "--eval", f"mine={text}", "--eval-every", 2, "--out", out)
    found = cli("pretrain", artifacts.corpus, *COMMON, *words)
    assert found.code == 0, found.err
    logged = [row["step"] for row in rows(out) if "eval/mine/loss" in row]
    assert logged == [2, 4, 5]
    model = AutoModelForCausalLM.from_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    ids: list[int] = []
    for document in documents:
        ids += [*tokenizer(document)["input_ids"], tokenizer.eos_token_id]
    total, tokens = 0.0, 0
    for start in range(0, len(ids), 32):
        window = torch.tensor([ids[start : start + 32]])
        if window.shape[1] > 1:
            total += float(model(input_ids=window, labels=window).loss) * (window.shape[1] - 1)
            tokens += window.shape[1] - 1
    last = rows(out)[-1]
    assert last["eval/mine/loss"] == pytest.approx(total / tokens, rel=1e-5)
    seen = sum(len(document.encode()) for document in documents) * tokens / len(ids)
    assert last["eval/mine/bits_per_byte"] == pytest.approx(total / math.log(2) / seen, rel=1e-5)


def test_held_out_text_is_cut_to_a_bound(artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("priorkit.training.engine.validation_loss.EVALUATED_TOKENS", 50)
    tokenizer = AutoTokenizer.from_pretrained(artifacts.tokenizer)
    found = ValidationText(("word " * 30 for _ in range(1000)), tokenizer, 16, 4)
    assert len(found._ids_RT) * 16 < 200


def test_masked_documents_have_the_loss_of_separate_documents(artifacts) -> None:
    """The packed loss equals the sum over documents, each run through the model by itself."""
    model = AutoModelForCausalLM.from_pretrained(artifacts.llm)
    corpus = Corpus(artifacts.corpus)
    several = [i for i in range(len(corpus)) if corpus.document_ids(i)[-1] > 0][:4]
    assert len(several) == 4
    expected, count = 0.0, 0
    for index in several:
        row, numbers = corpus.row(index), corpus.document_ids(index)
        for number in np.unique(numbers):
            ids = torch.from_numpy(row[numbers == number])[None]
            if ids.shape[1] > 1:
                expected += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
                count += ids.shape[1] - 1
    for implementation in ("priorkit_packed", "eager", "sdpa"):
        choose_attention(model, "cpu")
        model.set_attn_implementation(implementation)
        objective = CausalLMObjective(CausalLMWithLoss(model), corpus, None, within_documents=True)
        batch = objective.collate([objective.sample(index, index) for index in several])
        assert objective.weight(batch) == count
        assert float(objective.loss(batch).total) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("configured", [1, [1, 5], None])
def test_the_end_of_the_last_document_is_predicted_whatever_the_model_calls_its_end(
    artifacts, configured: object
) -> None:
    """Rows are padded by the end token; the first one after a document ends it."""
    model = AutoModelForCausalLM.from_pretrained(artifacts.llm)
    model.config.eos_token_id = configured
    corpus = Corpus(artifacts.corpus)
    objective = CausalLMObjective(CausalLMWithLoss(model), corpus, pad_token_id=1, end_token_id=1)
    batch = objective.collate([(np.array([7, 8, 1, 1, 1]), None), (np.array([7, 1, 9, 9, 1]), None)])
    assert batch["labels"].tolist() == [[7, 8, 1, -100, -100], [7, 1, 9, 9, 1]]


def test_document_masks_and_muon_run_to_the_end(artifacts, cli, plain: Path, tmp_path: Path) -> None:
    words = (
        "--steps",
        6,
        "--document-mask",
        "--optimizer",
        "muon",
        "--schedule",
        "wsd",
        "--out",
        tmp_path / "llm",
    )
    assert cli("pretrain", artifacts.corpus, *COMMON, *words).code == 0
    # The corpus has text of the running Python's library, so the last batch may happen to be a hard one.
    assert min(row["loss"] for row in rows(tmp_path / "llm")) < rows(plain)[0]["loss"]
    weights = load_file(tmp_path / "llm" / "model.safetensors")
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--shard",), 2, "start with torchrun"),
        (("--export-at", "100"), 2, "less than one step's 128"),
        (("--export-decay", "0.1"), 2, "no effect without --export-at"),
        (("--export-at", "128,256", "--export-decay", "0.1,0.2,0.3"), 2, "3 shares for 2 exports"),
        (("--export-at", "256", "--export-decay", "1.5"), 2, "at least 0 and below 1"),
        (("--export-at", "256", "--export-decay", "0.9"), 2, "begins after 0 steps"),
        (("--eval", "mine=no.jsonl"), 3, "no.jsonl"),
        (("--checkpoint-activations", "some"), 2, "checkpoint-activations"),
        (("--eval-every", "0"), 2, "eval-every"),
    ],
)
def test_what_cannot_be_is_refused(artifacts, cli, tmp_path: Path, words: Any, code: int, said: str) -> None:
    found = cli("pretrain", artifacts.corpus, *COMMON, "--steps", 2, *words, "--out", tmp_path / "llm")
    assert found.code == code
    assert said in found.err
    assert not list(tmp_path.iterdir())


def test_a_folder_not_made_by_priorkit_is_not_replaced_by_an_export(artifacts, cli, tmp_path: Path) -> None:
    (tmp_path / "llm-at-300").mkdir()
    (tmp_path / "llm-at-300" / "mine.txt").write_text("mine")
    words = ("--steps", 4, "--export-at", "300", "--out", tmp_path / "llm")
    found = cli("pretrain", artifacts.corpus, *COMMON, *words)
    assert found.code == 2
    assert "no priorkit artifact" in found.err


def test_a_run_records_its_cost(plain: Path) -> None:
    cost = artifact.open_artifact(plain).manifest.cost
    assert cost["tokens_per_second"] > 0
    assert cost["model_flops_per_second"] > 0
    assert 0 <= cost["data_wait_share"] < 1
    assert 0 <= cost["checkpoint_share"] < 1


class Board:
    """Takes down what TensorBoard would."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.values: dict[str, list[float]] = {}
        BOARDS.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.values.setdefault(name, []).append(value)

    def close(self) -> None:
        self.values["closed"] = [1.0]


BOARDS: list[Board] = []


def test_tensorboard_gets_what_the_metrics_file_has(
    artifacts, cli, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Board))
    words = ("--steps", 6, "--tensorboard", tmp_path / "board", "--out", tmp_path / "llm")
    assert cli("pretrain", artifacts.corpus, *COMMON, *words).code == 0
    (board,) = BOARDS
    assert board.folder == str(tmp_path / "board")
    assert board.values["loss"] == [row["loss"] for row in rows(plain)]
    assert len(board.values["tokens_per_second"]) == 6
    assert board.values["closed"] == [1.0]


def test_missing_tensorboard_is_reported(
    artifacts, cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    words = ("--steps", 1, "--tensorboard", tmp_path / "board", "--out", tmp_path / "llm")
    found = cli("pretrain", artifacts.corpus, *COMMON, *words)
    assert found.code == 4
    assert "pip install tensorboard" in found.err


class Project:
    """A module with the interface of wandb and trackio."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def init(self, project: str, name: str, config: dict[str, Any]) -> None:
        self.calls.append(("init", project, Path(name).name, config["steps"]))

    def log(self, values: dict[str, float], step: int) -> None:
        self.calls.append((step, values["loss"]))

    def finish(self) -> None:
        self.calls.append("finish")


def test_other_trackers_get_it_too_and_the_result_is_the_same(
    artifacts, cli, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    projects = {name: Project() for name in ("wandb", "trackio")}
    for name, project in projects.items():
        monkeypatch.setitem(sys.modules, name, project)
    words = ("--steps", 6, "--log", "wandb=glyphs", "--log", "trackio=symbols", "--out", tmp_path / "llm")
    found = cli("pretrain", artifacts.corpus, *COMMON, *words)
    assert found.code == 0, found.err
    losses = [(number, row["loss"]) for number, row in enumerate(rows(plain), start=1)]
    assert projects["wandb"].calls == [("init", "glyphs", "llm", 6), *losses, "finish"]
    assert projects["trackio"].calls == [("init", "symbols", "llm", 6), *losses, "finish"]
    assert cli("pretrain", artifacts.corpus, *COMMON, "--steps", 6, "--out", tmp_path / "llm").code == 0


@pytest.mark.parametrize(
    ("log", "code", "message"),
    [
        (("wandb=glyphs",), 4, "the package wandb is not installed"),
        (("comet=glyphs",), 2, "expected tensorboard, wandb, trackio, got 'comet'"),
        (("tensorboard=a", "--tensorboard", "b"), 2, "tensorboard is given twice"),
    ],
)
def test_trackers_that_cannot_be_used(
    artifacts,
    cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    log: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    found = cli("pretrain", artifacts.corpus, *COMMON, "--steps", 1, "--log", *log, "--out", tmp_path / "llm")
    assert found.code == code
    assert message in found.err


def test_a_corpus_of_another_tokenizer_is_refused(artifacts, cli, plain: Path, tmp_path: Path) -> None:
    """Also where its vocabulary is no larger than the model's; one that has more tokens knows the corpus's."""
    other = tmp_path / "other"
    shutil.copytree(plain, other)
    content = json.loads((other / "tokenizer.json").read_text())
    tokens = content["model"]["vocab"]
    first, second = list(tokens)[300:302]
    tokens[first], tokens[second] = tokens[second], tokens[first]
    (other / "tokenizer.json").write_text(json.dumps(content))
    (other / "priorkit.json").unlink()
    words = ("pretrain", artifacts.corpus, *COMMON[2:], "--steps", 1)
    found = cli(*words, "--from", other, "--out", tmp_path / "llm")
    assert found.code == 3
    assert "another tokenizer" in found.err
    tokens[first], tokens[second] = tokens[second], tokens[first]
    content["added_tokens"].append({**content["added_tokens"][-1], "content": "<more>", "id": 100_000})
    (other / "tokenizer.json").write_text(json.dumps(content))
    assert cli(*words, "--from", other, "--check", "--out", tmp_path / "llm").code == 0


def test_an_export_beyond_the_run_is_refused(artifacts, cli, tmp_path: Path) -> None:
    words = ("pretrain", artifacts.corpus, *COMMON, "--steps", 2, "--out", tmp_path / "llm")
    found = cli(*words, "--export-at", "1k")
    assert found.code == 2
    assert "more than the run's 256" in found.err


@pytest.mark.parametrize(
    "fields",
    [
        {"model_type": "gpt_neox", "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1},
        {"model_type": "phi", "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1,
         "num_key_value_heads": None},
        {"model_type": "llama", "intermediate_size": 64},
    ],
)  # fmt: skip
def test_configurations_that_leave_fields_out_are_planned(artifacts, cli, tmp_path: Path, fields) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**fields, "max_position_embeddings": 64}))
    words = ("pretrain", artifacts.corpus, *COMMON[2:], "--steps", 1, "--config", file, "--check")
    found = cli(*words, "--out", tmp_path / "llm")
    assert found.code == 0, found.err


def test_held_out_text_comes_from_a_corpus_and_keeps_special_tokens_as_text(
    artifacts, cli, tmp_path: Path
) -> None:
    text = tmp_path / "text.jsonl"
    lines = [f"A line {number} with </s> and <s> in it." for number in range(40)]
    text.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    corpus = tmp_path / "corpus"
    words = (
        "mix",
        f"own={text}",
        "--tokenizer",
        artifacts.tokenizer,
        "--context-length",
        16,
        "--held-out",
        0.3,
    )
    assert cli(*words, "--out", corpus).code == 0
    out = tmp_path / "llm"
    words = ("pretrain", corpus, *COMMON, "--steps", 1, "--eval", f"own={corpus}", "--out", out)
    found = cli(*words)
    assert found.code == 0, found.err
    assert math.isfinite(rows(out)[0]["eval/own/loss"])
    tokenizer = AutoTokenizer.from_pretrained(corpus)
    held = ValidationText(lines[:1], tokenizer, 64, 1)
    first_row = held._ids_RT[0].tolist()
    assert first_row.count(tokenizer.eos_token_id) == 64 - first_row.index(tokenizer.eos_token_id)
    assert tokenizer.bos_token_id not in first_row


def test_held_out_documents_do_not_attend_to_each_other(artifacts) -> None:
    """With the mask the loss is that of separate documents; the first token of each is not predicted."""
    tokenizer = AutoTokenizer.from_pretrained(artifacts.llm)
    model = AutoModelForCausalLM.from_pretrained(artifacts.llm).eval()
    choose_attention(model, "cpu")
    texts = ["A star has points.", "Two and two are four."]
    runtime = Runtime(torch.device("cpu"), "fp32", 0)
    found = ValidationText(texts, tokenizer, 64, 1, within_documents=True).evaluate(
        CausalLMWithLoss(model), runtime
    )
    losses = [
        ValidationText([text], tokenizer, 64, 1).evaluate(CausalLMWithLoss(model), runtime)["loss"]
        for text in texts
    ]
    counts = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    assert found["loss"] == pytest.approx(np.average(losses, weights=counts), rel=1e-5)
