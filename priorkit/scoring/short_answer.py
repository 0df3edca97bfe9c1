"""Short answers against one true answer: GQA, exact match, ChartQA's relaxed accuracy."""

from __future__ import annotations

import string

from priorkit.scoring.reading import Scored

_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)


def score_gqa(prediction: str, answer: str) -> Scored:
    """GQA in LLaVA's convention: outer white space and final full stops go, lower case, then equality.

    Source: ``model_vqa_loader.py`` and ``convert_gqa_for_eval.py`` of haotian-liu/LLaVA (c121f04) and
    GQA's own ``eval.py``. The true answer is compared as it stands, as there. lmms-eval differs: it
    ignores case and all ASCII punctuation on both sides.
    """
    parsed = prediction.strip().rstrip(".").lower()
    return Scored(float(parsed == answer), parsed)


def score_exact(
    prediction: str, answer: str, *, ignore_case: bool = False, ignore_punctuation: bool = False
) -> Scored:
    """Exact match after stripping outer white space, optionally without case or ASCII punctuation."""

    def normalise(text: str) -> str:
        text = text.strip()
        if ignore_punctuation:
            text = text.translate(_ASCII_PUNCTUATION)
        return text.lower() if ignore_case else text

    parsed = normalise(prediction)
    return Scored(float(parsed == normalise(answer)), parsed)


def score_relaxed(prediction: str, answer: str, tolerance: float = 0.05) -> Scored:
    """ChartQA's relaxed accuracy: a number may be off by 5 % of the true one, text must be equal.

    Source: ChartQA (arXiv 2203.10244, section 5.1) in the form of pix2struct's ``metrics.py``: ``12%``
    is 0.12; where the prediction is no number or the true number is 0, lower-cased texts must be equal.
    """
    predicted, true = _number(prediction), _number(answer)
    if predicted is None or not true:
        parsed = prediction.strip().lower()
        return Scored(float(parsed == answer.strip().lower()), parsed)
    return Scored(float(abs(predicted - true) / abs(true) <= tolerance), repr(predicted))


def _number(text: str) -> float | None:
    text = text.strip()
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
