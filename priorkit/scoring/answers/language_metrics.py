"""Language-model metrics from summed log-probabilities, as lm-evaluation-harness 0.4.13 defines them.

Source: ``api/task.py`` and ``api/metrics.py`` of EleutherAI/lm-evaluation-harness. Natural logarithms
throughout. Two of its conventions matter: ``acc_norm`` divides by *characters* of the choice without
its leading blank (``acc_bytes`` by UTF-8 bytes), and words are the pieces of a split at white space, so
that outer white space adds an empty word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from priorkit.core.errors import InputError

_WHITE_SPACE = re.compile(r"\s+")


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
class TextMetrics:
    """Corpus metrics: sums over all texts first, one division, then the exponential."""

    word_perplexity: float
    byte_perplexity: float
    bits_per_byte: float


@dataclass(frozen=True, slots=True)
class ChoicePrediction:
    """The choice taken by each of the three rules; the first one on ties."""

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
    """Pieces of the text between runs of white space, empty ones at the ends included."""
    return len(_WHITE_SPACE.split(text))


def count_bytes(text: str) -> int:
    """Length of the text in UTF-8."""
    return len(text.encode("utf-8"))


def perplexity(loglikelihood: float, count: int) -> float:
    """``exp(-loglikelihood / count)``; infinite where that is too large for a float.

    Args:
        loglikelihood: sum of natural log-probabilities.
        count: of tokens, words or bytes, whatever the perplexity is to be per.

    Raises:
        InputError: the count is not positive.
    """
    try:
        return math.exp(_per(loglikelihood, count))
    except OverflowError:
        return math.inf


def bits_per_byte(loglikelihood: float, count: int) -> float:
    """``-loglikelihood / (count * ln 2)``: the number that does not depend on the tokenizer."""
    return _per(loglikelihood, count) / math.log(2)


def text_metrics(texts: Iterable[RollingText]) -> TextMetrics:
    """Corpus perplexities and bits per byte.

    Raises:
        InputError: there is no text, or only empty ones.
    """
    kept = list(texts)
    total = math.fsum(text.loglikelihood for text in kept)
    words, size = sum(text.words for text in kept), sum(text.bytes for text in kept)
    return TextMetrics(perplexity(total, words), perplexity(total, size), bits_per_byte(total, size))


def predict_choice(loglikelihoods: Sequence[float], choices: Sequence[str]) -> ChoicePrediction:
    """Take a choice by its summed log-probability, plain and per character and per byte.

    Args:
        loglikelihoods: sum of log-probabilities of each choice's tokens.
        choices: the choices without the blank that joins them to the context.

    Raises:
        InputError: there is no choice, or the lengths differ.
    """
    if not choices or len(loglikelihoods) != len(choices):
        raise InputError(f"{len(loglikelihoods)} log-likelihoods for {len(choices)} choices")
    return ChoicePrediction(
        by_sum=_first_best(loglikelihoods),
        by_characters=_first_best(_lengths_out(loglikelihoods, [len(choice) for choice in choices])),
        by_bytes=_first_best(_lengths_out(loglikelihoods, [count_bytes(choice) for choice in choices])),
    )


def _per(loglikelihood: float, count: int) -> float:
    if count <= 0:
        raise InputError(f"perplexity needs a positive count, got {count}", hint="is the text empty?")
    return -loglikelihood / count


def _lengths_out(values: Sequence[float], lengths: Sequence[int]) -> list[float]:
    return [value / length if length else -math.inf for value, length in zip(values, lengths, strict=True)]


def _first_best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda index: values[index])
