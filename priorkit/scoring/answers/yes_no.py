"""Yes-or-no questions as in POPE.

Source: ``evaluate.py`` of RUCAIBox/POPE (3df3ba1). POPE's rule is biased towards yes: only ``No``,
``no`` and ``not`` as words of the first sentence mean no; ``NO``, ``isn't``, ``none``, an empty answer
and ``no`` with a newline or punctuation attached are parsed as yes. lmms-eval differs: it requires exactly
yes or no, and its yes ratio counts the labels.
"""

from __future__ import annotations

import re
from typing import Literal

from priorkit.scoring.answers.refusals import abstains

YesNo = Literal["yes", "no"]
_NO_WORDS = frozenset({"No", "no", "not"})


def read_yes_no(answer: str) -> YesNo:
    """Parse an answer as POPE does: the text before the first period, without commas, split at spaces."""
    words = answer.split(".", 1)[0].replace(",", "").split(" ")
    return "no" if _NO_WORDS.intersection(words) else "yes"


_WORD = re.compile("[a-z]+(?:['\N{RIGHT SINGLE QUOTATION MARK}]t)?")
_NEGATIONS = frozenset({"no", "not", "none", "never", "cannot"})
_SENTENCE_END = re.compile(r"[.!?;\n]")


_LEADING_YES_NO = re.compile(r"\W*(?:(yes)|no(?=\s*(?:[,.!;:\n]|$)))\b")


def read_yes_no_strict(answer: str) -> YesNo | None:
    """Parse an answer only if it clearly says yes or no.

    The first word decides if it is ``yes`` or ``no``, ignoring case; an answer that abstains
    (:func:`~priorkit.scoring.answers.refusals.abstains`) is None; otherwise the first sentence must contain one of
    the two and not the other, or a negation (``not``, ``isn't``, ``none``). Anything else, such as an empty
    or an evasive answer, is None, although POPE's rule parses it as yes.
    """
    leading = _LEADING_YES_NO.match(answer.lower())
    if leading is not None:
        return "yes" if leading[1] else "no"
    if abstains(answer):
        return None
    sentence = next((part for part in _SENTENCE_END.split(answer.lower()) if part.strip()), "")
    words = _WORD.findall(sentence)
    negates = any(
        word in _NEGATIONS or word.endswith(("n't", "n\N{RIGHT SINGLE QUOTATION MARK}t")) for word in words
    )
    affirms = "yes" in words
    if affirms == negates:
        return None
    return "yes" if affirms else "no"


def read_label(label: str) -> YesNo:
    """A label is no only if it reads ``no``, as in POPE, ignoring case and surrounding whitespace."""
    return "no" if label.strip().lower() == "no" else "yes"
