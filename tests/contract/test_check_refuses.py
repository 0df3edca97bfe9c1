"""``--check`` refuses what the run refuses, in the same words: inputs that are wrong in headers, lists or text files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

Make = Callable[[Any, Path], tuple[object, ...]]


def picture(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 20), "red").save(file)
    return file


def entities(root: Path, names: tuple[str, ...], each: int = 2) -> Path:
    for name in names:
        for number in range(each):
            picture(root / "images" / name / f"{number}.png")
    return root / "images"


def written(root: Path, name: str, text: str, encoding: str = "utf-8") -> Path:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding=encoding)
    return file


def table(root: Path, name: str, **columns: list[Any]) -> Path:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file)
    return file


def with_processor(model: Path, root: Path, **changes: Any) -> Path:
    """A copy of a model with other values in its image processor's file."""
    folder = shutil.copytree(model, root / "model", ignore=shutil.ignore_patterns("priorkit.json"))
    for file in folder.glob("*processor_config.json"):
        content = json.loads(file.read_text())
        settings = content.get("image_processor", content)
        settings.update(changes)
        file.write_text(json.dumps(content))
    return folder


IMAGES: dict[str, Callable[[Path], Path]] = {
    "an empty folder": lambda t: (t / "images" / "heron").mkdir(parents=True) or t / "images",
    "no images": lambda t: written(t, "images/heron/a.txt", "x").parents[1],
    "splits": lambda t: entities(t, ("train", "val")),
    "names that differ in case": lambda t: entities(t, ("Heron", "heron")),
    "rows without names": lambda t: written(picture(t / "m/a.png").parent, "metadata.jsonl", '{"file_name": "a.png"}\n').parent,
    "rows without file_name": lambda t: written(picture(t / "m/a.png").parent, "metadata.csv", "file,label\na.png,heron\n").parent,
    "a table without images": lambda t: table(t, "x.parquet", picture=[b""], label=["heron"]),
    "a table without names": lambda t: table(t, "x.parquet", image=[b""], word=["heron"]),
    "a table that is none": lambda t: written(t, "x.parquet", "no table"),
}  # fmt: skip
NAMES: dict[str, Callable[[Path], Path]] = {
    "empty": lambda t: written(t, "names.txt", ""),
    "blank": lambda t: written(t, "names.txt", "\n \n"),
    "utf-16": lambda t: written(t, "names.txt", "heron\n", "utf-16"),
    "another column": lambda t: written(t, "names.jsonl", '{"word": "heron"}\n'),
    "a row without a name": lambda t: written(t, "names.jsonl", '{"name": "heron"}\n{"name": 3}\n'),
    "broken json": lambda t: written(t, "names.jsonl", '{"name": "heron"}\n{"name": \n'),
    "a folder": lambda t: (t / "names").mkdir() or t / "names",
    "an unknown type": lambda t: written(t, "names.docx", "heron"),
    "broken parquet": lambda t: written(t, "names.parquet", "heron"),
    "missing": lambda t: t / "nothing.txt",
}
SHORT = ("--steps", 1, "--batch-size", 2, "--precision", "fp32", "--device", "cpu")

CASES: dict[str, Make] = {}
for title, make in IMAGES.items():
    CASES[f"rank-e images: {title}"] = lambda a, t, make=make: ("rank-e", a.encoder, make(t))
    CASES[f"distill-encoder images: {title}"] = lambda a, t, make=make: (
        "distill-encoder",
        a.encoder,
        make(t),
        *SHORT,
    )
    CASES[f"distill-encoder held-out: {title}"] = lambda a, t, make=make: (
        "distill-encoder", a.encoder, a.images, "--held-out", make(t), *SHORT,
    )  # fmt: skip
for title, make in NAMES.items():
    CASES[f"rank-e candidates: {title}"] = lambda a, t, make=make: (
        "rank-e",
        a.encoder,
        a.images,
        "--candidates",
        make(t),
    )
    CASES[f"rank-e templates: {title}"] = lambda a, t, make=make: (
        "rank-e",
        a.encoder,
        a.images,
        "--template-file",
        make(t),
    )
    CASES[f"distill-encoder names: {title}"] = lambda a, t, make=make: (
        "distill-encoder", a.encoder, a.images, "--names", make(t), *SHORT,
    )  # fmt: skip
