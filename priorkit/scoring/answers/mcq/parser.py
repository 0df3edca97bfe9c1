"""Parses the option that a free-text answer to a multiple-choice question selects.

:func:`read_choice` aims to agree with a careful human reader and never guesses: None for no option, several
options, a letter out of range, or a letter and a text that contradict each other. :func:`read_choice_lsbs` is the rule of the LSBS paper, for replicating its numbers.

The stages of :func:`read_choice`:

1. :mod:`~priorkit.scoring.answers.mcq.text`: plain text, without reasoning blocks, markup and further turns.
2. :mod:`~priorkit.scoring.answers.mcq.mentions`: mentions of options by letter, label, ordinal or text are marked.
3. :mod:`~priorkit.scoring.answers.mcq.grammar`: a label and its text form one unit; lists of all options
   are removed; negated and doubted mentions are excluded.
4. :mod:`~priorkit.scoring.answers.mcq.conclusions`: the option that the remaining mentions select, or None.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from priorkit.scoring.answers.mcq.conclusions import conclusion
from priorkit.scoring.answers.mcq.grammar import drop_enumerations, join_units
from priorkit.scoring.answers.mcq.mentions import OUT_OF_RANGE, mark_mentions
from priorkit.scoring.answers.mcq.options import Options
from priorkit.scoring.answers.mcq.text import plain, prefixes_before_next_turn, readable

_FILLERS = frozenset(["a", "an", "the", "on", "in", "at", "to", "of", "it", "is", "its", "there", "are"])
_NUMBER_AND_UNIT = re.compile(r"(-?\d+(?:\.\d+)?)\s?[^\d\s]+")


def read_choice(answer: str, options: Sequence[str]) -> int | None:
    """The index of the option that the answer selects, as judged by a careful human reader.

    Args:
        answer: the model's raw text.
        options: 2 to 26 option texts, labelled A, B, C and so on, or with their own labels.

    Returns:
        An index into ``options``, or None if the answer does not select exactly one.
    """
    # If the answer continues with another question, only the part before it counts.
    choices = (_parse(text, options) for text in prefixes_before_next_turn(readable(answer)))
    return next((choice for choice in choices if choice is not None), None)


def _parse(text: str, options: Sequence[str]) -> int | None:
    marked = mark_mentions(text, options)
    if not marked.mentions:
        return _by_content_words(text, options)
    units = join_units(marked)
    drop_enumerations(marked, units)
    selected = conclusion(marked)
    return selected if selected != OUT_OF_RANGE else None


def _by_content_words(answer: str, options: Sequence[str]) -> int | None:
    """The option that equals the entire answer except for function words, a unit, or the common ending of all options.

    ``left`` for ``on the left``, ``15`` for ``15 cm``, ``behind`` for ``behind the car``.
    """
    texts = Options.of(options).texts
    given = _content(answer)
    if not given or all(_content(text)[-len(given) :] == given for text in texts):
        return None
    variants = [[_content(text) for text in texts], [text.split() for text in _without_shared_ending(texts)]]
    if all(_NUMBER_AND_UNIT.fullmatch(text) for text in texts):
        variants.append([_NUMBER_AND_UNIT.findall(text) for text in texts])
    for variant in variants:
        if given in variant:
            return variant.index(given) if variant.count(given) == 1 else None
    return None


def _content(text: str) -> list[str]:
    words = re.findall(r"-?\w+", plain(text).casefold())
    letter = words[-1:] if words[-1:] == ["a"] else []
    return [word for word in words if word not in _FILLERS] + letter


def _without_shared_ending(texts: Sequence[str]) -> list[str]:
    """``behind``, ``next to`` of ``behind the car``, ``next to the car``; the texts where they end differently."""
    words = [text.split() for text in texts]
    while min(map(len, words)) > 1 and len({text[-1] for text in words}) == 1:
        words = [text[:-1] for text in words]
    return [" ".join(text) for text in words]


def read_choice_lsbs(answer: str, options: Sequence[str]) -> int | None:
    """The three-step rule of LSBS (arXiv 2509.26625, appendix on parsing); the first hit wins.

    Upper-case letters in a few fixed places; then the full answer equal to an option text; then the
    longest option text contained in the answer, without word borders. Known traps, kept: an article A
    after "answer is" is a letter, ``car`` is found in ``carpet``, and negation is not seen.
    """
    answer = answer.strip()
    letter = rf"([{'ABCDEFGHIJKLMNOPQRSTUVWXYZ'[: len(options)]}])"
    for pattern in (
        rf"\(?{letter}\)?\.?$",
        rf".*?(?i:answer is)\s*:?\s*\(?{letter}(?![A-Za-z0-9])",
        rf".*?(?i:answer:)\s*\(?{letter}(?![A-Za-z0-9])",
        rf"\({letter}\)",
        rf".*\({letter}\)\.?$",
    ):
        match = re.match(pattern, answer, re.S)
        if match is not None:
            return ord(match.group(1)) - ord("A")
    folded, texts = answer.lower(), [option.lower() for option in options]
    if folded in texts:
        return texts.index(folded)
    contained = [index for index, text in enumerate(texts) if text and text in folded]
    return max(contained, key=lambda index: len(texts[index]), default=None)
