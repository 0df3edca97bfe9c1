"""Every input of every step in every format it may have: right files, to be damaged one at a time."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.faults.commands import ADAPTERS, GOLDEN, LLM, Words
from tests.support.small_artifacts import FP32, SmallArtifacts

_SHORT = ("--steps", 1, "--batch-size", 2, *FP32)


@dataclass(frozen=True)
class Slot:
    """One file that a step reads.

    Attributes:
        step: the command's name.
        given: the file or folder given to it; copied before each damage.
        target: the file in the folder that is damaged; empty where the file itself is given.
        format: one of ``malformed.FORMATS``.
        words: the command line without ``--out``, given the copy.
    """

    step: str
    given: Path
    target: str
    format: str
    words: Callable[[Path], Words]

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.step}: {self.target or self.given.name}"


def every_slot(artifacts: SmallArtifacts, folder: Path) -> list[Slot]:
    """All slots; what they need is written into a folder."""
    return [
        *_text_slots(artifacts, folder / "text"),
        *_conversation_slots(artifacts, folder / "conversations"),
        *_pair_slots(artifacts, folder / "pairs"),
        *_entity_slots(artifacts, folder / "entities"),
        *_benchmark_slots(artifacts, folder / "benchmarks"),
        *_model_slots(artifacts, folder / "models"),
        *_table_slots(artifacts, folder / "tables"),
    ]


def _text_slots(artifacts: SmallArtifacts, folder: Path) -> Iterator[Slot]:
    folder.mkdir()
    lines = artifacts.facts.read_bytes()
    rows = [json.loads(line) for line in lines.splitlines()]
    (folder / "a.jsonl").write_bytes(lines)
    (folder / "a.json").write_text(json.dumps(rows))
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    (folder / "a.jsonl.zst").write_bytes(pa.Codec("zstd").compress(lines, asbytes=True))
    (folder / "a.txt").write_text("\n".join(row["text"] for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
    formats = {
        "a.jsonl": "jsonl", "a.json": "json", "a.jsonl.gz": "gz", "a.jsonl.zst": "zst", "a.txt": "text",
        "a.parquet": "parquet",
    }  # fmt: skip
    mixing = ("--tokenizer", artifacts.tokenizer, "--context-length", 16, "--workers", 1)
    for name, format_ in formats.items():
        yield Slot("mix", folder / name, "", format_, lambda path: ("mix", f"s={path}", *mixing))
        yield Slot(
            "tokenizer",
            folder / name,
            "",
            format_,
            lambda path: ("tokenizer", f"s={path}", "--vocab-size", 300),
        )
        yield Slot(
            "evaluate", folder / name, "", format_,
            lambda path: ("evaluate", artifacts.llm, path, "--task", "perplexity", "--limit", 3, *FP32),
        )  # fmt: skip


def _unpacked(table: Path, folder: Path, most: int) -> list[dict[str, Any]]:
    """The first rows of a table, their images as files in a folder."""
    rows = pq.read_table(table).slice(0, most).to_pylist()
    for number, row in enumerate(rows):
        if row.get("image"):
            name = f"{number}.png"
            (folder / name).write_bytes(row["image"]["bytes"])
            row["image"] = name
        else:
            row.pop("image", None)
    return rows


def _conversation_slots(artifacts: SmallArtifacts, folder: Path) -> Iterator[Slot]:
    folder.mkdir()
    rows = [
        {key: row[key] for key in ("id", "image", "conversations") if key in row}
        for row in _unpacked(artifacts.captions, folder, 12)
    ]
    (folder / "a.json").write_text(json.dumps(rows))
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pq.read_table(artifacts.captions).slice(0, 12), folder / "a.parquet")
    commands: dict[str, Callable[[Path], Words]] = {
        "align": lambda path: ("align", artifacts.llm, artifacts.encoder, path, *_SHORT),
        "tune": lambda path: ("tune", artifacts.mllm, path, *_SHORT),
        "blind-tune": lambda path: ("blind-tune", artifacts.llm, path, *_SHORT),
        "tag-images": lambda path: (
            "tag-images", path, artifacts.encoder, "--vocabulary", artifacts.world / "names.txt", "--threshold", 0.2, *FP32,
        ),
    }  # fmt: skip
    for step, words in commands.items():
        for name, format_ in {"a.json": "json", "a.jsonl": "jsonl", "a.parquet": "parquet"}.items():
            yield Slot(step, folder, name, format_, lambda path, name=name, words=words: words(path / name))
        if step != "blind-tune":
            yield Slot(step, folder, "0.png", "image", lambda path, words=words: words(path / "a.json"))


def _pair_slots(artifacts: SmallArtifacts, folder: Path) -> Iterator[Slot]:
    folder.mkdir()
    rows = _unpacked(artifacts.pairs, folder, 24)
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pq.read_table(artifacts.pairs).slice(0, 24), folder / "a.parquet")
    with tarfile.open(folder / "a.tar", "w") as archive:
        for number, row in enumerate(rows):
            (folder / "caption.txt").write_text(row["text"])
            archive.add(folder / row["image"], f"{number:06d}.png")
            archive.add(folder / "caption.txt", f"{number:06d}.txt")
    training = ("--preset", "pocket-tiny", "--vocab-size", 300, *_SHORT)
    formats = {"a.jsonl": "jsonl", "a.parquet": "parquet", "a.tar": "tar", "3.png": "image"}
    for name, format_ in formats.items():
        given = "a.jsonl" if format_ == "image" else name
        yield Slot(
            "pretrain-encoder", folder, name, format_,
            lambda path, given=given: ("pretrain-encoder", path / given, *training),
        )  # fmt: skip
        if format_ != "tar":
            yield Slot(
                "representation-alignment", folder, name, format_,
                lambda path, given=given: (
                    "representation-alignment", artifacts.llm, path / given, artifacts.encoder, "--neighbours", 3,
                    "--resamples", 100, *FP32,
                ),
            )  # fmt: skip


def _entity_slots(artifacts: SmallArtifacts, folder: Path) -> Iterator[Slot]:
    folder.mkdir()
    images: list[tuple[str, str]] = []
    for number, path in enumerate(sorted(artifacts.images.rglob("*.png"))[:16]):
        (folder / f"{number}.png").write_bytes(path.read_bytes())
        images.append((f"{number}.png", path.parent.name))
    listed = {"jsonl": folder / "listed", "csv": folder / "table", "classes": folder / "classes"}
    for path in listed.values():
        path.mkdir()
        for name, entity in images:
            target = path / entity if path.name == "classes" else path
            target.mkdir(exist_ok=True)
            shutil.copy(folder / name, target / name)
    (listed["jsonl"] / "metadata.jsonl").write_text(
        "".join(json.dumps({"file_name": name, "entity": entity}) + "\n" for name, entity in images)
    )
    with (listed["csv"] / "metadata.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("file_name", "entity"), *images])
    (folder / "candidates.txt").write_text("".join(f"{entity}\n" for _, entity in images))
    first = f"{images[0][1]}/{images[0][0]}"
    for step, more in (("rank-e", FP32), ("distill-encoder", _SHORT)):

        def words(path: Path, step: str = step, more: Words = more) -> Words:
            return (step, artifacts.encoder, path, *more)

        yield Slot(step, listed["jsonl"], "metadata.jsonl", "jsonl", words)
        yield Slot(step, listed["csv"], "metadata.csv", "text", words)
        yield Slot(step, listed["classes"], first, "image", words)
    yield Slot(
        "rank-e", folder / "candidates.txt", "", "text",
        lambda path: ("rank-e", artifacts.encoder, listed["classes"], "--candidates", path, *FP32),
    )  # fmt: skip
    yield Slot(
        "tag-images", folder / "candidates.txt", "", "text",
        lambda path: (
            "tag-images", artifacts.captions, artifacts.encoder, "--vocabulary", path, "--threshold", 0.2, *FP32,
        ),
    )  # fmt: skip


_BENCHMARK = """\
task = "choice"
data = "a.jsonl"
[columns]
question = "question"
choices = "choices"
answer = "answer"
image = "image"
"""


def _benchmark_slots(artifacts: SmallArtifacts, folder: Path) -> Iterator[Slot]:
    folder.mkdir()
    for task in ("naming", "grounding", "existence"):
        table = artifacts.world / "benchmarks" / f"{task}.parquet"
        rows = _unpacked(table, folder, 6)
        (folder / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        pq.write_table(pq.read_table(table).slice(0, 6), folder / f"{task}.parquet")
        for suffix in ("jsonl", "parquet"):
            name = f"{task}.{suffix}"
            yield Slot(
                "evaluate", folder, name, suffix,
                lambda path, name=name: ("evaluate", artifacts.mllm, path / name, "--max-new-tokens", 3, "--resamples", 100, *FP32),
            )  # fmt: skip
    yield Slot(
        "evaluate", folder, "0.png", "image",
        lambda path: ("evaluate", artifacts.encoder, path / "naming.jsonl", "--resamples", 100, *FP32),
    )  # fmt: skip
    predictions = {
        "choice": [
            {"id": str(n), "prediction": "B", "choices": ["x", "y"], "answer": n % 2} for n in range(6)
        ],
        "vqa": [{"id": str(n), "prediction": "red", "answers": ["red"] * 10} for n in range(6)],
        "caption": [{"id": str(n), "prediction": "a red bird", "references": ["a bird"]} for n in range(6)],
        "grounding": [
            {"id": str(n), "prediction": "[0, 0, 0.5, 0.5]", "box": [0, 0, 0.5, 1]} for n in range(6)
        ],
    }
    for task, rows in predictions.items():
        file = folder / f"{task}-predictions.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        yield Slot(
            "evaluate", file, "", "jsonl",
            lambda path, task=task: ("evaluate", "--predictions", path, "--task", task, "--resamples", 100),
        )  # fmt: skip
    annotated = artifacts.world / "annotated"
    yield Slot("mle-bench", annotated, "instances.json", "json", lambda path: ("mle-bench", path))
    yield Slot("mle-bench", annotated, "images/000003.png", "image", lambda path: ("mle-bench", path))


def _without_manifest(artifact: Path, folder: Path, name: str) -> Path:
    """A model as other tools write it."""
    return shutil.copytree(
        artifact,
        folder / name,
        ignore=shutil.ignore_patterns("priorkit.json", "recipe.toml", "metrics.jsonl"),
    )


def _model_slots(artifacts: SmallArtifacts, folder: Path) -> Iterator[Slot]:
    folder.mkdir()
    models = {
        "llm": _without_manifest(artifacts.llm, folder, "llm"),
        "encoder": _without_manifest(artifacts.encoder, folder, "encoder"),
        "mllm": _without_manifest(artifacts.mllm, folder, "mllm"),
        "adapter": _without_manifest(ADAPTERS[0], folder, "adapter"),
        "corpus": _without_manifest(artifacts.corpus, folder, "corpus"),
        "tokenizer": _without_manifest(artifacts.tokenizer, folder, "tokenizer"),
    }
    naming = artifacts.world / "benchmarks" / "naming.parquet"
    commands: dict[str, tuple[Callable[[Path], Words], ...]] = {
        "llm": (
            lambda path: ("blind-tune", path, artifacts.instructions, *_SHORT),
            lambda path: ("align", path, artifacts.encoder, artifacts.captions, *_SHORT),
            lambda path: ("evaluate", path, artifacts.facts, "--task", "perplexity", "--limit", 2, *FP32),
            lambda path: ("pretrain", artifacts.corpus, "--from", path, *_SHORT),
            lambda path: ("merge-adapters", path, artifacts.llm, "--method", "linear"),
        ),
        "encoder": (
            lambda path: ("rank-e", path, artifacts.images, *FP32),
            lambda path: ("distill-encoder", path, artifacts.images, *_SHORT),
            lambda path: ("align", artifacts.llm, path, artifacts.captions, *_SHORT),
        ),
        "mllm": (
            lambda path: ("tune", path, artifacts.instructions, *_SHORT),
            lambda path: ("evaluate", path, naming, "--limit", 2, "--resamples", 100, *FP32),
        ),
        "adapter": (
            lambda path: ("merge-adapters", path, ADAPTERS[1], "--method", "ties", "--density", 0.5),
            lambda path: ("merge-adapters", path, "--base", LLM, "--method", "linear"),
        ),
        "corpus": (lambda path: ("pretrain", path, "--preset", "pocket-tiny", *_SHORT),),
        "tokenizer": (lambda path: ("mix", f"s={artifacts.facts}", "--tokenizer", path, "--context-length", 16, "--workers", 1),),
    }  # fmt: skip
    formats = {".json": "json", ".safetensors": "safetensors", ".jinja": "text"}
    for kind, model in models.items():
        for file in sorted(model.iterdir()):
            if file.suffix in formats:
                for words in commands[kind]:
                    step = str(words(model)[0])
                    yield Slot(step, model, file.name, formats[file.suffix], words)
    yield Slot(
        "pretrain", models["llm"] / "config.json", "", "json",
        lambda path: ("pretrain", artifacts.corpus, "--config", path, *_SHORT),
    )  # fmt: skip
    yield Slot(
        "pretrain", artifacts.llm, "recipe.toml", "text",
        lambda path: ("pretrain", "--recipe", path / "recipe.toml"),
    )  # fmt: skip
    yield Slot(
        "pretrain", artifacts.corpus, "priorkit.json", "json",
        lambda path: ("pretrain", path, "--preset", "pocket-tiny", *_SHORT),
    )  # fmt: skip


def _table_slots(artifacts: SmallArtifacts, folder: Path) -> Iterator[Slot]:
    folder.mkdir()
    grid = GOLDEN / "lsbs" / "grid.csv"
    with grid.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    numbers = [{key: _number(value) for key, value in row.items()} for row in rows]
    (folder / "grid.jsonl").write_text("".join(json.dumps(row) + "\n" for row in numbers))
    pq.write_table(pa.Table.from_pylist(numbers), folder / "grid.parquet")
    options = (
        "--shares",
        "reasoning,visual",
        "--remainder",
        "rest",
        "--score",
        "vision_accuracy",
        "--surface",
        "quadratic",
    )
    for file, format_ in (
        (grid, "text"),
        (folder / "grid.jsonl", "jsonl"),
        (folder / "grid.parquet", "parquet"),
    ):
        yield Slot(
            "suggest-mix", file, "", format_,
            lambda path: ("suggest-mix", "--table", path, *options, "--resamples", 50),
        )  # fmt: skip
    yield Slot(
        "report", artifacts.world / "entities.parquet", "", "parquet",
        lambda path: ("report", artifacts.scores, "--entities", path, "--resamples", 100),
    )  # fmt: skip


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
