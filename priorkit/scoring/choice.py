"""Read which option a free-text answer to a multiple-choice question takes.

:func:`read_choice` aims at what a careful human reader takes from the answer, and never guesses: None
where nothing, several options, a letter out of range, or a letter and a text that contradict each other
are given. :func:`read_choice_lsbs` is the rule of the LSBS paper, for replicating its numbers.

The order in which :func:`read_choice` decides: an explicit answer ("the answer is", a box, "B is
correct"), the last one first; a revision ("wait, actually"); a plain answer at the beginning or alone in
the last line; "I think"; "therefore", "but"; at last whatever single option is left when negated, asked
and merely considered ones are set aside.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from priorkit.scoring.choice_mentions import (
    MENTION,
    OUT_OF_RANGE,
    MarkedAnswer,
    mark_mentions,
    option_texts,
    plain,
)

_ARTICLE = r"(?:(?:the|an?|some|any|that|this|its?|my|option|choice|letter|answer)[ \t]+)*"
_ITEM = rf"{_ARTICLE}[\"'(\[]*{MENTION}[)\]\"']*"
_PAIR = rf"{_ITEM}(?:[ \t]+{_ITEM})?"
_LIST = (
    rf"{_PAIR}(?:(?:\s*,\s*{_PAIR})*\s*,?\s*(?:\b(?:or|nor|and/or|and)\b|&|/)\s*(?:also\s+)?{_PAIR}"
    r"(?!\s+(?:is|are|was|were|can|has|appears?|seems?)\b))*"
)
_BE = (
    r"(?:is|are|was|were|does|do|did|has|have|can|could|would|should|must|seems?|looks?|appears?|may"
    r"|might|will)\b"
)
_WRONG = (
    r"(?:wrong|incorrect|false|absent|missing|impossible|unlikely|less likely|invalid|ruled out|out\b"
    r"(?! of the)|eliminated|excluded|rejected|irrelevant|implausible|nowhere|untrue)"
)
_CLAUSE = (
    r"(?:(?!\b(?:but|so|because|since|therefore|instead|actually|hence|thus)\b|=>)[^,.;:!?\n\uE000-\uF8FF])*?"
)
_NEGATED_BEFORE = re.compile(
    r"\b(?:not|no(?!\s*[,.;:!\n])|never|neither|nor|without|cannot|none of|rather than|instead of|other than"
    r"|except(?: for)?|exclud(?:e|es|ed|ing)|rul(?:e|es|ed|ing) out|eliminat(?:e|es|ed|ing)|reject(?:s|ed)?"
    r"|dismiss(?:ed)?|discard(?:ed)?|unlike|lacks?|absence of|than)\b"
    r"(?!\s+(?:sure|certain|only|entirely|completely|just)\b)"
    rf"{_CLAUSE}(?P<list>{_LIST})",
    re.I,
)
_NEGATED_AFTER = re.compile(
    rf"(?P<list>{_LIST})(?:\s+(?:options?|choices?|answers?|in (?:the|this) (?:image|picture|photo|scene)))?"
    rf"(?:\s+(?:both |all )?{_BE}\s+(?:\w+\s+){{0,2}}?(?:(?:not|never)\b(?!\s+{_ARTICLE}{MENTION})|{_WRONG})"
    rf"|\s+cannot\b|\s+{_WRONG}|\s*[:=(-]+\s*(?:no\b(?=\W*(?:$|[,.;\n]))|not\b(?!\s+{_ARTICLE}{MENTION})"
    rf"|{_WRONG}|[❌✗✘×])|\s*[❌✗✘×]|\?\s*(?:no|nope|not)\b)",
    re.I,
)
_CONSIDERED = re.compile(
    rf"\b(?:could|might|may|maybe|perhaps|possibly|at first|initially|tempting|although|though|while|despite"
    rf"|resembl\w+|similar to|if|between|among|considered|thought(?: of)?|going to say)\b{_CLAUSE}(?P<list>{_LIST})",
    re.I,
)
_ASKED = re.compile(r"[^.!?\n]*\?")

_NAMES_OF_ANSWER = (
    r"(?:answers?|choice|option|selection|pick|verdict|conclusion|response|guess|solution|respuesta|réponse"
    r"|antwort|risposta|resposta|ответ)"
)
_EXPLICIT = re.compile(
    rf"\b{_NAMES_OF_ANSWER}\b\W{{0,3}}(?:(?:to|for) (?:the|this|your) question\s*)?(?:[:=]|=>|[\s\"'-]+(?:(?:here"
    r"|probably|most likely|likely|clearly|definitely|therefore|thus|then|would|should|must|has to|could|only"
    r"|is|be|was|are|es|ist|est|è|é)\b\s*)+:?|\s*\n)|(?:答案|答え|正确答案)\W*[是为は:]?"
    rf"|\b(?:answer)\s+(?=[\"'(\[]*{MENTION})",
    re.I,
)
_CONFIRMED = re.compile(
    rf"(?P<list>{_PAIR})(?:\s*,?\s*(?:is|seems|looks|appears|must be|has to be)(?: to be)?\s+(?:(?:clearly|definitely"
    r"|most|likely|probably|the|my|indeed|therefore|thus|only|one that is|best|correct|right|final)\s+)*(?:correct"
    r"|right|true|best|answers?|choice|option|accurate|valid|one)\b(?!\s+(?:next|beside|of|above|below|side|behind"
    r"|there|in front|by|at))|\s+it is\b|\s*[:?(-]\s*(?:yes|correct|right|true|✓|✔|✅)|\s*[✓✔✅])",
    re.I,
)
_REVISION = re.compile(
    r"\b(?:wait|actually|on second thoughts?|correction|scratch that|sorry|let me correct|changed? my (?:mind|answer)"
    r"|instead(?! of))\b",
    re.I,
)
_OPINION = re.compile(
    r"\b(?:i|we)(?:'d|'ll|'m| would| will| am| must| have to)?\s+(?:\w+ly\s+)?(?:choose|pick|select|go(?:ing)? (?:with"
    r"|for)|opt for|settle on|vote for|guess|say|answer|conclude|believe|think|bet)\b|\b(?:my|best) (?:guess|bet|pick)"
    r"\b(?: is| would be)?|\bgo(?:ing)? with\b|\bselect\b",
    re.I,
)
_CONSEQUENCE = re.compile(
    r"\b(?:therefore|thus|hence|so|consequently|in conclusion|conclusion|overall|to conclude|in summary|finally"
    r"|ultimately|in the end|however|but|rather(?! than)|it must be|must be|leav(?:es|ing)|remaining|remains|only)\b|=>",
    re.I,
)
_LEADING = re.compile(
    rf"^\W*?(?P<list>{_PAIR})(?P<more>[\s,;|/&+()]*(?:\b(?:and|or)\b\s*)*{_ITEM})?"
    r"(?=\s*(?:$|[-.,;:!)\n]|(?:because|since|as|due|given|for)\b))",
    re.I,
)
_TRAILING = re.compile(rf"\n[^\w\n]*?(?P<list>{_PAIR})[^\w\n\uE000-\uF8FF]*$", re.I)
_REGION_END = re.compile(r"[.!?;](?=\s|$)|\n")
_AFTERTHOUGHT = re.compile(
    r"\b(?:because|since|as|but|although|though|while|whereas|however|given|due to|even|rather than|instead of)\b"
    r"|[(]",
    re.I,
)
_LABELLED_TEXT = re.compile(
    rf"({MENTION})[)\]\"']*\s*[-.:,)]*\s*((?:(?:the|an?)\s+)?{MENTION})(?=\s*(?:[.,;:!)\n]|$))", re.I
)
_LABELLED_PAIR = re.compile(rf"({MENTION})\W{{0,3}}?({MENTION})")
_FILLERS = frozenset(["a", "an", "the", "on", "in", "at", "to", "of", "it", "is", "its", "there", "are"])

# A runaway answer decides at its beginning and end; this also keeps the mentions within their alphabet.
_MOST_FROM_START, _MOST_FROM_END = 1000, 4000

_THINKING = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>|^.*</think(?:ing)?>", re.I | re.S)
_ANSWER_TAG = re.compile(r"<answer>(.*?)</answer>", re.I | re.S)
_TAG_PAIR = re.compile(r"<(\w+)[^<>]*>([^<>]*)</\1>", re.S)
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{([^{}]*)\}")
_LATEX_TEXT = re.compile(r"\\(?:text\w*|math\w*|operatorname|bold\w*|underline|emph)\s*\{([^{}]*)\}")
_LATEX_MATH = re.compile(r"\$+\s*(\(?[A-Za-z]\)?|[^$\n]*\\[^$\n]*)\s*\$+|\\[()\[\]]")
_EMPTY_PHRASES = re.compile(
    r"\b(?:nothing (?:but|else than|other than)|none other than|no other than|not only|no doubt"
    r"|without (?:an?y? )?doubt|no question|n/a)\b",
    re.I,
)


def read_choice(answer: str, options: Sequence[str]) -> int | None:
    """The index of the option that a careful human reader takes from the answer.

    Args:
        answer: the model's raw text.
        options: 2 to 26 option texts, labelled A, B, C and so on.

    Returns:
        An index into ``options``, or None where the answer does not settle on one.
    """
    marked = mark_mentions(_without_markup(answer), options)
    if not marked.mentions:
        return _by_content_words(answer, options)
    _drop_restated_options(marked, len(options))
    _join_labels_to_texts(marked)
    taken = _decide(marked)
    return taken if taken != OUT_OF_RANGE else None


def read_choice_lsbs(answer: str, options: Sequence[str]) -> int | None:
    """The three-step rule of LSBS (arXiv 2509.26625, appendix on parsing); the first hit wins.

    Upper-case letters in a few fixed places; then the whole answer equal to an option text; then the
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
        found = re.match(pattern, answer, re.S)
        if found is not None:
            return ord(found.group(1)) - ord("A")
    folded, texts = answer.lower(), [option.lower() for option in options]
    if folded in texts:
        return texts.index(folded)
    contained = [index for index, text in enumerate(texts) if text and text in folded]
    return max(contained, key=lambda index: len(texts[index]), default=None)