CASES |= {
    "evaluate image means of two colors": lambda a, t: (
        "evaluate", with_processor(a.mllm, t, image_mean=[0.5, 0.5]), a.world / "benchmarks",
    ),
    "tune sizes as text": lambda a, t: (
        "tune", with_processor(a.mllm, t, size={"height": "32", "width": "32"}), a.instructions, *SHORT,
    ),
    "align negative sizes": lambda a, t: (
        "align", a.llm, with_processor(a.encoder, t, crop_size=-3), a.captions, *SHORT,
    ),
    "rank-e deviations of 0": lambda a, t: ("rank-e", with_processor(a.encoder, t, image_std=[0, 0, 0]), a.images),
    "rank-e centroids of single images": lambda a, t: ("rank-e", a.encoder, entities(t, ("x", "y"), 1), "--by", "centroids"),
    "distill-encoder held-out share of single images": lambda a, t: (
        "distill-encoder", a.encoder, entities(t, ("x", "y"), 1), "--held-out-share", 0.5, *SHORT,
    ),
    "distill-encoder replay without texts": lambda a, t: (
        "distill-encoder", a.encoder, a.images, "--replay", table(t, "x.parquet", image=[b""]), *SHORT,
    ),
    "tag-images two tables of one name": lambda a, t: (
        "tag-images", shutil.copytree(a.captions.parent, t / "c") and shutil.copy(a.captions, t / "c" / "train.x.parquet").parent,
        a.encoder, "--vocabulary", written(t, "v.txt", "bird\n"), "--threshold", 0.1,
    ),
    "tag-images empty vocabulary": lambda a, t: (
        "tag-images", a.captions, a.encoder, "--vocabulary", written(t, "v.txt", "# none\n"), "--threshold", 0.1,
    ),
    "align weight of no source": lambda a, t: ("align", a.llm, a.encoder, a.captions, "--weight", "x=1", *SHORT),
    "tune weight of no source": lambda a, t: ("tune", a.mllm, a.instructions, "--weight", "x=1", *SHORT),
    "blind-tune weight of no source": lambda a, t: ("blind-tune", a.llm, a.instructions, "--weight", "x=1", *SHORT),
    "mix target of no label": lambda a, t: ("mix", f"s={a.facts}", "--tokenizer", a.tokenizer, "--target", "x=0.5"),
    "mix subset of no source": lambda a, t: ("mix", f"s={a.facts}", "--tokenizer", a.tokenizer, "--subset", "x=1"),
    "mix blank text": lambda a, t: ("mix", f"s={written(t, 'x.txt', ' ')}", "--tokenizer", a.tokenizer),
    "tokenizer blank text": lambda a, t: ("tokenizer", f"s={written(t, 'x.txt', ' ')}"),
    "tokenizer blank rows": lambda a, t: ("tokenizer", f"s={written(t, 'x.jsonl', json.dumps({'text': ''}))}"),
    "evaluate empty predictions": lambda a, t: (
        "evaluate", "--predictions", written(t, "p.jsonl", ""), "--task", "vqa",
    ),
    "evaluate predictions without truth": lambda a, t: (
        "evaluate", "--predictions", written(t, "p.jsonl", '{"id": 1, "prediction": "x"}\n'), "--task", "vqa",
    ),
    "evaluate a benchmark without truth": lambda a, t: (
        "evaluate", a.llm, written(t, "p.jsonl", '{"question": "x"}\n'), "--task", "choice",
    ),
    "evaluate a rubric that is none": lambda a, t: (
        "evaluate", a.llm, a.world / "benchmarks", "--judge", a.llm, "--rubric", written(t, "r.toml", "x = 1"),
    ),
    "representation-alignment pairs without texts": lambda a, t: (
        "representation-alignment", a.llm, a.encoder, table(t, "x.parquet", image=[b""]),
    ),
    "pretrain-encoder pairs without texts": lambda a, t: (
        "pretrain-encoder", table(t, "x.parquet", image=[b""]), "--preset", "pocket-tiny", *SHORT,
    ),
    "mle-bench without annotations": lambda a, t: ("mle-bench", picture(t / "x" / "a.png").parent),
    "mle-bench synonyms": lambda a, t: ("mle-bench", a.world, "--synonyms", written(t, "s.txt", "one\n")),
    "correlate without entities": lambda a, t: (
        "correlate", a.scores, a.world,
    ),
    "merge without a base": lambda a, t: ("merge-adapters", a.llm, a.encoder, "--method", "linear"),
}  # fmt: skip


@pytest.mark.parametrize("title", CASES)
def test_check_refuses_what_the_run_refuses(title: str, cli, artifacts, tmp_path: Path) -> None:
    words = CASES[title](artifacts, tmp_path)
    out = tmp_path / "results" / "out"
    checked = cli(*words, "--check", "--out", out)
    run = cli(*words, "--out", out)
    assert run.code in (2, 3), run.err
    assert (checked.code, checked.err) == (run.code, run.err)
