"""Find where an answer mentions the options of a multiple-choice question: letters, texts, ordinals.

The answer is rewritten: plain marks, straight quotes, no markup, and every mention replaced by one
private-use character. What decides between mentions (:mod:`priorkit.scoring.choice`) is then grammar
over that character and the few words around it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

OUT_OF_RANGE = -1
MENTION = r"[\uE000-\uF8FF]"
_FIRST_MENTION = 0xE000

_PLAIN = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛′´`", "'"),
        **dict.fromkeys("“”„‟«»″", '"'),
        **dict.fromkeys("‐‑‒", "-"),
        **dict.fromkeys("–—―−", " - "),
        **dict.fromkeys("→⇒➜➡", " => "),
        **dict.fromkeys("【〔「『", "("),
        **dict.fromkeys("】〕」』", ")"),
        **dict.fromkeys("。", "."),
        **dict.fromkeys("、", ","),
        "∴": " therefore ",
        "…": "...",
        "\u00a0": " ",
        "\u200b": "",
        "\ufe0f": "",
        "\r": "\n",
    }
)
_CONTRACTIONS = (
    (re.compile(r"\bcan'?t\b|\bcan not\b", re.I), "cannot"),
    (re.compile(r"\bwon'?t\b", re.I), "will not"),
    (re.compile(r"\bain't\b", re.I), "is not"),
    (re.compile(r"n't\b", re.I), " not"),
    (re.compile(r"\b(is|are|was|were|does|do|did|has|have|would|should|could)nt\b", re.I), r"\1 not"),
    (re.compile(r"\b(it|that|there|what|he|she|here)'s\b", re.I), r"\1 is"),
)
_NUMBER_WORDS = {
    word: str(value)
    for value, word in enumerate(
        (
            *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
            *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
            *("eighteen", "nineteen", "twenty"),
        )
    )
} | {"thirty": "30", "forty": "40", "fifty": "50", "hundred": "100"}
_WORDS_OF_NUMBER = {number: word for word, number in _NUMBER_WORDS.items()}
# Texts that also serve as negations or pronouns count only where they stand alone as an answer.
_FUNCTION_TEXTS = frozenset({"yes", "no", "none", "not", "both", "neither", "all", "either", "any"})
_ORDINALS = (
    *("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"),
    *("eleventh", "twelfth"),
)
_LABEL_WORD = r"(?i:option|choice|letter|alternative|item)"
_LETTER_EDGE = r"(?<![A-Za-z0-9À-ÖØ-öø-ÿ])"
_LETTER_END = r"(?![A-Za-z0-9À-ÖØ-öø-ÿ])"
# Words that may follow the letter A or a; before anything else it is the article.
_AFTER_LETTER = (
    r"(?:is|was|are|were|as|because|since|and|or|nor|but|for|due|given|which|that|seems?|looks?|appears?"
    r"|fits?|match(?:es)?|would|could|should|must|can|cannot|will|does|do|did|not|has|shows?|here|if|so"
    r"|then|based|though|although|while|whereas|instead|it|over|to|in|from|makes?|describes?|might|may)\b"
)
# A letter after one of these belongs to a name.
_NAMING = (
    r"(?:vitamin|hepatitis|type|grade|plan|figure|fig\.?|point|line|class|gate|terminal|platform|size|row"
    r"|column|block|room|building|appendix|section|team|exhibit|panel|zone|category) "
)
_OUTSIDE = r"[^\w\n\uE000-\uF8FF]*"

Kind = Literal["letter", "text", "ordinal"]


@dataclass(frozen=True, slots=True)
class Mention:
    """One mention: which option (or :data:`OUT_OF_RANGE`), and how it was named."""

    option: int
    kind: Kind


@dataclass(slots=True)
class MarkedAnswer:
    """An answer with every mention replaced by one character."""

    text: str
    mentions: list[Mention] = field(default_factory=list)

    def at(self, position: int) -> Mention:
        """The mention whose character stands at a position."""
        return self.mentions[ord(self.text[position]) - _FIRST_MENTION]

    def mark(self, start: int, end: int, mention: Mention) -> None:
        """Replace a stretch by a new mention."""
        self.mentions.append(mention)
        mark = chr(_FIRST_MENTION + len(self.mentions) - 1)
        self.text = self.text[:start] + mark + self.text[end:]


def plain(text: str) -> str:
    """Straight quotes, plain dashes, spelled-out negations; compatibility forms folded (NFKC)."""
    text = unicodedata.normalize("NFKC", text.translate(_PLAIN)).translate(_PLAIN)
    text = re.sub(MENTION, "", text)
    for pattern, replacement in _CONTRACTIONS:
        text = pattern.sub(replacement, text)
    return text


def option_texts(options: Sequence[str]) -> list[str]:
    """The options as they are looked for: plain, folded, without own labels, articles or final marks."""
    texts = [" ".join(plain(option).split()).strip(" .,;:!?\"'").casefold() for option in options]
    label = re.compile(r"^\(?([a-z])[).:]\s+")
    if all(
        (found := label.match(text)) is not None and ord(found.group(1)) == ord("a") + index
        for index, text in enumerate(texts)
    ):
        texts = [label.sub("", text) for text in texts]
    bare = [re.sub(r"^(?:an?|the) ", "", text) for text in texts]
    return bare if len(set(bare)) == len(set(texts)) else texts


def mark_mentions(answer: str, options: Sequence[str]) -> MarkedAnswer:
    """Replace every mention of an option in a plain answer, texts first, then letters and ordinals."""
    marked = MarkedAnswer(answer)
    _mark_texts(marked, option_texts(options))
    _mark_letters(marked, len(options))
    _mark_ordinals(marked, len(options))
    return marked


def _mark_texts(marked: MarkedAnswer, texts: Sequence[str]) -> None:
    """Mark whole-word occurrences; a longer option wins over one that lies inside it."""
    found: list[tuple[int, int, int]] = []
    for index, text in enumerate(texts):
        # A text of one letter is left to the letters: a bare letter always means the option letter.
        if len(text) > 1 or (text and not ("a" <= text <= "z")):
            found += [(*match.span("text"), index) for match in _text_pattern(text).finditer(marked.text)]
    kept = [
        (start, end, index)
        for start, end, index in found
        if not any(
            other_start <= start and end <= other_end and other_end - other_start > end - start
            for other_start, other_end, _ in found
        )
    ]
    for start, end, owners in reversed(_joined_spans(kept)):
        option = owners.pop() if len(owners) == 1 else OUT_OF_RANGE
        marked.mark(start, end, Mention(option, "text"))


def _joined_spans(spans: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, set[int]]]:
    """Spans in order with the options they may mean; overlapping ones become one that means several."""
    joined: list[tuple[int, int, set[int]]] = []
    for start, end, option in sorted(spans):
        if joined and start < joined[-1][1]:
            first, last, owners = joined[-1]
            joined[-1] = (first, max(last, end), owners | {option})
        else:
            joined.append((start, end, {option}))
    return joined


def _text_pattern(text: str) -> re.Pattern[str]:
    if text in _FUNCTION_TEXTS:
        after = r"\s*(?:[.,;:!\n\"'()*]|$)"
        if text in ("yes", "no"):
            after += r"|\s+(?:it|there|the|this|that|they|he|she|i|because)\b"
        return re.compile(
            rf"(?:^\W*|[\n.!;]\s*|\b(?:is|be|say|answer):?\s+[\"'(]*)(?P<text>{text})(?={after})", re.I
        )
    words = [re.escape(word).replace(r"\-", r"[\s-]?") for word in text.split(" ")]
    body = r"[\s-]+".join(words)
    if text in _NUMBER_WORDS:
        body = rf"(?:{body}|{_NUMBER_WORDS[text]})"
    elif text in _WORDS_OF_NUMBER:
        body = rf"(?:{body}|{_number_word(_WORDS_OF_NUMBER[text])})"
    # Neither part of a word or number nor of a compound, unless the "compound" is a label: B-cabinet.
    before = (
        r"(?<!\w)(?<!\d[.,:])(?<!^-)(?<!\s-)(?:(?<!\w-)|(?<=^[A-Z]-)|(?<=\n[A-Z]-))"
        if _has_edge(text[0])
        else ""
    )
    after = r"(?!\w)(?!-\w)(?![.,:]\d)" if _has_edge(text[-1]) else ""
    return re.compile(rf"{before}(?P<text>{body}){after}", re.I)


def _number_word(word: str) -> str:
    """``one`` is often a pronoun; only then does the word before it tell."""
    if word != "one":
        return word
    pronoun = ("this", "that", "the", "which", "no", "any", "each", "every", "other", "correct", "right")
    return "".join(rf"(?<!\b{before} )" for before in pronoun) + "one(?! of)"


def _has_edge(character: str) -> bool:
    """Whether words of this script are separated by blanks, so that a word border means something."""
    return character.isalnum() and ord(character) < 0x2E80


def _mark_letters(marked: MarkedAnswer, count: int) -> None:
    """Mark letters in a dress that makes them letters, then bare capitals in prose."""
    known = "".join(chr(ord("A") + index) for index in range(count))
    either_case = known + known.lower()
    answer_is = r"\b(?i:answer|choice|option)\s*(?:(?i:is|was)\b|[:=]|=>|-|\s)+[\"'(\[]*"
    article = rf"(?!\s+(?!(?i:{_AFTER_LETTER}))[A-Za-z\uE000-\uF8FF])"
    patterns = [
        r"(?<!\w)[(\[{<]\s*(?P<letter>[A-Za-z])\s*[)\]}>]",
        r"(?<!\w)(?P<quote>[\"'])(?P<letter>[A-Za-z])\s*[.)]?(?P=quote)",
        rf"\b{_LABEL_WORD}\s+[\"'(\[]*(?P<letter>[A-Z]|[{known.lower()}]){_LETTER_END}(?!['-]\w)",
        rf"{answer_is}(?P<letter>[{either_case}]){_LETTER_END}(?!['-]\w){article}",
        rf"{answer_is}(?P<letter>[B-HJ-Z]){_LETTER_END}(?!['-]\w)(?!\.\w)",
        rf"\b(?i:it is|pick|choose|select|say|go with|go for|guess|believe|think)\s+(?P<letter>[{known.lower()}])"
        r"(?=[^\w\uE000-\uF8FF]*$)",
        rf"(?:^|\n){_OUTSIDE}(?P<letter>[A-Z{known.lower()}])\s?[).:](?!\w)",
        rf"{_LETTER_EDGE}(?P<letter>[{either_case}])\)",
        rf"(?:^|\n){_OUTSIDE}(?P<letter>[A-Za-z]){_OUTSIDE}(?=$|\n)",
        rf"(?:^|\n)\s*(?P<letter>[{known}])-(?={MENTION})",
    ]
    no_name = r"(?<!\w\.)(?<!\w')(?!\.\w)(?!['-]\w)"
    # In prose "I" is the pronoun and "A" mostly the article.
    capitals = known.replace("A", "").replace("I", "")
    if capitals:
        patterns.append(rf"{_LETTER_EDGE}(?P<letter>[{capitals}]){_LETTER_END}{no_name}")
    for pattern in patterns:
        _mark_letter_matches(marked, re.compile(pattern), count)
    letters_so_far = "".join(
        chr(_FIRST_MENTION + i) for i, m in enumerate(marked.mentions) if m.kind == "letter"
    )
    before_letter = rf"|[{letters_so_far}]" if letters_so_far else ""
    bare_a = re.compile(
        rf"{_LETTER_EDGE}(?P<letter>A){_LETTER_END}{no_name}"
        rf"(?=\s*(?:$|[\n.,;:!?)\]\"'*=&+/|]|-\s|{_AFTER_LETTER}{before_letter}))"
    )
    _mark_letter_matches(marked, bare_a, count)


def _mark_letter_matches(marked: MarkedAnswer, pattern: re.Pattern[str], count: int) -> None:
    for match in reversed(list(pattern.finditer(marked.text))):
        before = marked.text[max(0, match.start("letter") - 16) : match.start("letter")]
        if re.search(rf"\b{_NAMING}$", before, re.I):
            continue
        index = ord(match.group("letter").upper()) - ord("A")
        mention = Mention(index if index < count else OUT_OF_RANGE, "letter")
        marked.mark(*match.span("letter"), mention)


def _mark_ordinals(marked: MarkedAnswer, count: int) -> None:
    names = {name: index for index, name in enumerate(_ORDINALS[:count])}
    names |= {f"{index + 1}{suffix}": index for index in range(count) for suffix in ("st", "nd", "rd", "th")}
    names["last"] = count - 1
    pattern = re.compile(
        rf"\b(?P<name>{'|'.join(names)})\s+(?:{_LABEL_WORD}|answer|one|possibility)\b"
        rf"|\bthe\s+(?P<subject>{'|'.join(names)})(?=\s+(?:is|was|seems|looks|must)\b)"
        rf"|^\W*(?:the\s+)?(?P<alone>{'|'.join(names)})[^\w\uE000-\uF8FF]*$",
        re.I,
    )
    for match in reversed(list(pattern.finditer(marked.text))):
        name = (match["name"] or match["subject"] or match["alone"]).lower()
        marked.mark(*match.span(), Mention(names[name], "ordinal"))
    numbered = re.compile(
        r"\b(?:option|choice|alternative)\s*(?:number|no\.?|#)?\s*(?P<number>\d{1,2}|[a-z]+)\b", re.I
    )
    for match in reversed(list(numbered.finditer(marked.text))):
        number = match.group("number").lower()
        value = int(_NUMBER_WORDS.get(number, number)) if number in _NUMBER_WORDS or number.isdigit() else 0
        if 1 <= value <= count:
            marked.mark(*match.span(), Mention(value - 1, "ordinal"))
