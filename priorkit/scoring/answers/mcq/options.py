"""Patterns for the options of a multiple-choice question in an answer (for the second stage).

An option matches as entire words, ignoring case, with or without articles and hyphens; numbers also in words,
with other spacing before a unit or around an operator. Words that are more often grammar than answers (``no``,
``both``, ``right``, ``may``) match only where they are used as an answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from priorkit.scoring.answers.mcq.text import option_words

LabelStyle = Literal["letter", "digit", "roman"]
ROMAN: tuple[str, ...] = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii")

_OWN_LABEL = re.compile(r"[(\[]?([a-z]|\d{1,2}|[ivx]{1,4})[)\].:]\s+")
_UNITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_LARGEST_IN_WORDS = 1000
_LONGEST_ACRONYM = 4
_MOST_DIGITS = 15
_MORE_OF_NUMBER = rf"[\s-]+(?:and[\s-]+)?(?:{'|'.join(_UNITS[1:])}|{'|'.join(_TENS)}|hundred|thousand)\b"
_PRONOUN_BEFORE_ONE = (
    "this",
    "that",
    "the",
    "which",
    "no",
    "any",
    "each",
    "every",
    "other",
    "correct",
    "right",
)
_UNIT_AFTER_NUMBER = r"(?:cm|mm|km|m|kg|g|mg|lbs?|ft|ms|s|min|h|px|°?[cf])"
_ARTICLES = ("a", "an", "the")
_ARTICLE = r"(?:(?:an?|the)\s+)?"
_ALONE_AFTER = r"(?=\s*(?:[.,;:!?\n\"'()*]|$))"
_CLAUSE_AFTER = r"(?=\s+(?:it|there|the|this|that|they|he|she|i|we|because|since|as)\b)"
_SAID_BEFORE = (
    r"(?:^\W*|[\n.!;,:]\s*|\b[A-Z][).:]\s*|\b(?:is|are|be|say|answer|so|therefore|think):?\s+[\"'(]*)"
)
_LISTED = r"(?:(?:the )?(?:above|options?|choices|others)(?: above)?|these|those|them)"

# Options that are function words or fixed phrases, with the forms that an answer may use.
_FIXED_PHRASES = {
    "yes": r"(?<![\w-])(?P<text>yes|yeah|yep|yup)(?![\w-])",
    "no": rf"(?<![\w-])(?P<text>no|nope|nah)(?:{_ALONE_AFTER}|{_CLAUSE_AFTER})",
    "false": r"(?<!\w)(?P<text>false|untrue|not (?:a )?true)(?!\w)",
    "both": rf"{_SAID_BEFORE}(?P<text>both(?: of {_LISTED}| {_ARTICLE}\w+ and {_ARTICLE}\w+| \w+(?=\W*$))?){_ALONE_AFTER}",
    "neither": rf"{_SAID_BEFORE}(?P<text>neither(?: of {_LISTED}| {_ARTICLE}\w+ nor {_ARTICLE}\w+| \w+(?=\W*$))?){_ALONE_AFTER}",
    "right": r"(?<!\w)(?<!you are )(?<!you're )(?<!that is )(?<!all )(?<!\b[A-J] is )(?P<text>right)"
    r"(?!\w)(?! (?:answer|option|choice|one)\b)(?!\?)(?!-\w)",
    "may": r"(?:^|(?<!\w))(?P<text>(?-i:May|MAY)|^may\W*$)(?! (?:be|have|not)\b)(?!\w)",
} | {
    word: rf"{_SAID_BEFORE}(?P<text>{word}){_ALONE_AFTER}" for word in ("none", "not", "all", "either", "any")
}  # fmt: skip
_SIDE = re.compile(r"(?:on|to|at) the (?:left|right)\b")
_CATCH_ALL = re.compile(rf"(none|all|both|neither|any) of {_LISTED}")
_OF_THE_ABOVE = re.compile(
    r"\b(?:none|all|any|each|both|neither|either|some) of the above\b|\b(?:as|the) above\b(?! \w)", re.I
)


@dataclass(frozen=True, slots=True)
class Options:
    """Options in normalized form.

    Attributes:
        texts: case-folded, without the options' own labels, articles and final punctuation.
        labels: style of the options' own labels; None if they have none.
    """

    texts: tuple[str, ...]
    labels: LabelStyle | None

    @classmethod
    def of(cls, options: Sequence[str]) -> Options:
        """Normalize the options and remove their own labels, if consecutive: ``(i) copper``, ``(ii) iron``."""
        texts = [" ".join(option_words(option).split()).strip(" .,;:!?\"'").casefold() for option in options]
        matches = [_OWN_LABEL.match(text) for text in texts]
        style = _label_style([match[1] if match else "" for match in matches])
        if style is not None:
            texts = [
                text[match.end() :] if match else text for text, match in zip(texts, matches, strict=True)
            ]
        bare = [re.sub(r"^(?:an?|the) ", "", text) for text in texts]
        return cls(tuple(bare if len(set(bare)) == len(set(texts)) else texts), style)

    def patterns(self) -> Iterator[tuple[int, re.Pattern[str]]]:
        """A pattern per option, with the group ``text``; options that are single label letters are left out."""
        letters = [chr(ord("a") + index) for index in range(len(self.texts))]
        for index, text in enumerate(self.texts):
            if not text or text in letters:
                continue
            if len(text) == 1 and "a" <= text <= "z":
                yield index, re.compile(rf"(?<![\w'.-])(?P<text>{text.upper()})(?![\w'-])")
            else:
                yield index, _pattern(text)

    def name_tails(self, originals: Sequence[str]) -> Iterator[tuple[int, re.Pattern[str]]]:
        """Patterns for last names, if all options are names of several words with different last words."""
        words = [text.split() for text in self.texts]
        tails = [text[-1] for text in words if len(text) > 1 and len(text[-1]) > 2]
        capital = all(re.match(r"(?:[A-Z]\S*\s+)+(?:[a-z]+\s+)*[A-Z]", text) for text in originals)
        if capital and len(set(tails)) == len(words):
            for index, tail in enumerate(tails):
                yield index, _pattern(tail)

    def without_set_phrases(self, text: str) -> str:
        """The answer without ``all of the above`` and similar phrases, unless an option contains them."""
        if any("above" in option and " " in option for option in self.texts):
            return text
        return _OF_THE_ABOVE.sub("", text) if "above" in self.texts else text


def _label_style(labels: Sequence[str]) -> LabelStyle | None:
    count = len(labels)
    runs: tuple[tuple[LabelStyle, list[str]], ...] = (
        ("letter", [chr(ord("a") + index) for index in range(count)]),
        ("digit", [str(index + 1) for index in range(count)]),
        ("roman", list(ROMAN[:count])),
    )
    return next((style for style, run in runs if list(labels) == run), None)


def parse_number(words: str) -> int | None:
    """The number given as words or digits; None if it is neither."""
    if words.isascii() and words.isdigit():
        return int(words) if len(words) <= _MOST_DIGITS and str(int(words)) == words else None
    return _VALUE_OF_WORDS.get(words.replace("-", " "))


def _in_words(value: int) -> str:
    """A number in words: ``thirty three``; ``one hundred``, ``one thousand``."""
    if value < 20:
        return _UNITS[value]
    if value < 100:
        rest = value % 10
        return _TENS[value // 10 - 2] + (f" {_UNITS[rest]}" if rest else "")
    if value < 1000:
        rest = value % 100
        return f"{_UNITS[value // 100]} hundred" + (f" and {_in_words(rest)}" if rest else "")
    return "one thousand"


_VALUE_OF_WORDS = {_in_words(value): value for value in range(_LARGEST_IN_WORDS + 1)}


def _pattern(text: str) -> re.Pattern[str]:
    if text in _FIXED_PHRASES:
        return re.compile(_FIXED_PHRASES[text], re.I)
    if catch_all := _CATCH_ALL.fullmatch(text):
        return re.compile(rf"(?<!\w)(?P<text>{catch_all[1]} of {_LISTED})(?!\w)", re.I)
    first, *rest = text.split(" ")
    words = [first, *(word for word in rest[:-1] if word not in _ARTICLES), *rest[-1:]]
    value = parse_number(text)
    if value is not None:
        body = _number(value)
    elif _SIDE.match(text):
        body = r"(?:on|to|at)\s+" + _joined(["the", *words[1:]])
    else:
        body = _joined(words)
    return re.compile(f"{_before(text)}(?P<text>{body}){_after(text)}", re.I)


def _joined(words: Sequence[str]) -> str:
    """A pattern for words separated by spaces or hyphens, with optional articles; no space needed around operators."""
    body = ""
    for position, word in enumerate(words):
        if position:
            near = _is_operator(word) or _is_operator(words[position - 1])
            unit = words[position - 1][-1].isdigit() and word[0].isalpha()
            body += r"\s*" if near else r"[\s-]*" if unit else rf"[\s-]+{_ARTICLE}"
        body += _word(word)
    return body


def _word(word: str) -> str:
    value = parse_number(word)
    if value is not None:
        return _number(value)
    if word in ("and", "&"):
        return "(?:and|&)"
    if word == "it":
        return r"(?:it|(?:the|an?|this|that) \w+)"
    match = re.fullmatch(r"\$(\d+(?:\.\d+)?)", word)
    if match:
        return rf"(?:\$\s?{re.escape(match[1])}|{re.escape(match[1])} dollars)"
    pieces = re.findall(r"\d+(?:\.\d+)?|[^\W\d]+|\s+|.", word)
    body = ""
    for position, piece in enumerate(pieces):
        previous = pieces[position - 1] if position else ""
        following = pieces[position + 1] if position + 1 < len(pieces) else ""
        if piece == "-" and not previous:
            body += r"(?:-\s?|(?<!\w)minus )"
        elif piece == "-" and previous.isalpha() and following.isalpha():
            body += r"[\s-]?"
        elif _is_operator(piece):
            body += rf"\s*{re.escape(piece)}\s*"
        elif piece == "%":
            body += r"\s?(?:%|percent|per cent)"
        elif piece.isalpha() and previous.isdigit():
            body += r"\s?" + re.escape(piece)
        elif not previous and (following == "%" or following.isalpha()) and parse_number(piece) is not None:
            body += _number(int(piece))
        elif len(piece) == 1 and piece.isdigit() and not previous and following == ":":
            body += f"0?{piece}"
        elif len(word) <= _LONGEST_ACRONYM and word.isascii() and word.isalpha():
            body += r"\.?".join(word)
        else:
            body += re.escape(piece).replace("ss", "(?:ss|ß)")
    return body


def _number(value: int) -> str:
    """A pattern for digits or words; ``one`` does not match after words that make it a pronoun."""
    if value > _LARGEST_IN_WORDS:
        return rf"{value}(?:\.0+(?!\d))?"
    words = _in_words(value)
    larger = "".join(rf"(?<!{ten}[ -])" for ten in (*_TENS, "hundred", "hundred and")) if value < 10 else ""
    body = words.replace(" and ", r"[\s-]+(?:and\s+)?").replace(" ", r"[\s-]+")
    if value == 1:
        body = "".join(rf"(?<!\b{word} )" for word in _PRONOUN_BEFORE_ONE) + "one(?! of)"
    elif value in (100, 1000):
        body = body.replace("one", "(?:one|a)", 1)
    return rf"(?:{value}(?:\.0+(?!\d))?|{larger}{body}(?!{_MORE_OF_NUMBER}))"


def _is_operator(piece: str) -> bool:
    return len(piece) == 1 and piece in "+-*/=<>^"


def _before(text: str) -> str:
    """Not inside a word or number, nor after a hyphen unless a label precedes it: ``B-cabinet``."""
    if text[0] == "-":
        return r"(?<!\w)"
    if not _has_edge(text[0]):
        return ""
    minus = r"(?<!^-)(?<![\s=(:]-)(?<!minus )(?<!\d/)(?<!\^)" if text[0].isdigit() else ""
    return rf"(?<!\w)(?<!\d[.,:]){minus}(?:(?<!\w-)|(?<=^[A-Z]-)|(?<=\n[A-Z]-))"


def _after(text: str) -> str:
    if not _has_edge(text[-1]):
        return ""
    edge = rf"(?=(?:{_UNIT_AFTER_NUMBER})?(?!\w))" if text.isdigit() else r"(?!\w)"
    fraction = r"(?!\s?/\s?\d)" if text[-1].isdigit() else ""
    return rf"{edge}{fraction}(?!-\w)(?![.,:]\d)"


def _has_edge(character: str) -> bool:
    """Whether the script separates words by spaces, so that word boundaries are meaningful."""
    return character.isalnum() and ord(character) < 0x2E80
