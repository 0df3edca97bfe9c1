"""Detects abstentions: answers that decline, or say that nothing can be seen.

Our own list of phrases, ``refusals.txt``; LSBS (arXiv 2509.26625, appendix H) counts refusals by hand.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

SENTENCES = 2
"""Only the first sentences are searched; later, such phrases qualify an answer already given."""

_SENTENCE = re.compile(r"(?<=[.!?\n])\s+")
_SPELLED_OUT = (
    (re.compile(r"\bcan't\b|\bcan not\b"), "cannot"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"\bi'm\b"), "i am"),
    (re.compile(r"\b(it|there)'s\b"), r"\1 is"),
)


@cache
def _patterns() -> tuple[re.Pattern[str], frozenset[str]]:
    """Phrases that mark an abstention anywhere, and those that do only as the entire answer."""
    text = resources.files("priorkit.scoring.answers").joinpath("refusals.txt").read_text("utf-8")
    phrases = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    inside = [phrase for phrase in phrases if not phrase.startswith("=")]
    entire = frozenset(phrase[1:].strip() for phrase in phrases if phrase.startswith("="))
    return re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, inside)) + r")(?!\w)"), entire


def abstains(answer: str) -> bool:
    """Whether an answer declines in its first two sentences."""
    plain = answer.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").strip()
    for pattern, replacement in _SPELLED_OUT:
        plain = pattern.sub(replacement, plain)
    inside, entire = _patterns()
    beginning = " ".join(_SENTENCE.split(plain)[:SENTENCES])
    return plain.strip(" .!") in entire or inside.search(beginning) is not None