def _without_markup(answer: str) -> str:
    """The words of the answer: no reasoning block, tags, LaTeX or Markdown; a box becomes a statement."""
    text = _THINKING.sub("", answer)
    tagged = _ANSWER_TAG.findall(text)
    text = plain(tagged[-1] if tagged and tagged[-1].strip() else text)
    for pattern, replacement in ((_LATEX_TEXT, r" \1 "), (_TAG_PAIR, r" \2 ")):
        while (shorter := pattern.sub(replacement, text)) != text:
            text = shorter
    text = _BOXED.sub(r"\nFinal answer: \1\n", text)
    text = _LATEX_MATH.sub(r" \1 ", text)
    text = re.sub(r"[*#~]+|(?<!\w)_+|_+(?!\w)", "", text)
    text = re.sub(r"\bans\b\s*[.:]?", "answer: ", text, flags=re.I)
    if re.search(r"^\s*Q\s*[:.]", text, re.M):
        text = re.sub(r"^\s*A\s*:", "Answer:", text, flags=re.M)
    text = _EMPTY_PHRASES.sub("", text).strip()
    if len(text) > _MOST_FROM_START + _MOST_FROM_END:
        text = f"{text[:_MOST_FROM_START]}\n{text[-_MOST_FROM_END:]}"
    return text


