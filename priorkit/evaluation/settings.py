"""Options of ``priorkit evaluate``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import model_validator

from priorkit.core.errors import PriorkitError, UsageError
from priorkit.core.inputs import Input
from priorkit.core.options.settings import (
    RuntimeSettings,
    StepSettings,
    argument,
    option,
    redefault,
    reject_limit_option,
    resamples_option,
)
from priorkit.core.options.values import Count, Words
from priorkit.data.columns import (
    ImageColumnSettings,
    ImageFolderSettings,
    QuestionColumnSettings,
    TextColumnSettings,
    image_folders,
    layout_of,
)
from priorkit.evaluation.benchmarks.discovery import BenchmarkSource, find_benchmarks
from priorkit.evaluation.benchmarks.image_files import image_files
from priorkit.evaluation.benchmarks.rows import COMMON
from priorkit.evaluation.presets.loading import Suite, expand, suite, suite_names
from priorkit.evaluation.presets.schema import PresetScoring
from priorkit.evaluation.tasks.base import BoxFormatChoice, BoxSpace, ScoringOptions
from priorkit.evaluation.tasks.registry import TASKS, task_help
from priorkit.inference.backends.settings import BackendSettings
from priorkit.models.vision.patch_settings import PatchSettings
from priorkit.scoring.answers.mcq.published import PARSERS

if TYPE_CHECKING:
    TaskName = str
    ParserName = str
else:
    TaskName = Literal[tuple(TASKS)]
    ParserName = Literal[("auto", *PARSERS)]

GROUP_BY = ("ability", "prior", "size", "sub_task")
"""Columns by whose values metrics are also reported, where benchmarks have them."""


class EvaluateSettings(
    ImageFolderSettings,
    QuestionColumnSettings,
    TextColumnSettings,
    ImageColumnSettings,
    PatchSettings,
    BackendSettings,
    RuntimeSettings,
    StepSettings,
):
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
        "Parquet, Arrow, JSON Lines, CSV or TSV files, folders of them, benchmark artifacts; text for perplexity; names of "
        "benchmarks and suites that ship with priorkit, also NAME=DATA; your TOML file of a benchmark.",
        accepts=("benchmark", "world", "text"),
        default=(),
        metavar="BENCHMARK",
        hub="dataset",
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
        "Score the answers of an evaluation again, without a model; benchmarks given must be unchanged.",
        accepts=("evaluation",),
        metavar="EVALUATION",
    )
    compare: str | None = option(
        None,
        "Compare with another evaluation item by item, with the reason of each difference: comparison.json and "
        "comparison.jsonl. With --rescore the comparison is the result.",
        accepts=("evaluation",),
        metavar="EVALUATION",
    )
    blind_scores: str | None = option(
        None,
        "The same model's evaluation without images: write the gain by images to leakage.json (MMStar).",
        accepts=("evaluation",),
        metavar="EVALUATION",
        advanced=True,
    )
    base_scores: str | None = option(
        None,
        "Evaluation of the language model that the model was built on; with --blind-scores leakage is written too.",
        accepts=("evaluation",),
        metavar="EVALUATION",
        advanced=True,
    )
    task: TaskName | None = option(
        None,
        f"Task type: {task_help()}; by default from the column 'task', or else from the columns.",
        metavar="TASK",
    )
    blind: bool = option(False, "Withhold the images, to measure what is answered from language.")
    shuffle_images: bool = option(
        False, "Show every question the image of another one, as a control.", advanced=True
    )
    circular: bool = option(False, "CircularEval: correct in every rotation of the options (MMBench).")
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
    parser: ParserName = option(
        "auto",
        "Parser of written multiple-choice answers: careful, or a published rule; auto: the preset's, or else "
        "careful.",
        advanced=True,
    )
    reading: Literal["auto", "official", "strict"] = option(
        "auto",
        "Read answers by the benchmark's official rule; or strictly: what is no clear answer is unparsed, and "
        "known bugs of the rule are fixed; auto: as the benchmark says, else official.",
        advanced=True,
    )
    box_format: BoxFormatChoice = option(
        "auto",
        "Format in which boxes are asked for; auto: as the model was tuned where its artifact says so, else decimals. "
        "Answers are read in any known form.",
        advanced=True,
    )
    box_space: BoxSpace = option(
        "auto",
        "Coordinates of boxes in plain numbers: shares of the image, thousandths of it, or pixels; auto: as the "
        "benchmark says, else shares, or thousandths of (x1,y1),(x2,y2).",
        advanced=True,
    )
    template: tuple[str, ...] = option(
        ("a photo of a {}",),
        "Prompt template of an option for an encoder; repeat to ensemble.",
        advanced=True,
    )
    limit: Count = option(0, "Take the first items of each benchmark only; 0 takes all.", metavar="N")
    group_by: Words = option(
        GROUP_BY, "Columns by whose values metrics are also reported separately.", metavar="COLUMN"
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
    resamples: int = resamples_option("items")
    reject_limit: float = reject_limit_option("items")
    image_column: Words = redefault(ImageColumnSettings, "image_column", COMMON.image)
    text_column: Words = redefault(TextColumnSettings, "text_column", COMMON.text, advanced=True)
    question_column: Words = redefault(QuestionColumnSettings, "question_column", COMMON.question)
    answer_column: Words = redefault(QuestionColumnSettings, "answer_column", COMMON.answer)
    choices_column: Words = option(
        COMMON.choices,
        "Column of the options; the first of several that a file has.",
        metavar="COLUMN",
        advanced=True,
    )
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
        """The data of benchmarks and suites given by name."""
        return expand(given, self.benchmarks) if name == "benchmarks" else {"": given}

    def named_files(self, inputs: Mapping[str, Input]) -> Mapping[str, tuple[Path, Collection[str]]]:
        """The image files that rows of benchmarks name, and the file of a chat template."""
        try:
            sources = self.benchmark_sources(inputs)
        except PriorkitError:
            return self.template_files()
        benchmarks = [item for label, item in inputs.items() if label.startswith("benchmarks.")]
        images = {f"images of {name}": files for name, files in image_files(sources, benchmarks).items()}
        return {**images, **self.template_files()}

    def benchmark_sources(self, inputs: Mapping[str, Input]) -> list[BenchmarkSource]:
        """The benchmarks that the inputs hold.

        Raises:
            InputError: an input is no benchmark.
        """
        given = {label: item for label, item in inputs.items() if label.startswith("benchmarks.")}
        task = TASKS[self.task] if self.task else None
        return find_benchmarks(given, task, image_folders(self.images), layout_of(self))

    @property
    def group_columns(self) -> tuple[str, ...]:
        """Columns that intervals and grouped metrics need of every item."""
        return (*self.group_by, *([self.cluster] if self.cluster else []))

    @property
    def mode(self) -> str:
        """How models are asked: ``--by``, or by generation for explanations.

        Raises:
            UsageError: both are given and disagree.
        """
        if self.explain and self.by == "likelihood":
            raise UsageError("an explanation is written, not compared", where="--explain, --by likelihood")
        return "generation" if self.explain else self.by

    def _suite_of(self, benchmark: str) -> Suite | None:
        """The suite among the arguments that a benchmark belongs to."""
        suites = (suite(word) for word in self.benchmarks if word in suite_names())
        return next((found for found in suites if benchmark in found.members), None)

    def mode_of(self, benchmark: str, kind: str) -> str:
        """How a model is asked about a benchmark: as these settings say, or else as its suite does.

        Args:
            benchmark: its name.
            kind: of the model; encoders write nothing.

        Raises:
            UsageError: settings disagree.
        """
        found = self._suite_of(benchmark)
        by_suite = found.by if found is not None and kind != "encoder" else ""
        return by_suite if self.mode == "auto" and by_suite else self.mode

    def scoring_options(self, scoring: PresetScoring | None, benchmark: str = "") -> ScoringOptions:
        """How a benchmark's answers are parsed: by these settings, or else by its suite, or else by its preset.

        The careful parser and the published one are the first and the second, or the other way around.

        Args:
            scoring: of its preset.
            benchmark: its name, for a benchmark that was named as a part of a suite.
        """
        published = scoring.parser if scoring is not None else "careful"
        found = self._suite_of(benchmark)
        if found is not None and found.parser:
            published = found.parser
        parser = published if self.parser == "auto" else self.parser
        second = published if parser == "careful" else "careful"
        reading, box_space = self.reading, self.box_space
        if reading == "auto" and scoring is not None:
            reading = scoring.reading
        if box_space == "auto" and scoring is not None:
            box_space = scoring.box_space
        return ScoringOptions(
            parser, second if second != parser else "", strict=reading == "strict", box_space=box_space
        )
