"""Caption metrics over a corpus: CIDEr-D, BLEU-1 to 4 and ROUGE-L, equal to pycocoevalcap 1.2.

Sources: ``cider_scorer.py``, ``bleu_scorer.py`` and ``rouge.py`` of salaniz/pycocoevalcap (ad63453).
All metrics use the tokens of :mod:`priorkit.scoring.answers.ptb_tokenizer`. Quirks kept:

- What is called CIDEr there is CIDEr-D. Its length penalty compares numbers of *bigrams*, one less than
  the number of words on both sides, so that the score equals that by words. Document frequencies come from
  the references of the corpus itself, so that a corpus of one image scores 0.
- BLEU is smoothed by 1e-15 and 1e-9, per caption and over the corpus.
- ROUGE-L takes the best precision and the best recall over the references separately, and an empty
  sentence counts as one empty token.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from priorkit.core.errors import InputError
from priorkit.scoring.answers.ptb_tokenizer import tokenize_all

Tokens = Sequence[str]
_Gram = tuple[str, ...]

_MAX_N = 4
_LENGTH_SIGMA = 6.0
_ROUGE_BETA = 1.2
_TINY, _SMALL = 1e-15, 1e-9


@dataclass(frozen=True, slots=True)
class CorpusScore:
    """A metric over the corpus and for each caption, in order."""

    corpus: float
    captions: list[float]


@dataclass(frozen=True, slots=True)
class CaptionScores:
    """All metrics of one corpus.

    ``bleu[n - 1]`` is BLEU-n, ``bleu_counts`` what each caption contributes; ``parsed`` holds the joined tokens.
    """

    cider: CorpusScore
    bleu: tuple[CorpusScore, CorpusScore, CorpusScore, CorpusScore]
    rouge_l: CorpusScore
    bleu_counts: list[BleuCounts]
    parsed: list[str]


def score_captions(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScores:
    """Tokenize and score captions.

    Args:
        candidates: one caption per image.
        references: one or more reference captions per image.

    Raises:
        InputError: the lengths differ, there is no image, or an image has no reference.
    """
    candidate_tokens = tokenize_all(candidates)
    reference_tokens = [tokenize_all(group) for group in references]
    counts = bleu_counts(candidate_tokens, reference_tokens)
    return CaptionScores(
        cider=cider(candidate_tokens, reference_tokens),
        bleu=bleu_scores(counts),
        rouge_l=rouge_l(candidate_tokens, reference_tokens),
        bleu_counts=counts,
        parsed=[" ".join(tokens) for tokens in candidate_tokens],
    )


def cider(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> CorpusScore:
    """CIDEr-D, times ten as usual; arguments are the tokens of each caption."""
    _check_lengths(candidates, references)
    reference_counts = [[_ngram_counts(tokens) for tokens in group] for group in references]
    frequency: Counter[_Gram] = Counter()
    for group in reference_counts:
        frequency.update({gram for counts in group for gram in counts})
    log_images = math.log(len(references))
    idf = {gram: log_images - math.log(count) for gram, count in frequency.items()}

    scores: list[float] = []
    for tokens, group in zip(candidates, reference_counts, strict=True):
        candidate = _Vector.of(_ngram_counts(tokens), idf, log_images)
        total = sum(_similarity(candidate, _Vector.of(counts, idf, log_images)) for counts in group)
        scores.append(10.0 * total / len(group))
    return CorpusScore(sum(scores) / len(scores), scores)


def bleu_counts(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> list[BleuCounts]:
    """What each caption contributes to corpus BLEU; arguments are the tokens of each caption."""
    _check_lengths(candidates, references)
    return [_bleu_counts(tokens, group) for tokens, group in zip(candidates, references, strict=True)]


def bleu_scores(counts: Sequence[BleuCounts]) -> tuple[CorpusScore, CorpusScore, CorpusScore, CorpusScore]:
    """BLEU-1 to BLEU-4 with the closest reference length."""
    per_caption = [caption.scores() for caption in counts]
    total = BleuCounts(0, 0, (0,) * _MAX_N, (0,) * _MAX_N)
    for caption in counts:
        total = total + caption
    one, two, three, four = (
        CorpusScore(corpus, [scores[order] for scores in per_caption])
        for order, corpus in enumerate(total.scores())
    )
    return one, two, three, four


def rouge_l(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> CorpusScore:
    """ROUGE-L with beta 1.2; arguments are the tokens of each caption."""
    _check_lengths(candidates, references)
    scores = [
        _rouge_l(list(tokens) or [""], [list(reference) or [""] for reference in group])
        for tokens, group in zip(candidates, references, strict=True)
    ]
    return CorpusScore(sum(scores) / len(scores), scores)


def _check_lengths(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> None:
    if not candidates or len(candidates) != len(references):
        raise InputError(f"{len(candidates)} captions for {len(references)} sets of references")
    for index, group in enumerate(references):
        if not group:
            raise InputError("an image has no reference caption", where=f"item {index}")


def _ngram_counts(tokens: Tokens) -> Counter[_Gram]:
    words = tuple(tokens)
    return Counter(
        words[start : start + n] for n in range(1, _MAX_N + 1) for start in range(len(words) - n + 1)
    )


@dataclass(frozen=True, slots=True)
class _Vector:
    """tf-idf weights of a sentence's n-grams, their L2 norm for each n, and the number of bigrams."""

    weights: dict[_Gram, float]
    norms: tuple[float, ...]
    bigrams: int

    @classmethod
    def of(cls, counts: Counter[_Gram], idf: dict[_Gram, float], unseen: float) -> _Vector:
        weights = {gram: count * idf.get(gram, unseen) for gram, count in counts.items()}
        squares = [0.0] * _MAX_N
        bigrams = 0
        for gram, weight in weights.items():
            squares[len(gram) - 1] += weight * weight
            if len(gram) == 2:
                bigrams += counts[gram]
        return cls(weights, tuple(map(math.sqrt, squares)), bigrams)


