"""Short answers against one true answer: GQA, exact match, ChartQA's relaxed accuracy."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from priorkit.scoring.answers.parsed_score import ParsedScore

_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)


def score_gqa(prediction: str, answer: str) -> ParsedScore:
    """GQA as in LLaVA: without surrounding whitespace and final periods, lower-cased, compared for equality.

    Source: ``model_vqa_loader.py`` and ``convert_gqa_for_eval.py`` of haotian-liu/LLaVA (c121f04) and
    GQA's own ``eval.py``. The true answer is not normalized, as there. lmms-eval differs: it
    ignores case and all ASCII punctuation on both sides.
    """
    parsed = prediction.strip().rstrip(".").lower()
    return ParsedScore(float(parsed == answer), parsed)


def score_exact(
    prediction: str, answer: str, *, ignore_case: bool = False, ignore_punctuation: bool = False
) -> ParsedScore:
    """Exact match without surrounding whitespace, optionally ignoring case or ASCII punctuation."""

    def normalize(text: str) -> str:
        text = text.strip()
        if ignore_punctuation:
            text = text.translate(_ASCII_PUNCTUATION)
        return text.lower() if ignore_case else text

    parsed = normalize(prediction)
    return ParsedScore(float(parsed == normalize(answer)), parsed)


def score_relaxed(prediction: str, answer: str, tolerance: float = 0.05) -> ParsedScore:
    """ChartQA's relaxed accuracy: a number may be off by 5 % of the true one, texts must be equal.

    Source: ChartQA (arXiv 2203.10244, section 5.1) in the form of pix2struct's ``metrics.py``: ``12%``
    is 0.12; if the prediction is not a number or the true number is 0, lower-cased texts must be equal.
    """
    predicted, true = _number(prediction), _number(answer)
    if predicted is None or not true:
        parsed = prediction.strip().lower()
        return ParsedScore(float(parsed == answer.strip().lower()), parsed)
    return ParsedScore(float(abs(predicted - true) / abs(true) <= tolerance), repr(predicted))


_NUMBERS = re.compile(r"[-−]?\d+(?:,\d{3})*(?:\.\d+)?")


def score_open(prediction: str, answer: str) -> ParsedScore:
    """An open answer of MMMU or MathVista, parsed without a judge model.

    A true answer that is a number is compared with the last number of the prediction, rounded to the
    decimals of the true one; any other must occur in the prediction as full words, ignoring case.
    Our own rule: MMMU's own rule also takes the answer from anywhere in the response, MathVista's asks a GPT model
    to extract it. An empty ``parsed`` means that there was nothing to compare.
    """
    true = answer.strip()
    if not true:
        return ParsedScore(0.0, "")
    if _NUMBERS.fullmatch(true):
        numbers = _NUMBERS.findall(prediction)
        if not numbers:
            return ParsedScore(0.0, "")
        decimals = len(true.partition(".")[2])
        last, expected = (float(text.replace(",", "").replace("−", "-")) for text in (numbers[-1], true))
        return ParsedScore(float(round(last, decimals) == round(expected, decimals)), numbers[-1])
    parsed = " ".join(prediction.split()).casefold()
    expected_text = " ".join(true.split()).casefold()
    inside = re.search(rf"(?<!\w){re.escape(expected_text)}(?!\w)", parsed)
    return ParsedScore(float(inside is not None), parsed)


def score_ocr(
    prediction: str, answers: Sequence[str], *, formula: bool = False, strict: bool = False
) -> ParsedScore:
    """OCRBench: correct if one of the texts occurs in the answer, ignoring case.

    Source: OCRBench (arXiv 2305.07895) and its task in lmms-eval: line breaks become spaces; formulas
    (HME100k) are compared without spaces, and there only the answer is lower-cased, not the true text: a
    formula with a capital letter can never match. The default keeps this.

    Args:
        prediction: the raw answer.
        answers: accepted texts.
        formula: compare without spaces.
        strict: compare formulas case-sensitively, as LaTeX is.
    """
    parsed = prediction.strip().replace("\n", " ")
    texts = [text.strip().replace("\n", " ") for text in answers]
    if not formula:
        parsed = parsed.lower()
        return ParsedScore(float(any(text.lower() in parsed for text in texts)), parsed)
    parsed = parsed.replace(" ", "")
    parsed = parsed if strict else parsed.lower()
    return ParsedScore(float(any(text.replace(" ", "") in parsed for text in texts)), parsed)


def _number(text: str) -> float | None:
    text = text.strip()
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
