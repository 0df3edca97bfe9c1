"""How the words around mentions qualify them: lists, units, negation, doubt (the third stage).

Works on an answer whose mentions are single characters (:mod:`priorkit.scoring.answers.mcq.mentions`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from priorkit.scoring.answers.mcq.mentions import MENTION, OUT_OF_RANGE, MarkedAnswer, Mention

ARTICLE = r"(?:(?:the|an?|some|any|that|this|its?|my|option|choice|letter|answer|opción|la|le|el|die|der|das|eine?n?|une?)[ \t]+)*"
ITEM = rf"{ARTICLE}[\"'(\[]*{MENTION}[)\]\"']*"
PAIR = rf"{ITEM}(?:[ \t]+{ITEM})?"
AND = r"(?:\b(?:and|as well as|along with|together with|plus|but also|und|et|y|e)\b|&|\+|和|与|及)"
OR = r"(?:\b(?:or|nor|and/or|oder|noch|ou|ni|o|или|ни)\b|/|或者?)"
ALSO = r"(?:(?:also|maybe|perhaps|possibly|even|else|potentially)\s+)?"


def _list(new_subject: str) -> str:
    """A list of mentions; "and X is" begins a new sentence if the verb is one of ``new_subject``."""
    return (
        rf"{PAIR}(?:(?:\s*,\s*{PAIR})*\s*,?\s*(?:{OR}\s*{ALSO}{PAIR}"
        rf"|{AND}\s*{ALSO}{PAIR}(?!\s+(?:{new_subject})\b)))*"
    )


LIST = _list("is|are|was|were|can|has|appears?|seems?|remains")
_SUBJECTS = _list("is|was|has|appears|seems")
_COMMAS = rf"{PAIR}(?:\s*,\s*{PAIR})*"

_BE = (
    r"(?:is|are|was|were|does|do|did|has|have|can|could|would|should|must|seems?|looks?|appears?|may"
    r"|might|will|ist|sind|est|sont|es|son|é|são|è|sono)\b"
)
_WRONG = (
    r"(?:wrong|incorrect|false|absent|missing|impossible|unlikely|less likely|invalid|ruled out|out\b"
    r"(?! of the)|eliminated|excluded|rejected|irrelevant|implausible|nowhere|untrue|falsch"
    r"|fauss?e?s?\b|incorrecte?s?|incorrect[oa]s?|falsas?|errad[oa]s?|sbagliat[oa])"
)
_WRONG_CJK = r"\s*(?:是|都)*(?:错|錯|不对|不對|不正确|不正確|不符合|不是(?!\s*[,:])|ではな|じゃな)"
_CLAUSE = (
    r"(?:(?!\b(?:but|so|because|since|therefore|instead|actually|hence|thus|neither|nor|sondern|sino|mais|mas|ma|pero|aber)\b|=>|而)"
    r"[^,.;:!?\n\uE000-\uF8FF])*?"
)
_DENIALS = (
    r"\b(?:not|(?<![\uE000-\uF8FF]\) )no(?!\s*[,.;:!\n])|never|neither|nor|without|cannot|none of|rather than|instead of|other than"
    r"|except(?: for)?|exclud(?:e|es|ed|ing)|rul(?:e|es|ed|ing) out|eliminat(?:e|es|ed|ing)|reject(?:s|ed|ing)?"
    r"|dismiss(?:ed|ing)?|discard(?:ed|ing)?|unlike|nothing (?:like|resembling|similar to)|lack(?:s|ing)?|missing|absence of|than|hardly|scarcely|doubt"
    r"|unable to|fail(?:s|ed)? to|far from|anything but|devoid of|used to be|wrong to|wrong about|mistaken (?:about|in)"
    r"|refus(?:e|ed|es|ing)|declin(?:e|ed|es|ing)|disagree(?:s|d)? with|followed by|ahead of|(?<=[\uE000-\uF8FF] )over(?=\s+[\uE000-\uF8FF])|from(?=\s+[\uE000-\uF8FF]\s+to\b)"
    r"|nicht|kein\w*|weder|noch|ohne|pas|ni|non(?!\s*[,.;:!\n])|não|nem|sin|sans|не|ни|нет|niet|geen|nie)\b"
)
_DENIAL = rf"(?:{_DENIALS}(?!\s+(?:sure|certain|only|entirely|completely|just)\b)|不是|并非|不选|没有|不可能是|排除)"
_NEGATED_BEFORE = re.compile(rf"(?P<denial>{_DENIAL}{_CLAUSE})(?P<list>{_COMMAS}(?=\s+leav)|{LIST})", re.I)
# "The one that is not there is M": the negation belongs to the subject, unless a clause follows it.
_SUBJECT = re.compile(
    r"(?:not?|never|without|cannot|missing|lacking)\b.*\b(?:is|are|was|were|must be|would be)\b", re.I
)
_COMPLEMENT = re.compile(
    r"\b(?:think|believe|say|said|mean|suggest|indicate|imply|guess|agree|that|way|evidence|case|if|whether|because)\b",
    re.I,
)
_PLACE = r"(?:\s+(?:options?|choices?|answers?|in (?:the|this) (?:image|picture|photo|scene)))?"
_NOT_ANOTHER = rf"not\b(?!\s+{ARTICLE}{MENTION})"
_NEGATED_AFTER = re.compile(
    rf"(?P<list>{_SUBJECTS}){_PLACE}(?:\s+(?:both |all |each )?{_BE}\s+(?:\w+\s+){{0,2}}?"
    rf"(?:(?:not|never|nicht|kein|pas)\b(?!\s+{ARTICLE}{MENTION})|{_WRONG}(?!\s+{ARTICLE}{MENTION}))"
    rf"|\s+cannot\b|\s+{_WRONG}|\s+n'est pas|\s*[:=(-]+\s*(?:no\b(?=\W*(?:$|[,.;\n]))|{_NOT_ANOTHER}|{_WRONG}"
    rf"|[❌✗✘×])|\s*[❌✗✘×]|\?\s*(?:no|nope|not|i do not|i doubt)\b|\s+no\b(?=\s*(?:[,.;\n]|$|\({MENTION}))|{_WRONG_CJK})",
    re.I,
)
_NEGATED_LIST = re.compile(
    rf"(?P<list>{_COMMAS})(?:\s+(?:are|were)\s+(?:\w+\s+)?(?:not\b|{_WRONG})|\s*:\s*(?:not\b|{_WRONG}))", re.I
)
_NEGATED_HEADING = re.compile(
    rf"\b(?:not (?!sure|certain)\w+|{_WRONG})\s*:\s*(?P<list>{_COMMAS}(?:\s*,?\s*(?:{OR}|{AND})\s*{PAIR})?)",
    re.I,
)
_EXCEPTION = re.compile(
    r"\b(?P<head>all|every\w*|each|any\w*|nothing|nobody|none|no)\b(?P<middle>[^.,;:!?\n\uE000-\uF8FF]*?)\b"
    r"(?:but|else than|except(?:ing)?(?: for)?|other than|besides|apart from|save(?: for)?)\s+"
    rf"(?P<list>{LIST})(?P<rest>[^.;!?\n]*)",
    re.I,
)
_NOT_RIGHT = re.compile(rf"\b(?:{_WRONG}|cannot|not?)\b|eliminate|rule|exclude", re.I)
_RULING_OUT = re.compile(r"\b(?:rul|exclud|eliminat|reject|dismiss)[^.,;:!?\n]*$", re.I)
_CLAUSE_BEFORE = 40
_DOUBT = re.compile(
    r"\b(?:not (?:sure|certain|clear)|unsure|uncertain|unclear|not enough information|insufficient information"
    r"|(?:cannot|unable to|impossible to|hard to|difficult to) (?:tell|say|determine|see|decide|know|choose|confirm"
    r"|identify|answer|be answered|select)|do not know|no way (?:to|of) \w+|asked?|asks|wonder\w*)\b[^.,;!?\n]*?"
    r"\b(?:if|whether|which|between|that|about|with)\b|\b(?:whether|ob)\b|\bje ne sais pas si\b|\bno sé si\b",
    re.I,
)
_DOUBT_END = re.compile(
    r"[.;!?\n]|,?\s*\b(?:but|however|though|although|yet)\b|,\s*(?:so|i|my|probably|maybe|most|it is)\b", re.I
)
_VERDICT_LABEL = re.compile(rf"(?:^|\n)[^\w\n\uE000-\uF8FF]*(?P<label>{MENTION})[).:]?\s*[-:.)]", re.I)

_CLOSE = r"[)\]}\"']*"
_SIGNS = rf"{_CLOSE}\s*(?:[-.:,;/=(|]|=>)*\s*"
_THAT_IS = r"(?:(?:which is|that is|i\.?e\.?|namely|is for|for|so|hence|thus|therefore)[,:]?\s+)?"
_LABEL_WORD = r"(?:(?:option|choice|letter|answer)\s+)?"
_LABEL_TEXT = re.compile(
    rf"(?P<first>{MENTION}){_SIGNS}{_THAT_IS}[\"'(\[]*(?:(?:the|an?|some)\s+)?(?P<second>{MENTION})", re.I
)
_TEXT_LABEL = re.compile(
    rf"(?P<first>{MENTION}){_SIGNS}{_THAT_IS}{_LABEL_WORD}[\"'(\[]*(?P<second>{MENTION})[)\]]?", re.I
)
_UNIT_END = re.compile(rf"{_CLOSE}\s*(?:[.,;:!?()\n=-]|$|[(\[]?{MENTION})")
_RANGE = re.compile(
    rf"(?<!from )(?P<first>{MENTION})\s*(?:-|\bto\b|\bthrough\b|\btill?\b)\s*(?P<second>{MENTION})"
)
_LIST_STEP = re.compile(
    rf"[)\]\"']*[\s,|/*•·]*(?:(?P<conjunction>{OR}|{AND})\s*)?(?:(?:an?|the|option)\s+)*[\"'(\[]*{MENTION}",
    re.I,
)
_UNIT_STEP = re.compile(rf"[)\]\"'.,;|/*•·\s-]*(?:\b(?:or|and)\b\s*)?[\"'(\[]*{MENTION}", re.I)


def join_units(marked: MarkedAnswer) -> set[str]:
    """Write a label and its own text as one mention (``B. cabinet``, ``cabinet (B)``), a range as none.

    Returns:
        The mentions, by their characters, that were written as label and text.
    """
    units: set[str] = set()
    for pattern in (_LABEL_TEXT, _TEXT_LABEL):
        position = 0
        while (match := pattern.search(marked.text, position)) is not None:
            position = match.start() + 1
            first, second = _named(marked, match)
            agree = first.option == second.option and _is_label_and_text(first, second)
            if agree and _UNIT_END.match(marked.text, match.end()):
                units.add(match["first"])
                marked.text = marked.text[: match.start()] + match["first"] + marked.text[match.end() :]
    for match in reversed(list(_RANGE.finditer(marked.text))):
        first, second = _named(marked, match)
        if first.kind == second.kind == "letter" and first.option < second.option:
            marked.mark(*match.span(), Mention(OUT_OF_RANGE, "letter"))
    return units


def contradictions(marked: MarkedAnswer) -> dict[int, int]:
    """Labels and texts of different options that form one unit: the partner at each position."""
    partner: dict[int, int] = {}
    for pattern in (_LABEL_TEXT, _TEXT_LABEL):
        for start in marked.positions():
            match = pattern.match(marked.text, start)
            if match is None or not _UNIT_END.match(marked.text, match.end()):
                continue
            first, second = _named(marked, match)
            if first.option != second.option and _is_label_and_text(first, second):
                partner[start], partner[match.start("second")] = match.start("second"), start
    return partner


def drop_enumerations(marked: MarkedAnswer, units: set[str]) -> None:
    """Remove lists of all options: repeating the choices is not an answer."""
    spans: list[tuple[int, int]] = []
    after = 0
    for start in marked.positions():
        end = _enumeration_end(marked, start, units) if start >= after else None
        if end is not None:
            spans.append((start, end))
            after = end
    for start, end in reversed(spans):
        marked.text = f"{marked.text[:start]} {marked.text[end:]}"


def _enumeration_end(marked: MarkedAnswer, start: int, units: set[str]) -> int | None:
    """The position at which a list starting here has named all options; a list ends after its "or"."""
    text, options, position, joined = marked.text, {marked.at(start).option}, start, False
    for _ in range(2 * marked.count):
        if len(options) == marked.count:
            of_units = text[start] in units
            return (
                position + 1
                if OUT_OF_RANGE not in options and (joined or of_units or marked.count > 2)
                else None
            )
        step = _LIST_STEP.match(text, position + 1)
        if step is not None and (not joined or step["conjunction"]):
            joined = bool(step["conjunction"])
        else:
            step = _UNIT_STEP.match(text, position + 1)
            if step is None or not {text[position], text[step.end() - 1]} <= units:
                return None
        position = step.end() - 1
        options.add(marked.at(position).option)
    return None


def negated(marked: MarkedAnswer) -> set[int]:
    """Positions of mentions that the answer negates or is unsure about."""
    text = marked.text
    before = [match for match in _NEGATED_BEFORE.finditer(text) if not _is_of_subject(match["denial"])]
    negated_mentions = _of_lists(marked, [*before, *_NEGATED_AFTER.finditer(text)])
    negated_mentions |= _of_lists(marked, [*_NEGATED_LIST.finditer(text), *_NEGATED_HEADING.finditer(text)])
    for exception in _EXCEPTION.finditer(text):
        head, excepted = exception["head"].lower(), _of_lists(marked, [exception])
        none_but = head in ("no", "none", "nothing", "nobody")
        clause = text[max(0, exception.start() - _CLAUSE_BEFORE) : exception.start()]
        wrong = _NOT_RIGHT.search(exception["rest"]) or _RULING_OUT.search(clause)
        all_but_are_wrong = wrong is not None and not head.startswith("any")
        negated_mentions = (
            negated_mentions - excepted if none_but or all_but_are_wrong else negated_mentions | excepted
        )
    for doubt in _DOUBT.finditer(text):
        end = _DOUBT_END.search(text, doubt.end())
        negated_mentions |= set(marked.positions(doubt.end(), end.start() if end else None))
    for label in _VERDICT_LABEL.finditer(text):
        line = marked.positions(label.end(), _line_end(text, label.end()))
        same = [
            position
            for position in line
            if marked.at(position).option == marked.at(label.start("label")).option
        ]
        if same and negated_mentions.issuperset(same):
            negated_mentions.add(label.start("label"))
    return negated_mentions


def _of_lists(marked: MarkedAnswer, matches: Iterable[re.Match[str]]) -> set[int]:
    return {position for match in matches for position in marked.positions(*match.span("list"))}


def _is_of_subject(denial: str) -> bool:
    return _SUBJECT.match(denial) is not None and _COMPLEMENT.search(denial) is None


def _named(marked: MarkedAnswer, match: re.Match[str]) -> tuple[Mention, Mention]:
    return marked.at(match.start("first")), marked.at(match.start("second"))


def _is_label_and_text(first: Mention, second: Mention) -> bool:
    return (first.kind == "text") != (second.kind == "text")


def _line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end
