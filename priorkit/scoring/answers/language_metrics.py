"""Language-model metrics from summed log-probabilities, as lm-evaluation-harness 0.4.13 defines them.

Source: ``api/task.py`` and ``api/metrics.py`` of EleutherAI/lm-evaluation-harness. Natural logarithms
throughout. Two of its conventions: ``acc_norm`` divides by the *characters* of the choice without its
leading space (``acc_bytes`` by UTF-8 bytes), and words are the pieces of a split at whitespace, so that
leading or trailing whitespace adds an empty word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from priorkit.core.errors import InputError

_WHITESPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class RollingText:
    """A text and the sum of the log-probabilities of all its tokens."""

    loglikelihood: float
    words: int
    bytes: int

    @classmethod
    def of(cls, text: str, loglikelihood: float) -> RollingText:
        """Count the words and bytes of a text."""
        return cls(loglikelihood, count_words(text), count_bytes(text))


@dataclass(frozen=True, slots=True)
class ChoicePrediction:
    """The choice selected by each of the three rules; the first one on ties."""

    by_sum: int
    by_characters: int
    by_bytes: int

    def accuracies(self, gold: int) -> dict[str, float]:
        """``acc``, ``acc_norm`` and ``acc_bytes`` (0 or 1) of one item."""
        return {
            "acc": float(self.by_sum == gold),
            "acc_norm": float(self.by_characters == gold),
            "acc_bytes": float(self.by_bytes == gold),
        }


def count_words(text: str) -> int:
    """Pieces of the text between runs of whitespace, including empty ones at the ends."""
    return len(_WHITESPACE.split(text))


def count_bytes(text: str) -> int:
    """Length of the text in UTF-8."""
    return len(text.encode("utf-8"))


def bits_per_byte(loglikelihood: float, count: int) -> float:
    """``-loglikelihood / (count * ln 2)``, which does not depend on the tokenizer.

    Raises:
        InputError: the count is not positive.
    """
    if count <= 0:
        raise InputError(f"perplexity needs a positive count, got {count}", hint="is the text empty?")
    return -loglikelihood / count / math.log(2)


def predict_choice(loglikelihoods: Sequence[float], choices: Sequence[str]) -> ChoicePrediction:
    """Select a choice by its summed log-probability: unnormalized, per character, and per byte.

    Args:
        loglikelihoods: sum of log-probabilities of each choice's tokens.
        choices: the choices without the space that joins them to the context.

    Raises:
        InputError: there is no choice, or the lengths differ.
    """
    if not choices or len(loglikelihoods) != len(choices):
        raise InputError(f"{len(loglikelihoods)} log-likelihoods for {len(choices)} choices")
    return ChoicePrediction(
        by_sum=_argmax(loglikelihoods),
        by_characters=_argmax(_length_normalized(loglikelihoods, [len(choice) for choice in choices])),
        by_bytes=_argmax(_length_normalized(loglikelihoods, [count_bytes(choice) for choice in choices])),
    )


def _length_normalized(values: Sequence[float], lengths: Sequence[int]) -> list[float]:
    return [value / length if length else -math.inf for value, length in zip(values, lengths, strict=True)]


def _argmax(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda index: values[index])
