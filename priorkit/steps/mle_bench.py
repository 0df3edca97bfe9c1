"""Build a Multi-Level Existence Bench from annotated images: four options, by how much the target covers."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from priorkit.core import runtime
from priorkit.core.errors import InputError, Problems, UsageError
from priorkit.core.inputs import Input
from priorkit.core.settings import (
    RuntimeSettings,
    StepSettings,
    argument,
    option,
    redefault,
    reject_limit_option,
)
from priorkit.core.step import Step
from priorkit.core.values import Count
from priorkit.core.work import Plan, Work
from priorkit.data.io.rejects import Rejects
from priorkit.mle_bench.annotations import AnnotatedImage, Annotations, find_annotations, read_annotated
from priorkit.mle_bench.questions import (
    BINS,
    OPTIONS,
    QUESTIONS,
    ExistenceQuestion,
    Target,
    build,
    choose_targets,
    counts,
    read_wordings,
    unsettled,
)
from priorkit.mle_bench.synonyms import Synonyms, read_synonyms

if TYPE_CHECKING:
    from priorkit.inference.model_info import ModelInfo

logger = logging.getLogger(__name__)

VERDICTS = "synonyms.jsonl"
"""File with the pairs of names that a model judged."""


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
        "Synonyms: one group per line, separated by tabs or commas, or a JSON list of lists.",
        accepts=("world",),
        metavar="FILE",
    )
    synonym_model: str | None = option(
        None,
        "Language model that judges whether two names mean the same, where the file does not say so.",
        accepts=("llm", "adapter"),
        hub="model",
        metavar="MODEL",
    )
    synonym_threshold: float = option(
        0.5,
        "Probability of yes against no from which on the model's verdict is synonyms.",
        ge=0,
        le=1,
        advanced=True,
    )
    templates: str | None = option(
        None,
        "Wordings of the question, one per line, used equally often; {options} is replaced by the four options "
        "(default: three wordings of the paper).",
        accepts=("text",),
        metavar="FILE",
        advanced=True,
    )
    per_bin: Count = option(0, "Maximum number of questions per size bin, 0 for all.", metavar="N")
    seed: int = option(42, "Seed of targets, options and their order.", ge=0)
    batch_size: int = option(32, "Questions per forward pass of the model.", ge=1, metavar="N")
    device: Literal["auto", "cpu", "cuda"] = redefault(RuntimeSettings, "device", "auto")
    precision: Literal["auto", "fp32", "bf16"] = redefault(RuntimeSettings, "precision", "auto")
    reject_limit: float = reject_limit_option("images")


@dataclass(frozen=True)
class _Job:
    """What ``plan`` found."""

    found: Annotations
    synonyms: Synonyms
    wordings: tuple[str, ...]
    model: ModelInfo | None


def plan(settings: MleBenchSettings, inputs: Mapping[str, Input]) -> Plan:
    """Find the annotations, read synonyms and wordings, and read the model's headers."""
    if runtime.world_size() > 1:
        raise UsageError("mle-bench runs in one process")
    folder = inputs["images"].path
    if inputs["images"].kind == "world":
        folder = folder / "annotated"

    def given(name: str) -> Path | None:
        return inputs[name].path if name in inputs else None

    problems = Problems(InputError)
    found: Annotations | None = None
    synonyms, wordings, model = Synonyms(), QUESTIONS, None
    try:
        found = find_annotations(folder, given("annotations"), given("masks"), given("names"))
    except InputError as error:
        problems.extend(error)
    try:
        if file := given("synonyms"):
            synonyms = read_synonyms(file)
    except InputError as error:
        problems.extend(error)
    try:
        if file := given("templates"):
            wordings = read_wordings(file)
    except InputError as error:
        problems.extend(error)
    try:
        if folder := given("synonym_model"):
            from priorkit.mle_bench.synonym_model import check_synonym_model

            model = check_synonym_model(folder)
    except InputError as error:
        problems.extend(error)
    problems.raise_if_any()
    assert found is not None
    facts = [("annotations", f"{found.layout}: {found.file}"), ("wordings", str(len(wordings)))]
    if settings.synonyms:
        facts.append(("synonyms", f"{synonyms.count:,} groups"))
    if settings.synonym_model:
        facts.append(("synonyms judged by", settings.synonym_model))
    return Plan(facts, payload=_Job(found, synonyms, wordings, model))


