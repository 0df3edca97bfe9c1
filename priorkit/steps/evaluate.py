"""Evaluate a model on benchmarks, or score predictions from anywhere, with an interval for every number."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, model_validator

from priorkit.core import runtime
from priorkit.core.errors import PriorkitError
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
from priorkit.core.values import Count, Words
from priorkit.core.work import Work
from priorkit.data.io.rejects import Rejects
from priorkit.evaluation.benchmarks.image_files import image_files
from priorkit.evaluation.presets.loading import expand, suite, suite_names
from priorkit.evaluation.results.comparison import compare, lines_of
from priorkit.evaluation.results.rescore import read_origin, read_suites
from priorkit.evaluation.results.results import ScoredBenchmark, summarise, summarise_suites, write_results
from priorkit.evaluation.results.summary import say_results
from priorkit.evaluation.runner.answers import ask_model, judge_all, score_again, score_predictions
from priorkit.evaluation.runner.plan import GROUP_BY, EvaluationPlan, benchmark_sources, plan

if TYPE_CHECKING:
    from priorkit.inference.model_adapter import Checked

logger = logging.getLogger(__name__)

TaskName = Literal[
    "choice", "yes-no", "vqa", "textvqa", "gqa", "exact", "relaxed", "caption", "grounding", "perplexity",
    "retrieval", "ranking", "continuation", "mixed", "ocr",
]  # fmt: skip

Folders = Annotated[
    tuple[str, ...], BeforeValidator(lambda given: [given] if isinstance(given, str) else given)
]


class EvaluateSettings(RuntimeSettings, StepSettings):
    """Options of ``priorkit evaluate``."""

    step: ClassVar[str] = "evaluate"
    kind: ClassVar[str] = "evaluation"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit evaluate tuned world/benchmarks --out tuned-scores",
        "priorkit evaluate --predictions answers.jsonl --task vqa --out vqa-scores",
    )

    model: str | None = argument(
        "Language model, multimodal model, encoder, or adapter; none with --predictions.",
        accepts=("llm", "mllm", "encoder", "adapter"),
        default=None,
        metavar="MODEL",
        hub="model",
    )
    benchmarks: tuple[str, ...] = argument(
        "Parquet or JSON Lines files, folders of them, benchmark artifacts; text for perplexity; names of "
        "benchmarks and suites that come with the kit, also NAME=DATA; a benchmark's own TOML file.",
        accepts=("benchmark", "world", "text"),
        default=(),
        metavar="BENCHMARK",
        hub="dataset",
    )
    images: Folders = option(
        (),
        "Folder of the image files that rows of benchmarks name; NAME=DIR for one benchmark, repeated.",
        metavar="[NAME=]DIR",
    )
    predictions: str | None = option(
        None,
        "Score raw answers from a JSON Lines file: id, prediction and the task's truth; also the sample logs "
        "of lm-evaluation-harness and lmms-eval.",
        accepts=("evaluation",),
        metavar="FILE.jsonl",
    )
    rescore: str | None = option(
        None,
        "Score the answers of an evaluation anew, without a model; benchmarks given have to be unchanged.",
        accepts=("evaluation",),
        metavar="EVALUATION",
    )
    compare: str | None = option(
        None,
        "Compare with another evaluation item by item, and write comparison.json.",
        accepts=("evaluation",),
        metavar="EVALUATION",
    )
    task: TaskName | None = option(
        None,
        "How items are asked and scored: choice, yes-no, vqa, textvqa, gqa, exact, relaxed, ocr, mixed, caption, "
        "grounding, ranking, retrieval, perplexity; from the column 'task' or from the columns where not given.",
        metavar="TASK",
    )
    blind: bool = option(False, "Withhold the images, to see what language alone answers.")
    shuffle_images: bool = option(
        False, "Show every question the image of another one, as a control.", advanced=True
    )
    circular: bool = option(
        False, "Ask choices in every rotation of their options; right is who is always right (MMBench)."
    )
    by: Literal["auto", "likelihood", "generation"] = option(
        "auto", "Compare options by likelihood, or read a written answer; auto compares where it can."
    )
    prompt: Literal["auto", "chat", "plain"] = option(
        "auto", "Chat template, or plain text as in lm-evaluation-harness; auto: chat for multimodal models."
    )
    choices: Literal["auto", "letter", "text"] = option(
        "auto",
        "Likelihood of the options' letters or of their texts; auto: letters in a chat, texts in plain.",
    )
    explain: bool = option(
        False, "Ask for a thinking process and read the answer from what is written.", advanced=True
    )
    judge: str | None = option(
        None,
        "Local language model that judges whether what was written is sound reasoning.",
        accepts=("llm",),
        hub="model",
        metavar="LLM",
        advanced=True,
    )
    rubric: str | None = option(
        None,
        "TOML file with the instruction of --explain and the judge's question.",
        accepts=("rubric",),
        metavar="FILE",
        advanced=True,
    )
    parser: Literal["careful", "lsbs"] = option(
        "careful",
        "How a written choice is read: as a careful reader would, or by the rule of the LSBS paper.",
        advanced=True,
    )
    reading: Literal["auto", "official", "strict"] = option(
        "auto",
        "Read answers by the benchmark's official rule; or strictly: what is no clear answer is unparsed, and "
        "known bugs of the rule are mended; auto: as the benchmark says, else official.",
        advanced=True,
    )
    box_space: Literal["auto", "unit", "1000", "pixels"] = option(
        "auto",
        "What the boxes in answers are written in: shares of the image, thousandths of it, or pixels; auto: as "
        "the benchmark says, else shares.",
        advanced=True,
    )
    template: tuple[str, ...] = option(
        ("a photo of a {}",),
        "Text that stands for an option before an encoder; repeat to average several.",
        advanced=True,
    )
    limit: Count = option(0, "Take the first items of each benchmark only; 0 takes all.", metavar="N")
    group_by: Words = option(
        GROUP_BY, "Columns by whose values metrics are also given apart.", metavar="COLUMN"
    )
    cluster: str | None = option(
        None,
        "Column whose values are resampled together in intervals; the image where not given.",
        metavar="COLUMN",
        advanced=True,
    )
    batch_size: int = option(32, "Questions per forward pass.", ge=1)
    max_new_tokens: int | None = option(
        None, "Longest written answer in tokens; the benchmark's own or 32 where not given.", ge=1
    )
    resamples: int = option(1000, "Bootstrap resamples behind each interval.", ge=100, advanced=True)
    reject_limit: float = reject_limit_option("items")
    precision: Literal["auto", "fp32", "bf16"] = redefault(RuntimeSettings, "precision", "fp32")

    @model_validator(mode="before")
    @classmethod
    def _no_model_to_rescore(cls, values: Any) -> Any:
        """With ``--rescore`` there is no MODEL, so that the first argument is a benchmark."""
        if isinstance(values, dict) and values.get("rescore") and values.get("model"):
            given = [values["model"], *(values.get("benchmarks") or ())]
            return {**values, "model": None, "benchmarks": given}
        return values

    def expand_input(self, name: str, given: str) -> Mapping[str, str]:
        """Names of benchmarks and suites stand for their data."""
        return expand(given, self.benchmarks) if name == "benchmarks" else {"": given}

    def files_beside(self, inputs: Mapping[str, Input]) -> Mapping[str, tuple[Path, Sequence[str]]]:
        """The image files that rows of benchmarks name."""
        try:
            sources = benchmark_sources(self, inputs)
        except PriorkitError:
            return {}
        own = [item for label, item in inputs.items() if label.startswith("benchmarks.")]
        return {f"images of {name}": files for name, files in image_files(sources, own).items()}


def execute(settings: EvaluateSettings, work: Work) -> None:
    """Ask, read, score, and put an interval on every number."""
    job: EvaluationPlan = work.plan.payload
    rejects = Rejects(settings.reject_limit)
    begun = time.monotonic()
    done, about = _answers(settings, work, job, rejects)
    asked = time.monotonic() - begun
    if runtime.rank() != 0:
        return
    _summarise(settings, work, done, about)
    if settings.compare:
        compared = compare(work.path, work.inputs["compare"].path, settings.seed, settings.resamples)
        compared.write(work.path / "comparison.json")
        for line in lines_of(compared):
            logger.info(f"  {line}")
    rejects.write(work.path)
    items = sum(len(own.items) for own in done)
    work.metrics.update(items=items, rejected=len(rejects))
    work.cost.update(items_per_second=round(items / max(asked, 1e-9), 2))


def _answers(
    settings: EvaluateSettings, work: Work, job: EvaluationPlan, rejects: Rejects
) -> tuple[list[ScoredBenchmark], dict[str, Any]]:
    """Scored answers to each benchmark, and what the results say of their origin."""
    about: dict[str, Any] = {"model": None}
    if settings.rescore:
        done = score_again(settings, work)
        about = {**read_origin(work.inputs["rescore"].path), "rescored": settings.rescore}
    elif job.model is None:
        done = [score_predictions(settings, work, rejects)]
    else:
        done = ask_model(settings, work, job.model, job.benchmarks, rejects)
        about["model"] = _about_model(settings, work, job.model)
    return (judge_all(settings, work, done) if settings.judge else done), about


def _summarise(
    settings: EvaluateSettings, work: Work, done: Sequence[ScoredBenchmark], about: dict[str, Any]
) -> None:
    """Metrics with intervals of benchmarks and suites: written, told, and put in the manifest."""
    found = {
        own.name: summarise(
            own,
            group_by=settings.group_by,
            seed=settings.seed,
            resamples=settings.resamples,
            cluster=settings.cluster or "",
        )
        for own in done
    }
    full_scores = {own.name: own.scoring.full_score for own in done if own.scoring}
    suites = summarise_suites(_suites(settings, work), found, full_scores)
    entries = {name: own.entry for name, own in found.items()}
    write_results(work.path, done, entries, {**about, "suites": suites} if suites else about)
    for name, own in found.items():
        work.metrics[name] = {metric: entry["value"] for metric, entry in own.entry["metrics"].items()}
    for name, own in suites.items():
        work.metrics[f"suite {name}"] = own["overall"]["value"]
    say_results(found, suites)


def _suites(settings: EvaluateSettings, work: Work) -> dict[str, Mapping[str, Sequence[str]]]:
    """Those of the evaluation that is scored anew, and those named on the command line."""
    kept = read_suites(work.inputs["rescore"].path) if settings.rescore else {}
    return {**kept, **{name: suite(name).groups for name in settings.benchmarks if name in suite_names()}}


def _about_model(settings: EvaluateSettings, work: Work, checked: Checked) -> dict[str, Any]:
    given = work.inputs["model"]
    about: dict[str, Any] = {"path": given.given, "kind": given.kind, "digest": given.digest()}
    if checked.base is not None:
        about["base"] = {"path": checked.base.given, "digest": checked.base.digest()}
    about["blind"] = settings.blind
    if settings.shuffle_images:
        about["shuffled_images"] = True
    return about


STEP = Step(EvaluateSettings, plan, execute)
run = STEP.run
