"""What a task type is: a :class:`Task` carries all that evaluation needs to know of one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from priorkit.core.boxes import BoxFormatName
from priorkit.evaluation.tasks.cells import Row
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.scoring.statistics.bootstrap import Floats, MetricFunction

AnswerMode = Literal["likelihood", "generation", "similarity"]
"""How a model answers: its options are compared by likelihood, it writes, or an encoder ranks by similarity."""

ChoiceForm = Literal["letter", "text"]
"""Whether options are lettered in the prompt and their letters compared, or their texts."""

BoxFormatChoice = BoxFormatName | Literal["auto"]
"""The format in which boxes are asked for; auto: as the model was tuned."""

BoxSpace = Literal["auto", "unit", "1000", "pixels"]
"""The coordinates of boxes in plain numbers; auto: those that are usual for the form."""

NO_OPTIONS: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class ScoringOptions:
    """How written answers are parsed.

    Attributes:
        parser: name of the parser of multiple-choice answers, a key of
            :data:`priorkit.scoring.answers.mcq.published.PARSERS`.
        second_parser: another one, whose accuracy is reported as well where it differs; empty for none.
        strict: an unclear answer is unparsed, also where the official rule takes something from it, and known
            bugs of that rule are corrected (docs/metrics.md).
        box_space: the coordinates of boxes: fractions of the image, thousandths of it, pixels, or as is usual for
            the form.
    """

    parser: str = "careful"
    second_parser: str = ""
    strict: bool = False
    box_space: BoxSpace = "auto"


@dataclass(frozen=True)
class TaskScores:
    """The scores of a benchmark's answers.

    Attributes:
        scores: one number per item, in order.
        parsed: the parsed answers, None where there is none.
        unparsed: whether each answer could not be parsed; such answers are wrong.
        counts: ``[items, columns]`` float64, what each item adds to the sums.
        metrics: computes the metrics from sums of ``counts``.
        extra: further values per item for ``samples.jsonl``.
    """

    scores: list[float]
    parsed: list[Any]
    unparsed: list[bool]
    counts: Floats
    metrics: MetricFunction
    extra: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])


class Scorer(Protocol):
    """Scores all answers of a benchmark."""

    def __call__(
        self, items: Sequence[Item], answers: Sequence[ModelAnswer], options: ScoringOptions, /
    ) -> TaskScores:
        """Score the answers; both sequences have one entry per item, in the benchmark's order."""
        ...


class ColumnTest(Protocol):
    """Recognizes a table of a task type by its columns and the values of its column ``answer``."""

    def __call__(self, columns: frozenset[str], answers: Iterable[Any], /) -> bool:
        """Whether the table is one of the task type."""
        ...


def option_texts(item: Item, form: ChoiceForm) -> tuple[tuple[str, ...], ...]:
    """The texts of an item's options, one spelling each."""
    return tuple((choice,) for choice in item.choices)


def target_truth(task: Task, target: Any, document: Row) -> dict[str, Any]:
    """The truth columns of a harness's sample: from the document where it has the column, else the target."""
    truth: dict[str, Any] = {}
    for name in task.columns:
        if name in ("answers", "references"):
            value = document.get(name, target)
            truth[name] = value if isinstance(value, list) else [value]
        elif name == "answer":
            truth[name] = target if target is not None else document.get(name)
        else:
            truth[name] = document.get(name)
    return truth