def _similarity(candidate: _Vector, reference: _Vector) -> float:
    """Mean over n of the clipped cosine, times the Gaussian penalty on the length difference."""
    products = [0.0] * _MAX_N
    for gram, weight in candidate.weights.items():
        other = reference.weights.get(gram)
        if other is not None:
            products[len(gram) - 1] += min(weight, other) * other
    norms = (a * b for a, b in zip(candidate.norms, reference.norms, strict=True))
    cosines = [product / norm if norm else product for product, norm in zip(products, norms, strict=True)]
    difference = candidate.bigrams - reference.bigrams
    return math.exp(-(difference**2) / (2 * _LENGTH_SIGMA**2)) * sum(cosines) / _MAX_N


@dataclass(frozen=True, slots=True)
class BleuCounts:
    """Lengths of a caption and of its closest reference; matched and total n-grams, n = 1 to 4."""

    length: float
    reference_length: float
    correct: tuple[float, ...]
    guessed: tuple[float, ...]

    @classmethod
    def of_row(cls, row: Sequence[float]) -> BleuCounts:
        """The counts, or sums of counts, from a :meth:`row`."""
        return cls(row[0], row[1], tuple(row[2 : 2 + _MAX_N]), tuple(row[2 + _MAX_N :]))

    def row(self) -> tuple[float, ...]:
        """All numbers as one row, for summing and resampling."""
        return (self.length, self.reference_length, *self.correct, *self.guessed)

    def __add__(self, other: BleuCounts) -> BleuCounts:
        return BleuCounts(
            self.length + other.length,
            self.reference_length + other.reference_length,
            tuple(map(sum, zip(self.correct, other.correct, strict=True))),
            tuple(map(sum, zip(self.guessed, other.guessed, strict=True))),
        )

    def scores(self) -> list[float]:
        """BLEU-1 to BLEU-4 of these counts."""
        ratio = (self.length + _TINY) / (self.reference_length + _SMALL)
        penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
        scores: list[float] = []
        product = 1.0
        for order, (correct, guessed) in enumerate(zip(self.correct, self.guessed, strict=True), 1):
            product *= (correct + _TINY) / (guessed + _SMALL)
            scores.append(penalty * product ** (1 / order))
        return scores


def _bleu_counts(tokens: Tokens, references: Sequence[Tokens]) -> BleuCounts:
    max_counts: Counter[_Gram] = Counter()
    for reference in references:
        max_counts |= _ngram_counts(reference)
    correct = [0] * _MAX_N
    for gram, count in _ngram_counts(tokens).items():
        correct[len(gram) - 1] += min(count, max_counts[gram])
    closest = min((abs(len(reference) - len(tokens)), len(reference)) for reference in references)[1]
    guessed = tuple(max(0, len(tokens) - n + 1) for n in range(1, _MAX_N + 1))
    return BleuCounts(len(tokens), closest, tuple(correct), guessed)


def _rouge_l(tokens: Tokens, references: Sequence[Tokens]) -> float:
    common = [_longest_common_subsequence(tokens, reference) for reference in references]
    precision = max(length / len(tokens) for length in common)
    recall = max(length / len(reference) for length, reference in zip(common, references, strict=True))
    if not precision or not recall:
        return 0.0
    return (1 + _ROUGE_BETA**2) * precision * recall / (recall + _ROUGE_BETA**2 * precision)


def _longest_common_subsequence(first: Tokens, second: Tokens) -> int:
    """Length of the longest common subsequence, a row of the table at a time in the bits of one integer.

    Source: Hyyro, "Bit-parallel LCS-length computation revisited" (AWOCA 2004).
    """
    positions: dict[str, int] = {}
    for index, token in enumerate(first):
        positions[token] = positions.get(token, 0) | 1 << index
    full = (1 << len(first)) - 1
    row = full
    for token in second:
        matched = row & positions.get(token, 0)
        row = ((row + matched) | (row - matched)) & full
    return len(first) - row.bit_count()