def _join_labels_to_texts(marked: MarkedAnswer) -> None:
    """Write ``B. cabinet`` as two mentions side by side, so that a label and its text are one unit."""

    def join(match: re.Match[str]) -> str:
        first, second = marked.at(match.start(1)), marked.at(match.end(2) - 1)
        return f"{match[1]} {match[2]}" if (first.kind, second.kind) == ("letter", "text") else match[0]

    marked.text = _LABELLED_TEXT.sub(join, marked.text)


def _drop_restated_options(marked: MarkedAnswer, count: int) -> None:
    """Where the answer repeats all the options with their labels, that list says nothing."""
    pairs = [
        match.span()
        for match in _LABELLED_PAIR.finditer(marked.text)
        if marked.at(match.start(1)).kind == "letter"
        and marked.at(match.start(2)).kind == "text"
        and marked.at(match.start(1)).option == marked.at(match.start(2)).option
    ]
    if len({marked.at(start).option for start, _ in pairs}) == count:
        for start, end in reversed(pairs):
            marked.text = marked.text[:start] + marked.text[end:]


def _decide(marked: MarkedAnswer) -> int | None:
    text = marked.text
    negated = _positions(_NEGATED_BEFORE.finditer(text)) | _positions(_NEGATED_AFTER.finditer(text))
    live = [position for position in _marks(text, 0, len(text)) if position not in negated]
    asked = {p for match in _ASKED.finditer(text) for p in range(*match.span())}

    def options(positions: Iterable[int]) -> set[int]:
        return {marked.at(position).option for position in positions}

    def stated(cues: Iterable[re.Match[str]]) -> set[int]:
        """Options named after the last cue that names any."""
        for cue in reversed(list(cues)):
            found = options(_first_statement(text, cue, live))
            if found:
                return found
        return set()

    explicit = stated(
        sorted([*_EXPLICIT.finditer(text), *_CONFIRMED.finditer(text)], key=lambda match: match.start())
    )
    firm = [position for position in live if position not in asked] or live
    considered = _positions(_CONSIDERED.finditer(text))
    for found in (
        explicit,
        stated(_REVISION.finditer(text)),
        _plain_answer(marked, live),
        stated(_OPINION.finditer(text)),
        stated(_CONSEQUENCE.finditer(text)),
        options(position for position in firm if position not in considered) or options(firm),
    ):
        if found:
            return found.pop() if len(found) == 1 else None
    return None


