"""Yes-or-no questions as in POPE.

Source: ``evaluate.py`` of RUCAIBox/POPE (3df3ba1). The reading leans towards yes: only ``No``,
``no`` and ``not`` as whole words of the first sentence mean no; ``NO``, ``isn't``, ``none``, an empty
answer and ``no`` with a newline or mark attached are read as yes. lmms-eval differs twice: it wants
exactly yes or no, and its yes ratio counts the labels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from priorkit.core.errors import InputError
from priorkit.scoring.answers.refusals import abstains

YesNo = Literal["yes", "no"]
_NO_WORDS = frozenset({"No", "no", "not"})


@dataclass(frozen=True, slots=True)
class YesNoMetrics:
    """Counts and rates with yes as the positive class; a rate over nothing is 0."""

    true_positive: int
    false_positive: int
    true_negative: int
    false_negative: int

    @property
    def items(self) -> int:
        """Number of questions."""
        return self.true_positive + self.false_positive + self.true_negative + self.false_negative

    @property
    def accuracy(self) -> float:
        """Share of questions answered rightly."""
        return _share(self.true_positive + self.true_negative, self.items)

    @property
    def precision(self) -> float:
        """Share of yes readings that are right."""
        return _share(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float:
        """Share of yes questions read as yes."""
        return _share(self.true_positive, self.true_positive + self.false_negative)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0

    @property
    def yes_ratio(self) -> float:
        """Share of answers read as yes (of the answers, not of the labels)."""
        return _share(self.true_positive + self.false_positive, self.items)


def read_yes_no(answer: str) -> YesNo:
    """Read an answer as POPE does: the text before the first full stop, without commas, split at blanks."""
    words = answer.split(".", 1)[0].replace(",", "").split(" ")
    return "no" if _NO_WORDS.intersection(words) else "yes"


_WORD = re.compile("[a-z]+(?:['\N{RIGHT SINGLE QUOTATION MARK}]t)?")
_DENIALS = frozenset({"no", "not", "none", "never", "cannot"})
_SENTENCE_END = re.compile(r"[.!?;\n]")


_SAID_FIRST = re.compile(r"\W*(?:(yes)|no(?=\s*(?:[,.!;:\n]|$)))\b")


def read_yes_no_strict(answer: str) -> YesNo | None:
    """Read an answer only where it says yes or no.

    The first word decides where it is ``yes`` or ``no`` in any case; an answer that abstains
    (:func:`~priorkit.scoring.answers.refusals.abstains`) is None; otherwise the first sentence has to hold one of
    the two and not the other, or deny (``not``, ``isn't``, ``none``). Whatever else POPE's own rule reads
    as yes, above all an empty or an evasive answer, is None.
    """
    said = _SAID_FIRST.match(answer.lower())
    if said is not None:
        return "yes" if said[1] else "no"
    if abstains(answer):
        return None
    sentence = next((part for part in _SENTENCE_END.split(answer.lower()) if part.strip()), "")
    words = _WORD.findall(sentence)
    denies = any(
        word in _DENIALS or word.endswith(("n't", "n\N{RIGHT SINGLE QUOTATION MARK}t")) for word in words
    )
    says = "yes" in words
    if says == denies:
        return None
    return "yes" if says else "no"


def read_label(label: str) -> YesNo:
    """A label is no only where it says ``no``, as in POPE; case and outer white space do not matter."""
    return "no" if label.strip().lower() == "no" else "yes"


def yes_no_metrics(readings: Sequence[YesNo], labels: Sequence[YesNo]) -> YesNoMetrics:
    """Count readings against labels.

    Raises:
        InputError: the two differ in length.
    """
    if len(readings) != len(labels):
        raise InputError(f"{len(readings)} answers for {len(labels)} labels")
    pairs = list(zip(readings, labels, strict=True))
    return YesNoMetrics(
        true_positive=pairs.count(("yes", "yes")),
        false_positive=pairs.count(("yes", "no")),
        true_negative=pairs.count(("no", "no")),
        false_negative=pairs.count(("no", "yes")),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