@dataclass(frozen=True)
class Task:
    """A task type.

    Attributes:
        name: as ``--task`` and the column ``task`` spell it.
        summary: a few words for the help text.
        columns: the required columns, which hold the truth.
        read_truth: checks a row's truth and returns the fields of :class:`Item`; raises ValueError with the reason.
        score: scores all answers.
        metrics: names of the metrics, the headline first; with ``accuracy`` there may be ``macro_accuracy`` too.
        modes: how models answer; the first is the default. ``similarity`` is for encoders.
        alternatives: further names of required columns.
        recognize: whether a table without a column ``task`` is one of this task type; None never.
        needs_question: whether rows need a column ``question``.
        needs_image: whether rows need an image.
        multiple_choice: whether every item has options, one of which is right.
        boxes: whether answers are boxes; then the image's size is kept, and LION answers at region level.
        patches: whether an encoder compares an item's text with single patches instead of the image.
        documents: whether complete documents are scored, in rolling windows, instead of answers to prompts.
        instruction: key of the instruction in ``prompts.toml``, by item and form of the options.
        options: the texts whose likelihoods are compared, by item and form; each a group of spellings.
        max_new_tokens: maximum length of a written answer, where neither user nor preset sets it.
        from_predictions: whether answers from a file can be scored.
        rescorable: whether samples hold all that is needed to score them again with --rescore.
        harness_truth: the truth columns of a sample in a harness's log, of the task, target and document.
    """

    name: str
    summary: str
    columns: tuple[str, ...]
    read_truth: Callable[[Row], dict[str, Any]]
    score: Scorer
    metrics: tuple[str, ...] = ("accuracy",)
    modes: tuple[AnswerMode, ...] = ("generation",)
    alternatives: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    recognize: ColumnTest | None = None
    needs_question: bool = True
    needs_image: bool = False
    multiple_choice: bool = False
    boxes: bool = False
    patches: bool = False
    documents: bool = False
    instruction: Callable[[Item, ChoiceForm], str] = lambda item, form: "short"
    options: Callable[[Item, ChoiceForm], tuple[tuple[str, ...], ...]] = option_texts
    max_new_tokens: int = 32
    from_predictions: bool = True
    rescorable: bool = True
    harness_truth: Callable[[Task, Any, Row], dict[str, Any]] = target_truth

    @property
    def headline(self) -> str:
        """The metric that represents a benchmark of this task type."""
        return self.metrics[0]

    @property
    def required_columns(self) -> tuple[str, ...]:
        """All columns that a benchmark needs."""
        return (
            *(("question",) if self.needs_question else ()),
            *(("image",) if self.needs_image else ()),
            *self.columns,
        )

    @property
    def known_metrics(self) -> tuple[str, ...]:
        """Names of all metrics that a benchmark may have."""
        return (*self.metrics, *(("macro_accuracy",) if "accuracy" in self.metrics else ()))

    @property
    def encoders_only(self) -> bool:
        """Whether only an encoder can answer."""
        return self.modes == ("similarity",)

    def missing_columns(self, columns: Sequence[str]) -> list[str]:
        """The required columns that a table lacks."""
        present = set(columns)
        return [
            name
            for name in self.required_columns
            if not present.intersection(self.alternatives.get(name, (name,)))
        ]


def same_instruction(key: str) -> Callable[[Item, ChoiceForm], str]:
    """The instruction of a task type whose items all have the same one."""
    return lambda item, form: key


def has_columns(*names: str) -> ColumnTest:
    """Recognizes tables that have all the columns."""
    return lambda columns, answers: columns.issuperset(names)


def mean_scores(scores: Sequence[float], name: str) -> tuple[Floats, MetricFunction]:
    """Counts and metric of a plain mean of scores."""
    return column_means({name: scores})


def column_means(columns: Mapping[str, Sequence[float] | NDArray[Any]]) -> tuple[Floats, MetricFunction]:
    """Counts and metrics of several scores per item, each metric the mean of one.

    Args:
        columns: by metric, one score per item.
    """
    names = list(columns)
    length = len(columns[names[0]])
    counts = np.stack(
        [np.ones(length), *(np.asarray(columns[name], dtype=np.float64) for name in names)], axis=1
    )
    return counts, lambda sums: {
        name: sums[..., index] / sums[..., 0] for index, name in enumerate(names, start=1)
    }


def rank_scores(ranks: Floats, cutoffs: Sequence[int]) -> tuple[Floats, MetricFunction]:
    """Counts and metrics of ranks: ``mean_rank``, ``mrr`` and ``recall_at_K``.

    Args:
        ranks: ``[items]`` float64, from 1.
        cutoffs: the ``K``.
    """
    columns = [ranks, 1 / ranks, *(ranks <= cutoff for cutoff in cutoffs)]
    return column_means(dict(zip(rank_metrics(cutoffs), columns, strict=True)))


def rank_metrics(cutoffs: Sequence[int]) -> tuple[str, ...]:
    """Names of the metrics of :func:`rank_scores`, in its order."""
    return ("mean_rank", "mrr", *(f"recall_at_{cutoff}" for cutoff in cutoffs))
