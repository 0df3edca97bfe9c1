"""Build a Multi-Level Existence Bench from annotated images: four options, by how much the target covers."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from priorkit.core.errors import InputError, Problems, UsageError
from priorkit.core.options.specs import refuse_changed
from priorkit.core.process import runtime
from priorkit.core.step import Step
from priorkit.core.work import Inputs, Plan, Work
from priorkit.data.io.rejects import Rejects
from priorkit.mle_bench.annotations import AnnotatedImage, Annotations, find_annotations
from priorkit.mle_bench.class_names import read_class_names
from priorkit.mle_bench.questions import (
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
from priorkit.mle_bench.reading import read_annotated
from priorkit.mle_bench.settings import MleBenchSettings
from priorkit.mle_bench.synonyms import Synonyms, read_synonyms
from priorkit.mle_bench.table import card, write_table

if TYPE_CHECKING:
    from priorkit.inference.model_info import ModelInfo

logger = logging.getLogger(__name__)

VERDICTS = "synonyms.jsonl"
"""File with the pairs of names that a model judged."""


@dataclass(frozen=True)
class _Job:
    """What ``plan`` read."""

    annotations: Annotations
    synonyms: Synonyms
    wordings: tuple[str, ...]
    model: ModelInfo | None


def plan(settings: MleBenchSettings, inputs: Inputs) -> Plan[_Job]:
    """Find the annotations, read synonyms and wordings, and read the model's headers."""
    if runtime.world_size() > 1:
        raise UsageError("mle-bench runs in one process")
    images = inputs.one("images")
    folder = images.path / "annotated" if images.kind == "world" else images.path

    def given(name: str) -> Path | None:
        item = inputs.optional(name)
        return item.path if item else None

    problems = Problems(InputError)
    annotations: Annotations | None = None
    synonyms, wordings, model = Synonyms(), QUESTIONS, None
    with problems.collecting():
        annotations = find_annotations(folder, given("annotations"), given("masks"), given("names"))
    with problems.collecting():
        if file := given("synonyms"):
            synonyms = read_synonyms(file)
    with problems.collecting():
        if file := given("templates"):
            wordings = read_wordings(file)
    with problems.collecting():
        if model_folder := given("synonym_model"):
            from priorkit.mle_bench.synonym_model import check_synonym_model

            model = check_synonym_model(model_folder)
    problems.raise_if_any()
    assert annotations is not None
    _refuse_unused(settings, annotations)
    if annotations.layout == "ade20k":
        _refuse_letters(tuple(read_class_names(annotations.file).values()), annotations.file)
    facts = [("annotations", f"{annotations.layout}: {annotations.file}"), ("wordings", str(len(wordings)))]
    if settings.synonyms:
        facts.append(("synonyms", f"{synonyms.count:,} groups"))
    if settings.synonym_model:
        facts.append(("synonyms judged by", settings.synonym_model))
    return Plan(facts, payload=_Job(annotations, synonyms, wordings, model))


def execute(settings: MleBenchSettings, work: Work[_Job]) -> None:
    """Measure masks, choose targets, draw wrong options, spread the right answers, write the table."""
    job = work.plan.payload
    rejects = Rejects(settings.reject_limit)
    images, vocabulary = read_annotated(job.annotations, rejects)
    _check_vocabulary(vocabulary, job)
    targets = choose_targets(images, settings.seed, settings.per_bin)
    if job.model is not None:
        _judge(settings, work, job.model, targets, vocabulary, job.synonyms)
    questions, without = build(targets, vocabulary, job.synonyms, settings.seed, job.wordings)
    _leave_out(questions, without, images, vocabulary, job.annotations, rejects)
    rejects.write(work.path)
    sizes = counts(questions)
    write_table(work.path / "test.parquet", questions)
    (work.path / "README.md").write_text(card(sizes, job.annotations, settings.seed), encoding="utf-8")
    work.metrics.update(
        questions=len(questions),
        **sizes,
        vocabulary=len(vocabulary),
        left_out=len(without),
        rejected=len(rejects),
    )


def _refuse_unused(settings: MleBenchSettings, annotations: Annotations) -> None:
    """Refuse options that have no effect with what was found.

    Raises:
        UsageError: naming each of them.
    """
    usage = Problems(UsageError)
    layout = annotations.layout
    if layout != "ade20k":
        refuse_changed(
            settings, ("names",), usage,
            f"has no effect with COCO {layout}, whose categories are named in {annotations.file}",
            hint="leave it out; --synonyms says which names mean the same",
        )  # fmt: skip
    if layout == "instances":
        refuse_changed(
            settings, ("masks",), usage,
            f"has no effect with COCO instances, whose masks are in {annotations.file}",
            hint="leave it out",
        )  # fmt: skip
    if settings.synonym_model is None:
        refuse_changed(
            settings, ("synonym_threshold",), usage, "has no effect without --synonym-model", hint="leave it out"
        )  # fmt: skip
    usage.raise_if_any()


def _check_vocabulary(vocabulary: Sequence[str], job: _Job) -> None:
    """Refuse names that cannot be distinguished from option letters; warn of synonyms without a category."""
    _refuse_letters(vocabulary, job.annotations.file)
    if job.synonyms.count and not job.synonyms.known(vocabulary):
        logger.warning(f"no group of synonyms holds one of the {len(vocabulary)} categories")


def _refuse_letters(vocabulary: Sequence[str], file: Path) -> None:
    letters = [name for name in vocabulary if len(name) == 1]
    if letters:
        raise InputError(
            f"the category '{letters[0]}' cannot be distinguished from the letter of an option",
            where=str(file),
            hint="give it a longer name",
        )


def _leave_out(
    questions: Sequence[ExistenceQuestion],
    without: Sequence[Target],
    images: Sequence[AnnotatedImage],
    vocabulary: Sequence[str],
    annotations: Annotations,
    rejects: Rejects,
) -> None:
    """Reject the images without enough wrong options, and check the share of rejected images."""
    if not without:
        return
    if not questions:
        raise InputError(
            f"no image has enough wrong options; {without[0].ref.name}: {_too_few_options(without[0], vocabulary)}",
            where=str(annotations.file),
            hint="a larger vocabulary or fewer synonyms is needed",
        )
    row = {image.ref.name: image.row for image in images}
    rejects.total -= len(without)
    for target in without:
        name = target.ref.name
        rejects.add(str(annotations.file), row[name], f"{name}: {_too_few_options(target, vocabulary)}")
    rejects.raise_if_over_limit()


def _too_few_options(target: Target, vocabulary: Sequence[str]) -> str:
    return (
        f"'{target.name}' needs {OPTIONS - 1} wrong options; fewer of the {len(vocabulary)} categories are "
        "neither in the image nor synonyms of what is or of one another"
    )


def _judge(
    settings: MleBenchSettings,
    work: Work[_Job],
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


STEP = Step(MleBenchSettings, plan, execute)
run = STEP.run
