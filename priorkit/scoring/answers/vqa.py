"""VQA v2 and TextVQA accuracy: how many of the human answers agree with the prediction.

Sources: ``vqaEval.py`` of GT-Vision-Lab/VQA (a013f00) and ``m4c_evaluators.py`` of
facebookresearch/mmf (b0ffc7f). Their quirks affect published numbers and are kept:

- VQA v2 compares raw strings if all human answers are equal, normalized ones otherwise;
  TextVQA always normalizes.
- The punctuation test uses the original text: one mark next to a space deletes all of its kind, and a
  comma between digits deletes every mark instead of replacing it by a space.
- The pattern for periods was meant to check for a preceding digit but does not, and a flag passed as the
  count stops it after 32 periods. ``strict`` fixes these two and nothing else.
- Articles are dropped even if they are the answer; ``somebody'd`` becomes ``somebodyd``;
  contractions with a capital (``I'm``) are never restored, since the text is lower case by then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

from priorkit.core.errors import InputError
from priorkit.scoring.answers.parsed_score import ParsedScore

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_PERIOD_STRICT = re.compile(r"(?<!\d)\.(?!\d)")
_MAX_PERIODS = 32
_NUMBER_WORDS = {"none": "0"} | {
    word: str(value)
    for value, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    )
}
_ARTICLES = frozenset({"a", "an", "the"})

# The contractions that the official table restores; its keys are these words with one apostrophe missing.
_RESTORED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't
he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've
mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't
shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's
something'd something'd've something'll that's there'd there'd've there're there's they'd they'd've
they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _contraction_table() -> dict[str, str]:
    table = {"somebody'd": "somebodyd"}
    for word in _RESTORED.split():
        for position, character in enumerate(word):
            if character == "'":
                table[word[:position] + word[position + 1 :]] = word
    return table


_CONTRACTIONS = _contraction_table()


def score_vqa(prediction: str, answers: Sequence[str], *, strict: bool = False) -> ParsedScore:
    """Score one prediction by the official VQA v2 rule.

    Args:
        prediction: the model's answer.
        answers: the human answers, ten in the official data; see :func:`human_agreement` for fewer.
        strict: remove periods as the rule intends, not as its code does; see :func:`normalize_vqa`.

    Returns:
        The accuracy, and the prediction in the form compared.

    Raises:
        InputError: there is no answer.
    """
    stripped = [_strip(answer) for answer in answers]
    same = len(set(stripped)) <= 1
    normalize = partial(normalize_vqa, strict=strict)
    return _score(_strip(prediction), stripped, (lambda text: text) if same else normalize)


def score_textvqa(prediction: str, answers: Sequence[str], *, strict: bool = False) -> ParsedScore:
    """Score one prediction by the TextVQA (M4C, EvalAI) rule; arguments as in :func:`score_vqa`."""
    return _score(prediction, answers, partial(normalize_textvqa, strict=strict))


def normalize_vqa(text: str, *, strict: bool = False) -> str:
    """The VQA v2 form of an answer: punctuation, case, number words, articles, contractions.

    By default, the first 32 periods that no digit follows are removed, so that ``3.`` becomes 3; with
    ``strict``, all that are not next to a digit, and ``3.`` stays.
    """
    return _digits_and_articles(_punctuation(_strip(text), strict))


def normalize_textvqa(text: str, *, strict: bool = False) -> str:
    """The TextVQA form: commas and question marks are removed, ``'s`` is split off, then as VQA v2."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return normalize_vqa(text, strict=strict)


def human_agreement(prediction: str, answers: Sequence[str]) -> float:
    """Mean over the leave-one-out subsets of ``min(1, matches among the others / 3)``.

    With ten answers 0, 1, 2, 3 and 4 or more matches give 0, 0.3, 0.6, 0.9 and 1. With fewer than four
    answers, all others must match; a single answer must match itself.

    Raises:
        InputError: there is no answer.
    """
    if not answers:
        raise InputError("an item has no answers", hint="give at least one answer per item")
    matches = sum(answer == prediction for answer in answers)
    if len(answers) == 1:
        return float(matches)
    needed = min(3, len(answers) - 1)
    left_out_matches = matches * min(1.0, (matches - 1) / needed) if matches else 0.0
    left_out_differs = (len(answers) - matches) * min(1.0, matches / needed)
    return (left_out_matches + left_out_differs) / len(answers)


def _score(prediction: str, answers: Sequence[str], normalize: Callable[[str], str]) -> ParsedScore:
    parsed = normalize(prediction)
    return ParsedScore(human_agreement(parsed, [normalize(answer) for answer in answers]), parsed)


def _strip(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _punctuation(text: str, strict: bool) -> str:
    has_comma_in_number = _COMMA_IN_NUMBER.search(text) is not None
    cleaned = text
    for mark in _MARKS:
        delete = has_comma_in_number or f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if delete else " ")
    if strict:
        return _PERIOD_STRICT.sub("", cleaned)
    return _PERIOD.sub("", cleaned, count=_MAX_PERIODS)


def _digits_and_articles(text: str) -> str:
    words = (_NUMBER_WORDS.get(word, word) for word in text.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)
