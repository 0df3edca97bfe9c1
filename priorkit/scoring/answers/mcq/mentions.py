"""Finds the mentions of options in an answer (the second stage).

Every mention (a text, a letter, a label, an ordinal) is replaced by one private-use character. The later stages
(:mod:`priorkit.scoring.answers.mcq.parser`) are then patterns over that character and the words around it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from priorkit.scoring.answers.mcq.options import ROMAN, LabelStyle, Options, parse_number
from priorkit.scoring.answers.mcq.text import plain

OUT_OF_RANGE = -1
MENTION = r"[\uE000-\uF8FF]"
_FIRST_MENTION = 0xE000

_ORDINALS = (
    *("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"),
    *("eleventh", "twelfth"),
)
_LABEL_WORD = r"(?i:options?|choices?|letters?|alternative|item|opci[oó]n|opç[aã]o|opzione|lettre|letra|lettera|buchstabe)"
_LETTER_EDGE = r"(?<![A-Za-z0-9À-ÖØ-öø-ÿ])"
_LETTER_END = r"(?![A-Za-z0-9À-ÖØ-öø-ÿ])"
# Words that may follow the letter A; before anything else it is the article.
_AFTER_LETTER = (
    r"(?:is|was|are|were|as|because|since|and|or|nor|but|for|due|given|which|that|seems?|looks?|appears?"
    r"|fits?|match(?:es)?|would|could|should|must|can|cannot|will|does|do|did|not|has|shows?|here|if|so"
    r"|then|based|though|although|while|whereas|instead|it|over|to|in|from|makes?|describes?|might|may"
    r"|yes|no|maybe|probably|definitely|through|ma|mas|mais|y|ou|oder|und|et|ist|est|es|è|é)\b"
)
# The same for a lower-case a, which no article can precede.
_AFTER_SMALL_LETTER = r"(?:is|was|are|were|because|since|and|or|nor|but|seems|looks|appears|cannot|does|would|could|should|must|i (?:guess|think|believe|suppose))\b"
# A letter in one of these contexts is part of a name, a grade, a unit or a formula.
_NAME_BEFORE = re.compile(
    r"(?:\b(?:vitamin|hepatitis|type|grade|plan|figure|fig\.?|point|line|class|gate|terminal|platform|size|row"
    r"|column|block|room|building|appendix|section|team|exhibit|panel|zone|category|angle|vertex|triangle|segment|side|box|bag|train|player|student"
    r"|company|group|city|town|curve|graph|region|bottle|container|lane|route|person|mr\.?|mrs\.?|ms\.?|dr\.?)\s"
    r"|(?<!\w)\w\.|\w['-]|(?<![.:)\]])\b\d\s|°\s?|(?-i:[a-z0-9])\s?[+*^]\s?)$",
    re.I,
)
_NAME_AFTER = re.compile(r"\.\w(?!\w)|['-]\w|\+\+|#|°| (?:vitamins?|major|minor)\b|\s?[+*^]\s?[a-z0-9]\b")
_INITIALS = re.compile(
    r"\b(?:[A-Z]\.){2,}|\b(?:[A-Z]\. ){2,}(?!(?:The|It|An?|This|That|There|Because|Since|As|So|In|My|No|Not)\b)[A-Z][a-z]+"
)
_NON_WORD = r"[^\w\n\uE000-\uF8FF]*"
_ANSWER_IS = r"\b(?i:answer|choice|option)\s*(?:(?i:is|was)\b|[:=]|=>|-|\s)+[\"'(\[]*"
_SMALL_LETTERS = "bcdfghj"

Kind = Literal["letter", "text", "ordinal"]


@dataclass(frozen=True, slots=True)
class Mention:
    """One mention: the option (or :data:`OUT_OF_RANGE`), and how it was named."""

    option: int
    kind: Kind


@dataclass(slots=True)
class MarkedAnswer:
    """An answer with every mention replaced by one character."""

    text: str
    count: int
    mentions: list[Mention] = field(default_factory=list[Mention])

    def at(self, position: int) -> Mention:
        """The mention at a position."""
        return self.mentions[ord(self.text[position]) - _FIRST_MENTION]

    def mark(self, start: int, end: int, mention: Mention) -> None:
        """Replace a span by a new mention."""
        self.mentions.append(mention)
        mark = chr(_FIRST_MENTION + len(self.mentions) - 1)
        self.text = self.text[:start] + mark + self.text[end:]

    def positions(self, start: int = 0, end: int | None = None) -> list[int]:
        """Positions of mentions in a span of the text."""
        stop = len(self.text) if end is None else end
        return [match.start() for match in re.compile(MENTION).finditer(self.text, start, stop)]


def mark_mentions(answer: str, options: Sequence[str]) -> MarkedAnswer:
    """Replace every mention of an option in a readable answer, texts first, then letters and ordinals."""
    wanted = Options.of(options)
    marked = MarkedAnswer(wanted.without_set_phrases(answer), len(options))
    _mark_texts(marked, wanted, [plain(option) for option in options])
    if wanted.labels in ("digit", "roman"):
        _mark_own_labels(marked, wanted.labels)
    _mark_letters(marked)
    _mark_ordinals(marked)
    return marked


def _mark_texts(marked: MarkedAnswer, wanted: Options, originals: Sequence[str]) -> None:
    """Mark full-word occurrences; a longer option takes precedence over one inside it."""
    spans: list[tuple[int, int, int]] = []
    for index, pattern in [*wanted.patterns(), *wanted.name_tails(originals)]:
        spans += [(*match.span("text"), index) for match in pattern.finditer(marked.text)]
    outermost = [
        (start, end, index)
        for start, end, index in spans
        if not any(
            other_start <= start and end <= other_end and other_end - other_start > end - start
            for other_start, other_end, _ in spans
        )
    ]
    for start, end, owners in reversed(_joined_spans(outermost)):
        option = owners.pop() if len(owners) == 1 else OUT_OF_RANGE
        marked.mark(start, end, Mention(option, "text"))


def _joined_spans(spans: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, set[int]]]:
    """Spans in order with their options; overlapping spans become one with several options."""
    joined: list[tuple[int, int, set[int]]] = []
    for start, end, option in sorted(spans):
        if joined and start < joined[-1][1]:
            first, last, owners = joined[-1]
            joined[-1] = (first, max(last, end), owners | {option})
        else:
            joined.append((start, end, {option}))
    return joined


def _mark_own_labels(marked: MarkedAnswer, style: LabelStyle) -> None:
    """Labels that the options themselves contain: ``(ii)``, ``2.``, ``the answer is iv``."""
    labels = list(ROMAN) if style == "roman" else [str(index + 1) for index in range(len(ROMAN))]
    label = f"(?P<label>{'|'.join(sorted(labels, key=len, reverse=True))})"
    pattern = re.compile(
        rf"(?<!\w)[(\[]\s*{label}\s*[)\]]|(?:^|\n){_NON_WORD}{label.replace('label', 'line')}(?:[).:]|{_NON_WORD}(?=$|\n))"
        rf"|(?:{_ANSWER_IS}|\b{_LABEL_WORD}\s+){label.replace('label', 'said')}(?![\w-])",
        re.I,
    )
    for match in reversed(list(pattern.finditer(marked.text))):
        group = next(name for name in ("label", "line", "said") if match[name])
        index = labels.index(match[group].lower())
        mention = Mention(index if index < marked.count else OUT_OF_RANGE, "letter")
        marked.mark(*match.span(group), mention)


def _mark_letters(marked: MarkedAnswer) -> None:
    """Mark letters in a form that identifies them as labels, then bare letters in prose."""
    known = "".join(chr(ord("A") + index) for index in range(marked.count))
    either_case = known + known.lower()
    article = rf"(?!\s+(?!(?i:{_AFTER_LETTER}))[A-Za-z\uE000-\uF8FF])"
    of_a_word = r"(?!['-]\w)"
    marked_forms = [
        r"(?<!\w)[(\[{<]\s*(?P<letter>[A-Za-z])\s*[)\]}>]",
        r"(?<!\w)[(\[](?P<letter>[A-Z])(?=\s*$)",
        r"(?<!\w)(?P<quote>[\"'])(?P<letter>[A-Za-z])\s*[.)]?(?P=quote)",
        rf"\b{_LABEL_WORD}\s*[:#-]?\s*[\"'(\[]*(?P<letter>[A-Z]){_LETTER_END}{of_a_word}",
        rf"\b{_LABEL_WORD}\s*[:#-]?\s+[\"'(\[]*(?P<letter>[{known.lower()}]){_LETTER_END}{of_a_word}(?!\s+[a-z]{{3,}}\s+[a-z])",
        rf"{_ANSWER_IS}(?P<letter>[{either_case}]){_LETTER_END}{of_a_word}{article}",
        rf"{_ANSWER_IS}(?P<letter>[B-HJ-Z]){_LETTER_END}{of_a_word}(?!\.\w)",
        r"\b(?i:it is|pick|choose|select|say|go with|go for|guess|believe|think)\s+"
        rf"(?P<letter>[{known.lower()}])(?=[^\w\uE000-\uF8FF]*$)",
        rf"(?:^|\n){_NON_WORD}(?P<letter>[A-Z{known.lower()}])\s?[).:](?!\w)",
        rf"{_LETTER_EDGE}(?P<letter>[{either_case}])\)",
        rf"(?:^|\n){_NON_WORD}(?P<letter>[A-Za-z]){_NON_WORD}(?=$|\n)",
        rf"(?:^|\n)\s*(?P<letter>[{known}])-(?={MENTION})",
    ]
    # In prose "I" is the pronoun, "A" mostly the article, and small vowels are words of many languages.
    capitals = known.replace("A", "").replace("I", "")
    small = "".join(letter for letter in known.lower() if letter in _SMALL_LETTERS)
    variable = rf"(?!\s?=\s?(?!{MENTION}))(?!\([a-z])"
    bare = [rf"{_LETTER_EDGE}(?P<letter>[{capitals}{small}]){_LETTER_END}{variable}"] if capitals else []
    for pattern in [*marked_forms, *bare]:
        _mark_letter_matches(marked, pattern)
    letters = "".join(chr(_FIRST_MENTION + i) for i, m in enumerate(marked.mentions) if m.kind == "letter")
    other_letter = rf"|[{letters}]" if letters else ""
    for letter, after in (("A", _AFTER_LETTER + other_letter), ("a", _AFTER_SMALL_LETTER)):
        ending = rf"[\"'](?!\w)|\s*(?:$|[\n.,;:!?)\]*=&+/|]|[\u2E80-\uD7FF]|-\s|{after})"
        _mark_letter_matches(marked, rf"{_LETTER_EDGE}(?P<letter>{letter}){_LETTER_END}(?={ending})")


def _mark_letter_matches(marked: MarkedAnswer, pattern: str) -> None:
    initials = {
        position for initial in _INITIALS.finditer(marked.text) for position in range(*initial.span())
    }
    for match in reversed(list(re.compile(pattern).finditer(marked.text))):
        start, end = match.span("letter")
        named = start == match.start() and _NAME_BEFORE.search(marked.text[max(0, start - 16) : start])
        if start in initials or named or _NAME_AFTER.match(marked.text, end):
            continue
        index = ord(match.group("letter").upper()) - ord("A")
        marked.mark(start, end, Mention(index if index < marked.count else OUT_OF_RANGE, "letter"))


def _mark_ordinals(marked: MarkedAnswer) -> None:
    count = marked.count
    names = {name: index for index, name in enumerate(_ORDINALS[:count])}
    names |= {f"{index + 1}{suffix}": index for index in range(count) for suffix in ("st", "nd", "rd", "th")}
    names["last"] = count - 1
    pattern = re.compile(
        rf"(?<!-)\b(?P<name>{'|'.join(names)})\s+(?:{_LABEL_WORD}|answer|one|possibility)\b(?!\s+from\b)"
        rf"|\bthe\s+(?P<subject>{'|'.join(names)})(?=\s+(?:is|was|seems|looks|must)\b)"
        rf"|^\W*(?:the\s+)?(?P<entire>{'|'.join(names)})[^\w\uE000-\uF8FF]*$",
        re.I,
    )
    for match in reversed(list(pattern.finditer(marked.text))):
        name = (match["name"] or match["subject"] or match["entire"]).lower()
        marked.mark(*match.span(), Mention(names[name], "ordinal"))
    numbered = re.compile(
        r"\b(?:option|choice|alternative)\s*(?:number|no\.?|#)?\s*(?P<number>\d{1,2}|[a-z]+)\b", re.I
    )
    for match in reversed(list(numbered.finditer(marked.text))):
        value = parse_number(match.group("number").lower())
        if value is not None and 1 <= value <= count:
            marked.mark(*match.span(), Mention(value - 1, "ordinal"))
