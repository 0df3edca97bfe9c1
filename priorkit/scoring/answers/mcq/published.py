"""Published rules for multiple-choice answers, and all parsers by name.

Each rule takes from an answer what its paper's or harness's scorer takes, traps included. Where a scorer draws an
option at random or asks another model, the answer is unparsed here.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence

from priorkit.scoring.answers.mcq.parser import read_choice, read_choice_lsbs

Parser = Callable[[str, Sequence[str]], "int | None"]
"""From a raw answer and the option texts to the index of an option, None where it is unparsed."""

_VLMEVALKIT_REFUSALS = (
    "Failed to obtain answer via API",
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)


def read_first_letter(answer: str, options: Sequence[str]) -> int | None:
    """SEED-Bench in lmms-eval: the first character, where it is the upper-case letter of an option.

    Trap, kept: ``Because ...`` is B.
    """
    return _index(answer.strip()[:1], options)


def read_only_letter(answer: str, options: Sequence[str]) -> int | None:
    """AI2D in lmms-eval: the full answer is a letter, whatever its case and ASCII punctuation (``exact_match``)."""
    text = answer.lower().translate(str.maketrans("", "", string.punctuation))
    return _index(text.strip().upper(), options)


def read_leading_letter(answer: str, options: Sequence[str]) -> int | None:
    """CV-Bench and BLINK in lmms-eval: the first character after opening brackets, in any case.

    Trap, kept: every answer that begins with a word has that word's first letter.
    """
    match = re.match(r"[(\s]*([A-Z])", answer.strip(), re.IGNORECASE)
    return _index(match[1].upper(), options) if match else None


def read_scienceqa(answer: str, options: Sequence[str]) -> int | None:
    """ScienceQA in LLaVA (``eval_science_qa.py``): a letter, ``A. ...``, or the only ``The answer is A.``

    Trap, kept: any character may follow the letter, so that ``The answer is Apple`` is A.
    """
    letters = "ABCDE"
    if answer in tuple(letters):
        return _index(answer, options)
    if len(answer) >= 3 and answer[0] in letters and answer[1:3] == ". ":
        return _index(answer[0], options)
    matches = re.findall(r"The answer is ([A-Z]).", answer)
    return _index(matches[0], options) if len(matches) == 1 else None


def read_mmmu(answer: str, options: Sequence[str]) -> int | None:
    """MMMU's ``parse_multi_choice_response``: a letter in brackets, before a blank or a full stop, else a text.

    Of several the last counts. Option texts are searched for in answers of more than five words only. Traps, kept:
    ``A`` before a blank is a letter wherever a word ends in it, the article included.
    """
    for char in ",.!?;:'":
        answer = answer.strip(char)
    text = f" {answer} "
    letters = string.ascii_uppercase[: len(options)]
    for form, position in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        candidates = [letter for letter in letters if form.format(letter) in text]
        if candidates:
            places = [text.rfind(position.format(letter)) for letter in candidates]
            return letters.index(candidates[places.index(max(places))])
    if len(text.split()) <= 5:
        return None
    places = [text.lower().rfind(option.lower()) for option in options]
    return places.index(max(places)) if max(places, default=-1) >= 0 else None


def read_vlmevalkit(answer: str, options: Sequence[str]) -> int | None:
    """VLMEvalKit's ``can_infer`` (MMBench): the only option letter among the words, else the only text contained.

    Texts are searched for where the answer is at most twice as long as all options together. Answers that it hands
    to a language model are unparsed here.
    """
    if any(refusal in answer for refusal in _VLMEVALKIT_REFUSALS):
        return None
    words = answer.translate(str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))).split()
    letters = [index for index in range(len(options)) if string.ascii_uppercase[index] in words]
    if len(letters) == 1:
        return letters[0]
    folded, texts = answer.lower(), [option.lower() for option in options]
    if len(folded) > 2 * sum(map(len, texts)):
        return None
    contained = [index for index, text in enumerate(texts) if text in folded]
    return contained[0] if len(contained) == 1 else None


def _index(letter: str, options: Sequence[str]) -> int | None:
    index = string.ascii_uppercase.find(letter) if len(letter) == 1 else -1
    return index if 0 <= index < len(options) else None


PARSERS: dict[str, Parser] = {
    "careful": read_choice,
    "lsbs": read_choice_lsbs,
    "mmmu": read_mmmu,
    "vlmevalkit": read_vlmevalkit,
    "scienceqa": read_scienceqa,
    "first-letter": read_first_letter,
    "only-letter": read_only_letter,
    "leading-letter": read_leading_letter,
}
"""Parsers of multiple-choice answers by name."""


def parser_metric(parser: str) -> str:
    """Name of the accuracy under a parser that is not the one in use."""
    return f"accuracy_{parser.replace('-', '_')}"
