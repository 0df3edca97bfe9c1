"""The option that an answer selects, once its mentions are marked (the last stage).

The following are tried in order, each with the last statement that names an option: an explicit answer ("the
answer is", a box, "B is correct") or a correction ("wait, C"); a plain answer at the beginning or as the entire
last line; an opinion ("I think"); a consequence ("therefore", "but"); and the mentions that are not negated,
asked or merely considered. A statement with more than one option selects none.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence

from priorkit.scoring.answers.mcq.grammar import ALSO, AND, ITEM, LIST, OR, PAIR, contradictions, negated
from priorkit.scoring.answers.mcq.mentions import MENTION, MarkedAnswer

_NAMES_OF_ANSWER = (
    r"(?:answers?|best (?:match|fit|candidate)|choice|option|selection|pick|verdict|conclusion|response|guess|solution|final|letter|respuesta"
    r"|opción|réponse|antwort|lösung|risposta|resposta|ответ|antwoord|odpowiedź|svar|cevap)"
)
_EXPLICIT = re.compile(
    rf"(?<!first )(?<!initial )(?<!initially )\b{_NAMES_OF_ANSWER}\b[^\w\uE000-\uF8FF]{{0,3}}(?:(?:to|for) (?:the|this|your) question\s*)?"
    r"(?:[:=]|=>|[\s\"'-]+(?:(?:here|probably|most likely|likely|clearly|definitely|therefore|thus|then|would|should"
    r"|must|has to|only|is|be|was|are|es|ist|est|è|é|lautet|wäre|to)\b\s*)+:?|\s*\n)"
    r"|(?:答案|答え|正解|正确选项|정답|답)\W*[是为為は은는选選:]?"
    rf"|\b(?:answer)\s+(?=[\"'(\[]*{MENTION})",
    re.I,
)
_CONFIRMED = re.compile(
    rf"(?P<list>{PAIR})(?:\s*,?\s*(?:is|are|seems|looks|appears|must be|has to be|would be|ist|est|es|é|è)(?: to be)?\s+"
    r"(?:(?:clearly|definitely|most|more|likely|probably|much|far|the|a|my|la|die|indeed|therefore|thus|only"
    r"|one that is|best|better|correct|right|final|good)\s+)*(?:correct|right|true|best|better|answers?|choice|option"
    r"|accurate|valid|one|appropriate|likely|plausible|richtig|korrekt|correcte?|juste|bonne|correct[oa]|cert[oa])\b"
    r"(?!\s+(?:next|beside|of|above|below|side|behind|there|in front|by|at))|\s+(?:it is|fits (?:better|best))\b"
    r"|\s*[:?(-]\s*(?:yes|correct|right|true|✓|✔|✅)|\s*\(?(?:yes\b|[✓✔✅])|\s*(?:是)?(?:正确|正確|对的|對的))",
    re.I,
)
_REVISION = re.compile(
    r"\b(?:wait|actually|on second thoughts?|correction|scratch that|sorry(?=\s*[,.:!;-])|let me correct"
    r"|changed? my (?:mind|answer)|instead(?! of)|i mean[t]?|or rather)\b|(?<=[.!?,;-] )no\b(?=[,.]? )(?! other\b)",
    re.I,
)
_OPINION = re.compile(
    r"\b(?:i|we)(?:'d|'ll|'m| would| will| am| must| have to)?\s+(?:(?:\w+ly|now|then|still|just)\s+)?(?:choose|pick"
    r"|select|go(?:ing)? (?:with|for)|opt for|settle on|vote for|guess|say|answer|conclude|believe|think|bet|prefer)\b"
    r"|(?<!first )\b(?:my|best) (?:guess|bet|pick)\b(?: is| would be)?|\bgo(?:ing)? with\b|\bselect\b"
    r"|\blean(?:s|ing)?(?: more)?(?: towards?| to)?\b|\b(?:most|more) likely\b|\bprobably\b"
    r"|\b(?:glaube|denke|wähle|nehme|pense|crois|choisis|creo|pienso|elijo|acho|credo|penso)\b|我认为|我覺得|我觉得|我?选择?(?!项)",
    re.I,
)
_CONSEQUENCE = re.compile(
    r"\b(?:therefore|thus|hence|so|consequently|in conclusion|conclusion|overall|to conclude|in summary|finally"
    r"|ultimately|in the end|however|but(?! also)|rather(?! than)|it must be|must be|leav(?:es|ing)|remaining|remains"
    r"|only|daher|deshalb|sondern|donc|mais|sino|ma|pero|portanto|quindi|mas|поэтому)\b|=>?|所以|因此|而是|故",
    re.I,
)
_CONSIDERED = re.compile(
    rf"\b(?:could|might|may|maybe|perhaps|possibly|at first(?: glance| sight)?,?|initially,?|tempting|although|though|while|despite"
    rf"|resembl\w+|confus\w+|similar to|if|between|among|considered|thought(?: of)?|going to say"
    rf"|(?:my )?(?:first|initial) (?:guess|answer|choice) was|said|earlier)\b"
    rf"(?:(?!\b(?:but|so|because|since|therefore|instead|actually|hence|thus)\b|=>)[^,.;:!?\n\uE000-\uF8FF])*?"
    rf"(?P<list>{LIST})|(?:^|[.;!?\n]\s*)of\s+(?P<chosen>{LIST})\s*,",
    re.I,
)
_ASKED = re.compile(r"[^.!?\n]*\?")
_MORE = rf"(?:\s*\([^()\n]*\))?[\s,;|/&+()]*(?:(?:{OR}|{AND}|{ALSO})\s*)*{ITEM}"
_LEADING = re.compile(
    rf"^[^\w\uE000-\uF8FF]*(?P<list>{PAIR})(?P<more>(?:{_MORE})+)?"
    r"(?=\s*(?:$|[-.,;:!()\n]|(?:because|since|as|due|given|for|maybe|probably|definitely|i think|explanation|reason(?:ing)?)\b))",
    re.I,
)
_TRAILING = re.compile(rf"(?:\n|[.!?:]\s)[^\w\n\uE000-\uF8FF]*(?P<list>{PAIR})[^\w\n\uE000-\uF8FF]*$", re.I)
_LABEL_LINE = re.compile(
    rf"(?:^|\n|[.!?;]\s+|,\s+(?={MENTION}\s?:))[^\w\n\uE000-\uF8FF]*(?P<label>{MENTION})[):.](?=\s+[^\s\uE000-\uF8FF])"
)
_TO_WORDS = re.compile(r"[\s:\"'>,-]*")
_TO_CORRECTION = re.compile(r"(?:[\s:\"'>,.!?-]|\b(?:no|sorry|hmm)\b)*", re.I)
_REGION_END = re.compile(r"[.!?;](?=\s|$)|\n")
_AFTERTHOUGHT = re.compile(
    r"\b(?:because|since|as|but|although|though|while|whereas|however|given|due to|even|rather than|instead of"
    r"|explanation|reason(?:ing)?|justification|rationale)\b|[(]",
    re.I,
)
_UNDECIDED = re.compile(
    r"\banswer (?:is|remains) (?:unclear|unknown|uncertain|ambiguous)\b|\bcannot (?:decide|choose)\b", re.I
)
_SAME_AGAIN = re.compile(r"[\s.,;!\"')\]]*(?:(?:the|correct|right|my)\s+)*", re.I)


def conclusion(marked: MarkedAnswer) -> int | None:
    """The option (or ``OUT_OF_RANGE``) that the answer selects; None for none or several."""
    mentions = _LiveMentions(marked)
    text = marked.text
    if mentions.live and _UNDECIDED.search(text, mentions.live[-1]):
        return None
    explicit = [*_EXPLICIT.finditer(text), *_CONFIRMED.finditer(text), *_REVISION.finditer(text)]
    plain_answer = mentions.plain_answer()
    undecided = len(plain_answer) > 1
    for options in (
        mentions.stated(sorted(explicit, key=lambda match: match.start())),
        set[int]() if undecided else plain_answer,
        mentions.stated(_OPINION.finditer(text)),
        mentions.stated(_CONSEQUENCE.finditer(text)),
        plain_answer,
        mentions.remaining_mentions(),
    ):
        if options:
            return options.pop() if len(options) == 1 else None
    return None


class _LiveMentions:
    """The mentions of an answer that are not negated, and the options that statements name."""

    def __init__(self, marked: MarkedAnswer) -> None:
        self.marked = marked
        self.denied = negated(marked)
        self.live = [position for position in marked.positions() if position not in self.denied]
        self.partner = {
            start: other for start, other in contradictions(marked).items() if other not in self.denied
        }

    def options(self, positions: Iterable[int]) -> set[int]:
        """Options at positions, with those that contradict them in the same unit (a letter with another option's text)."""
        mentions = set(positions)
        mentions |= {self.partner[position] for position in mentions if position in self.partner}
        return {self.marked.at(position).option for position in mentions}

    def stated(self, cues: Iterable[re.Match[str]]) -> set[int]:
        """Options named after the last cue that names any; the same cue twice in a row names both."""
        later: tuple[re.Match[str], set[int]] | None = None
        for cue in reversed(list(cues)):
            positions = self.statement(cue)
            if not positions:
                continue
            stated_options = self.options(positions)
            if later is None:
                later = cue, stated_options
                continue
            between = self.marked.text[positions[-1] + 1 : later[0].start()]
            again = cue.re is not _REVISION and cue[0].casefold().strip() == later[0][0].casefold().strip()
            return later[1] | stated_options if again and _SAME_AGAIN.fullmatch(between) else later[1]
        return later[1] if later else set()

    def statement(self, cue: re.Match[str]) -> list[int]:
        """Live mentions in the statement at a cue, up to its end or to an afterthought."""
        text = self.marked.text
        if cue.groupdict().get("list"):
            return self.within(*cue.span("list"))
        to_words = _TO_CORRECTION if cue.re is _REVISION else _TO_WORDS
        skipped = to_words.match(text, cue.end())
        start = skipped.end() if skipped else cue.end()
        ending = _REGION_END.search(text, start)
        inside = self.within(start, ending.start() if ending else len(text))
        afterthought = _AFTERTHOUGHT.search(text, inside[0]) if inside else None
        if afterthought is not None:
            inside = [position for position in inside if position < afterthought.start()]
        return inside

    def within(self, start: int, end: int) -> list[int]:
        """Live mentions in a span."""
        return self.live[bisect_left(self.live, start) : bisect_left(self.live, end)]

    def plain_answer(self) -> set[int]:
        """The option of a plain answer at the beginning of the text, or that is its entire last line."""
        text = self.marked.text
        leading, trailing = _LEADING.search(text), _TRAILING.search(text)
        first: set[int] = set()
        if leading is not None and not self.lists_options_in_turn():
            first = self.options(self.within(*leading.span()))
        last = self.options(self.within(*trailing.span("list"))) if trailing is not None else set[int]()
        separate = leading is not None and trailing is not None and leading.end() <= trailing.start("list")
        return last if separate and len(first) > 1 and len(last) == 1 else first | last

    def lists_options_in_turn(self) -> bool:
        """Whether the answer comments on several labels in turn: ``A: 10%, B: 80%``."""
        starts = [match.start("label") for match in _LABEL_LINE.finditer(self.marked.text)]
        options = [self.marked.at(position).option for position in starts if position not in self.denied]
        return len(options) > 1 and options == sorted(set(options))

    def remaining_mentions(self) -> set[int]:
        """Options neither negated nor asked nor merely considered; otherwise the considered ones."""
        text = self.marked.text
        in_question = {position for match in _ASKED.finditer(text) for position in range(*match.span())}
        candidates = self.not_denied_later()
        firm: Sequence[int] = [
            position for position in candidates if position not in in_question
        ] or candidates
        considered = {
            position
            for match in _CONSIDERED.finditer(text)
            for group in ("list", "chosen")
            for position in self.marked.positions(*match.span(group))
            if match[group]
        }
        return self.options(position for position in firm if position not in considered) or self.options(firm)

    def not_denied_later(self) -> list[int]:
        """Live mentions, without letters whose last mention is negated: ``C is odd, so not C``."""
        last = {self.marked.at(position).option: position for position in self.marked.positions()}
        letters = {
            option
            for option, position in last.items()
            if position in self.denied and self.marked.at(position).kind == "letter"
        }
        return [
            position
            for position in self.live
            if self.marked.at(position).kind != "letter" or self.marked.at(position).option not in letters
        ]
