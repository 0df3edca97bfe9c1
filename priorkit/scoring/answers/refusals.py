"""Whether an answer abstains: it declines, or says that there is nothing to see.

Ours: the phrases stand in ``refusals.txt``; LSBS (arXiv 2509.26625, appendix H) counts refusals by hand.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

SENTENCES = 2
"""An answer abstains at its beginning; further down such phrases weigh what has been answered."""

_SENTENCE = re.compile(r"(?<=[.!?\n])\s+")
_SPELLED_OUT = (
    (re.compile(r"\bcan't\b|\bcan not\b"), "cannot"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"\bi'm\b"), "i am"),
    (re.compile(r"\b(it|there)'s\b"), r"\1 is"),
)


@cache
def _patterns() -> tuple[re.Pattern[str], frozenset[str]]:
    """The phrases that abstain within an answer, and those that do as the whole of it."""
    text = resources.files("priorkit.scoring.answers").joinpath("refusals.txt").read_text("utf-8")
    phrases = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    inside = [phrase for phrase in phrases if not phrase.startswith("=")]
    whole = frozenset(phrase[1:].strip() for phrase in phrases if phrase.startswith("="))
    return re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, inside)) + r")(?!\w)"), whole


def abstains(answer: str) -> bool:
    """Whether an answer declines in its first two sentences."""
    plain = answer.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").strip()
    for pattern, words in _SPELLED_OUT:
        plain = pattern.sub(words, plain)
    inside, whole = _patterns()
    begins = " ".join(_SENTENCE.split(plain)[:SENTENCES])
    return plain.strip(" .!") in whole or inside.search(begins) is not None