def _first_statement(text: str, cue: re.Match[str], live: Sequence[int]) -> list[int]:
    """Live mentions in the statement at a cue, up to its end or to an afterthought."""
    if cue.groupdict().get("list"):
        return [position for position in live if cue.start("list") <= position < cue.end("list")]
    start = cue.end()
    while start < len(text) and text[start] in " \n\t:\"'>-":
        start += 1
    ending = _REGION_END.search(text, start)
    inside = [position for position in live if start <= position < (ending.start() if ending else len(text))]
    if inside:
        afterthought = _AFTERTHOUGHT.search(text, inside[0])
        if afterthought is not None:
            inside = [position for position in inside if position < afterthought.start()]
    return inside


def _plain_answer(marked: MarkedAnswer, live: Sequence[int]) -> set[int]:
    """The option of a plain answer that opens the text or stands alone in its last line."""
    leading, trailing = _LEADING.search(marked.text), _TRAILING.search(marked.text)
    found: set[int] = set()
    if leading is not None:
        found |= {marked.at(p).option for p in _marks(marked.text, *leading.span()) if p in live}
    if trailing is not None:
        found |= {marked.at(p).option for p in _marks(marked.text, *trailing.span("list")) if p in live}
    return found


def _positions(matches: Iterable[re.Match[str]]) -> set[int]:
    """Where the mentions of each match's list stand."""
    return {position for match in matches for position in _marks(match.string, *match.span("list"))}


def _marks(text: str, start: int, end: int) -> list[int]:
    return [match.start() for match in re.compile(MENTION).finditer(text, start, end)]


def _by_content_words(answer: str, options: Sequence[str]) -> int | None:
    """The option equal to the whole answer but for small words: ``left`` for ``on the left``."""

    def content(text: str) -> list[str]:
        return [word for word in re.findall(r"-?\w+", plain(text).casefold()) if word not in _FILLERS]

    given = content(answer)
    equal = [index for index, text in enumerate(option_texts(options)) if given and content(text) == given]
    return equal[0] if len(equal) == 1 else None
