"""What a task type is, and how the cells of a row are checked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.scoring.statistics.bootstrap import Floats, MetricFunction

Row = Mapping[str, Any]
AnswerMode = Literal["likelihood", "generation", "similarity"]
BoxSpace = Literal["unit", "1000", "pixels"]


@dataclass(frozen=True)
class ScoringOptions:
    """How written answers are read.

    Attributes:
        parser: of choices: as a careful reader would, or by the rule of the LSBS paper.
        strict: what is no clear answer counts as unparsed, also where the official rule reads it, and known
            bugs of that rule are mended (docs/metrics.md).
        box_space: the space that boxes are written in: shares of the image, thousandths of it, or pixels.
    """

    parser: Literal["careful", "lsbs"] = "careful"
    strict: bool = False
    box_space: BoxSpace = "unit"


@dataclass(frozen=True)
class TaskScores:
    """A scored benchmark.

    Attributes:
        scores: one number per item, in order.
        parsed: what the scorer read from each answer, None where it could not.
        unparsed: how many answers could not be read; they count as wrong.
        counts: ``[items, columns]``, what each item adds to the sums.
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
        self, items: Sequence[Item], answers: Sequence[ModelAnswer], rules: ScoringOptions, /
    ) -> TaskScores:
        """Score the answers; both sequences have one entry per item, in the benchmark's order."""
        ...


@dataclass(frozen=True)
class Task:
    """A task type.

    Attributes:
        name: as ``--task`` and the ``task`` column spell it.
        needs: the columns that hold the truth.
        read: checks a row's truth and gives the fields of :class:`Item`; raises ValueError with the
            reason.
        score: scores all answers.
        ways: how a model can be asked; the first is the default.
        prompt: key of the instruction in ``prompts.toml``.
        from_predictions: whether raw answers from a file can be scored.
        metrics: the names of its metrics; where ``accuracy`` is one, ``macro_accuracy`` may be too.
    """

    name: str
    needs: tuple[str, ...]
    read: Callable[[Row], dict[str, Any]]
    score: Scorer
    ways: tuple[AnswerMode, ...] = ("generation",)
    prompt: str = "short"
    from_predictions: bool = True
    metrics: tuple[str, ...] = ("accuracy",)

    @property
    def asks(self) -> bool:
        """Whether its items have a question; captions may have one."""
        return self.name not in ("caption", "perplexity", "retrieval")


def mean_scores(scores: Sequence[float], name: str) -> tuple[Floats, MetricFunction]:
    """Counts and metric of a plain mean of scores."""
    counts = np.stack([np.ones(len(scores)), np.asarray(scores, dtype=np.float64)], axis=1)
    return counts, lambda sums: {name: sums[..., 1] / sums[..., 0]}


def text_cell(row: Row, key: str, *, blank: bool = True) -> str:
    """A cell that must hold text, or a number, which stands for its digits.

    Raises:
        ValueError: missing, of another type, not valid Unicode, or blank where that is not allowed.
    """
    return check_text(_digits(cell(row, key)), f"'{key}'", blank=blank)


def _digits(value: Any) -> Any:
    return str(value) if is_number(value) else value


def is_number(value: Any) -> bool:
    """Whether a value is a number that a float can hold: no truth value, infinity or NaN."""
    largest = sys.float_info.max
    return isinstance(value, int | float) and not isinstance(value, bool) and -largest <= value <= largest


def check_text(value: Any, what: str, *, blank: bool = True) -> str:
    """A value that must be text; see :func:`text_cell`."""
    if not isinstance(value, str):
        raise ValueError(f"{what} must be text, got {_shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} is not valid Unicode: {error.reason}") from None
    if not blank and not value.strip():
        raise ValueError(f"{what} is empty")
    return value


def texts_cell(row: Row, key: str) -> tuple[str, ...]:
    """A cell that must hold a list of texts or numbers, not empty; ``[{"answer": text}]`` (VQA) is understood."""
    values = cell(row, key)
    if not isinstance(values, list | tuple):
        raise ValueError(f"'{key}' must be a list of texts, got {_shown(values)}")
    if not values:
        raise ValueError(f"'{key}' is an empty list")
    plain = [value.get("answer") if isinstance(value, dict) else value for value in values]
    return tuple(check_text(_digits(value), f"'{key}'[{place}]") for place, value in enumerate(plain))


def numbers_cell(row: Row, key: str, count: int) -> tuple[float, ...]:
    """A cell that must hold a list of so many finite numbers."""
    values = cell(row, key)
    if not isinstance(values, list | tuple) or len(values) != count:
        raise ValueError(f"'{key}' must be a list of {count} numbers, got {_shown(values)}")
    for value in values:
        if not is_number(value):
            raise ValueError(f"'{key}' must hold finite numbers, got {_shown(value)}")
    return tuple(float(value) for value in values)


def cell(row: Row, key: str) -> Any:
    """A cell that must be there.

    Raises:
        ValueError: it is missing or null.
    """
    if row.get(key) is None:
        raise ValueError(f"'{key}' is {'null' if key in row else 'missing'}")
    return row[key]


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"
