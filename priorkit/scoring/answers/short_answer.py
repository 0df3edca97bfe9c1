"""Short answers against one true answer: GQA, exact match, ChartQA's relaxed accuracy."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from priorkit.scoring.answers.score import Scored

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


_NUMBERS = re.compile(r"[-−]?\d+(?:,\d{3})*(?:\.\d+)?")


def score_open(prediction: str, answer: str) -> Scored:
    """An open answer of MMMU or MathVista, read without a judge model.

    A true answer that is a number is compared with the last number of the prediction, rounded to the
    decimals of the true one; any other has to stand in the prediction as whole words, whatever the case.
    Ours: MMMU's own rule also takes the answer from anywhere in the response, MathVista's asks a GPT model
    to extract it. An empty reading means that nothing was there to compare.
    """
    true = answer.strip()
    if not true:
        return Scored(0.0, "")
    if _NUMBERS.fullmatch(true):
        found = _NUMBERS.findall(prediction)
        if not found:
            return Scored(0.0, "")
        decimals = len(true.partition(".")[2])
        last, wanted = (float(own.replace(",", "").replace("−", "-")) for own in (found[-1], true))
        return Scored(float(round(last, decimals) == round(wanted, decimals)), found[-1])
    parsed = " ".join(prediction.split()).casefold()
    wanted_text = " ".join(true.split()).casefold()
    inside = re.search(rf"(?<!\w){re.escape(wanted_text)}(?!\w)", parsed)
    return Scored(float(inside is not None), parsed)


def score_ocr(
    prediction: str, answers: Sequence[str], *, formula: bool = False, strict: bool = False
) -> Scored:
    """OCRBench: right where one of the texts occurs in the answer, in any case.

    Source: OCRBench (arXiv 2305.07895) and its task in lmms-eval: line breaks become blanks; formulas
    (HME100k) are compared without blanks, and there only the answer is lower-cased, which the true text is
    not: a formula with a capital letter can never match. That is kept by default.

    Args:
        prediction: the raw answer.
        answers: accepted texts.
        formula: whether blanks are left out.
        strict: formulas are compared as they are written: in LaTeX, case is meaning.
    """
    parsed = prediction.strip().replace("\n", " ")
    texts = [text.strip().replace("\n", " ") for text in answers]
    if not formula:
        parsed = parsed.lower()
        return Scored(float(any(text.lower() in parsed for text in texts)), parsed)
    parsed = parsed.replace(" ", "")
    parsed = parsed if strict else parsed.lower()
    return Scored(float(any(text.replace(" ", "") in parsed for text in texts)), parsed)


def _number(text: str) -> float | None:
    text = text.strip()
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
