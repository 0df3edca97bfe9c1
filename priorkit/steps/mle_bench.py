"""Build a Multi-Level Existence Bench from annotated images: four options, by how much the target covers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from priorkit.core.artifact import Artifact
from priorkit.core.console import console
from priorkit.core.errors import InputError
from priorkit.core.inputs import Input
from priorkit.core.lifecycle import Plan, Work, produce
from priorkit.core.settings import StepSettings, argument, option, reject_limit_option
from priorkit.core.values import Count
from priorkit.data.rejects import Rejects
from priorkit.evals.annotated import Annotations, find_annotations, read_annotated
from priorkit.evals.existence import Question, Synonyms, build, choose_targets, counts, read_synonyms


class MleBenchSettings(StepSettings):
    """Options of ``priorkit mle-bench``."""

    step: ClassVar[str] = "mle-bench"
    kind: ClassVar[str] = "benchmark"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit mle-bench world/annotated --out existence",
        "priorkit mle-bench coco/val2017 --annotations coco/annotations/instances_val2017.json "
        "--synonyms synonyms.txt --per-bin 600 --out coco-existence",
    )

    images: str = argument(
        "Folder of annotated images: COCO instances or panoptic, or ADE20K.",
        accepts=("world",),
        metavar="IMAGES",
    )
    annotations: str | None = option(
        None,
        "COCO's JSON file, where it is not instances.json or panoptic.json in the folder.",
        accepts=("world",),
        metavar="FILE",
    )
    masks: str | None = option(
        None, "Folder of the PNG masks of COCO panoptic or ADE20K.", accepts=("world",), metavar="DIR"
    )
    names: str | None = option(
        None, "Names of ADE20K's classes, one per line from 1 on.", accepts=("world",), metavar="FILE"
    )
    synonyms: str | None = option(
        None,
        "Names that mean the same, a group per line, apart by commas.",
        accepts=("world",),
        metavar="FILE",
    )
    per_bin: Count = option(0, "Most questions of each size; 0 takes all.", metavar="N")
    seed: int = option(42, "Seed of targets, options and their order.", ge=0)
    reject_limit: float = reject_limit_option("images")


def plan(settings: MleBenchSettings, inputs: Mapping[str, Input]) -> Plan:
    """Find the annotations and read the synonyms."""
    folder = inputs["images"].path
    if inputs["images"].kind == "world":
        folder = folder / "annotated"

    def given(name: str) -> Path | None:
        return inputs[name].path if name in inputs else None

    found = find_annotations(folder, given("annotations"), given("masks"), given("names"))
    synonyms = read_synonyms(inputs["synonyms"].path) if settings.synonyms else Synonyms()
    return Plan([("annotations", f"{found.layout}: {found.file}")], payload=(found, synonyms))


def execute(settings: MleBenchSettings, work: Work) -> None:
    """Measure areas, choose targets, draw wrong options, spread the right answers, write the table."""
    found: Annotations
    synonyms: Synonyms
    found, synonyms = work.plan.payload
    rejects = Rejects(settings.reject_limit)
    images, vocabulary = read_annotated(found, rejects)
    rejects.write(work.path)
    targets = choose_targets(images, settings.seed, settings.per_bin)
    questions, without = build(targets, vocabulary, synonyms, settings.seed)
    if not questions:
        raise InputError(
            f"no image leaves three wrong options among the {len(vocabulary)} categories",
            where=str(found.file),
            hint="a larger vocabulary or fewer synonyms is needed",
        )
    if without:
        console.warn(f"{len(without)} images are left out: too few categories are absent from them")
    sizes = counts(questions)
    _write_table(work.path / "test.parquet", questions)
    (work.path / "README.md").write_text(_card(sizes, found, settings.seed), encoding="utf-8")
    work.metrics.update(
        questions=len(questions),
        **sizes,
        vocabulary=len(vocabulary),
        left_out=len(without),
        rejected=len(rejects),
    )


_ROWS_AT_ONCE = 100


def _write_table(path: Path, questions: Sequence[Question]) -> None:
    """lmms-eval's columns (image, question, choices, answer, sub_task), and id, entity, area."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Features, Image, List, Value

    text = Value("string")
    features = Features(
        {
            "id": text,
            "image": Image(),
            "question": text,
            "choices": List(text),
            "answer": text,
            "sub_task": text,
            "entity": text,
            "area": Value("float64"),
        }
    )
    with pq.ParquetWriter(path, features.arrow_schema, compression="zstd") as writer:
        for start in range(0, len(questions), _ROWS_AT_ONCE):
            rows = [_row(question) for question in questions[start : start + _ROWS_AT_ONCE]]
            writer.write_table(pa.Table.from_pylist(rows, schema=features.arrow_schema))


def _row(question: Question) -> dict[str, Any]:
    target = question.target
    content = target.ref.path.read_bytes() if target.ref.path else target.ref.content
    return {
        "id": target.ref.name,
        "image": {"bytes": content, "path": Path(target.ref.name).name},
        "question": question.text,
        "choices": list(question.choices),
        "answer": question.answer,
        "sub_task": target.size,
        "entity": target.name,
        "area": target.area,
    }


def _card(sizes: Mapping[str, int], found: Annotations, seed: int) -> str:
    rows = "".join(f"| {size} | {count} |\n" for size, count in sizes.items())
    return f"""---
configs:
- config_name: default
  data_files:
  - split: test
    path: test.parquet
---

# Multi-Level Existence Bench

Four-choice questions about what appears in an image, one per image, in the manner of "Learning to See
Before Seeing" (arXiv 2509.26625). Made from {found.layout} annotations ({found.file.name}) with seed {seed};
the images stay under their own licence.

`sub_task` is the share of the image's pixels that the target (`entity`) covers, exactly given by `area`:
`small` below 0.3, `medium` below 0.6, `large` from 0.6 on. `answer` is the letter of the right option.
Wrong options are categories of the data set that are not in the image, nor synonyms of what is.

The paper reports accuracy over all questions (`accuracy`), lmms-eval the mean over the three sizes
(`macro_accuracy`).

| size | questions |
|---|---|
{rows}"""


def run(settings: MleBenchSettings) -> Artifact | None:
    """Build the benchmark; see :class:`MleBenchSettings`."""
    return produce(settings, plan, execute)