def execute(settings: MleBenchSettings, work: Work) -> None:
    """Measure areas, choose targets, draw wrong options, spread the right answers, write the table."""
    job: _Job = work.plan.payload
    rejects = Rejects(settings.reject_limit)
    images, vocabulary = read_annotated(job.found, rejects)
    _check_vocabulary(vocabulary, job)
    targets = choose_targets(images, settings.seed, settings.per_bin)
    if job.model is not None:
        _judge(settings, work, job.model, targets, vocabulary, job.synonyms)
    questions, without = build(targets, vocabulary, job.synonyms, settings.seed, job.wordings)
    _leave_out(questions, without, images, vocabulary, job.found, rejects)
    rejects.write(work.path)
    sizes = counts(questions)
    _write_table(work.path / "test.parquet", questions)
    (work.path / "README.md").write_text(_card(sizes, job.found, settings.seed), encoding="utf-8")
    work.metrics.update(
        questions=len(questions),
        **sizes,
        vocabulary=len(vocabulary),
        left_out=len(without),
        rejected=len(rejects),
    )


def _check_vocabulary(vocabulary: Sequence[str], job: _Job) -> None:
    """Refuse names that cannot be distinguished from option letters; warn of synonyms without a category."""
    letters = [name for name in vocabulary if len(name) == 1]
    if letters:
        raise InputError(
            f"the category '{letters[0]}' cannot be distinguished from the letter of an option",
            where=str(job.found.file),
            hint="give it a longer name",
        )
    if job.synonyms.count and not job.synonyms.known(vocabulary):
        logger.warning(f"no group of synonyms holds one of the {len(vocabulary)} categories")


def _leave_out(
    questions: Sequence[ExistenceQuestion],
    without: Sequence[Target],
    images: Sequence[AnnotatedImage],
    vocabulary: Sequence[str],
    found: Annotations,
    rejects: Rejects,
) -> None:
    """Reject the images without enough wrong options, and check the share of rejected images."""
    if not without:
        return
    if not questions:
        raise InputError(
            f"no image has enough wrong options; {without[0].ref.name}: {_too_few_options(without[0], vocabulary)}",
            where=str(found.file),
            hint="a larger vocabulary or fewer synonyms is needed",
        )
    number = {image.ref.name: place for place, image in enumerate(images, start=1)}
    rejects.total -= len(without)
    for target in without:
        name = target.ref.name
        rejects.add(str(found.file), number[name], f"{name}: {_too_few_options(target, vocabulary)}")
    rejects.raise_if_over_limit()


def _too_few_options(target: Target, vocabulary: Sequence[str]) -> str:
    return (
        f"'{target.name}' needs {OPTIONS - 1} wrong options; fewer of the {len(vocabulary)} categories are "
        "neither in the image nor synonyms of what is or of one another"
    )


def _judge(
    settings: MleBenchSettings,
    work: Work,
    model: ModelInfo,
    targets: Sequence[Target],
    vocabulary: Sequence[str],
    synonyms: Synonyms,
) -> None:
    """Let the model judge the pairs that would be options together, until none is left; write its verdicts."""
    from priorkit.mle_bench.synonym_model import SynonymModel, Verdict

    started = runtime.start_portable(settings.seed, settings.device, settings.precision)
    judge = SynonymModel(model, settings.batch_size, started, work.state)
    verdicts: list[Verdict] = []
    while pairs := unsettled(targets, vocabulary, synonyms, settings.seed):
        new = judge.judge(pairs)
        verdicts += new
        synonyms.add({verdict.pair: verdict.yes >= settings.synonym_threshold for verdict in new})
    verdicts.sort(key=lambda verdict: verdict.pair)
    lines = [
        {
            "first": verdict.pair[0],
            "second": verdict.pair[1],
            "yes": verdict.yes,
            "same": verdict.yes >= settings.synonym_threshold,
        }
        for verdict in verdicts
    ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (work.path / VERDICTS).write_text(text, encoding="utf-8")
    same = sum(bool(line["same"]) for line in lines)
    work.metrics.update(pairs_judged=len(lines), pairs_same=same)
    logger.info(f"  {len(lines):,} pairs of names judged, {same:,} of them synonyms")


_BATCH_ROWS = 100


def _write_table(path: Path, questions: Sequence[ExistenceQuestion]) -> None:
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
        for start in range(0, len(questions), _BATCH_ROWS):
            rows = [_row(question) for question in questions[start : start + _BATCH_ROWS]]
            writer.write_table(pa.Table.from_pylist(rows, schema=features.arrow_schema))


def _row(question: ExistenceQuestion) -> dict[str, Any]:
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
    bins = ", ".join(
        f"`{name}` from {low:g} on" for name, low in zip(BINS, [0, *BINS.values()], strict=False)
    )
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
{bins}. `answer` is the text of the right option.
Wrong options are categories of the data set that are not in the image, nor synonyms of what is.

The paper reports accuracy over all questions (`accuracy`), lmms-eval the mean over the three sizes
(`macro_accuracy`).

| size | questions |
|---|---|
{rows}"""


STEP = Step(MleBenchSettings, plan, execute)
run = STEP.run
