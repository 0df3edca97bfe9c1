"""The words of a free-text answer: reasoning blocks, markup and runaway turns taken off (the first stage).

What is left is plain text whose marks have one form each, in which a box, a tag or a JSON field that holds
the answer has become the sentence ``Final answer: ...``.
"""

from __future__ import annotations

import re
import unicodedata

from priorkit.scoring.answers.reasoning import final_answer

_PLAIN = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛′´`", "'"),
        **dict.fromkeys("“”„‟«»″", '"'),
        **dict.fromkeys("‐‑‒−", "-"),
        **dict.fromkeys("–—―", " - "),
        **dict.fromkeys("→⇒➜➡", " => "),
        **dict.fromkeys("【〔「『", "("),
        **dict.fromkeys("】〕」』", ")"),
        **dict.fromkeys("。", "."),
        **dict.fromkeys("、", ","),
        **{chr(code): f"^{digit}" for digit, code in ((2, 0xB2), (3, 0xB3))},
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
    (re.compile(r"(?<=\d),(?=\d{3}(?!\d))"), ""),
)
_PRIVATE = re.compile(r"[\uE000-\uF8FF]")

_ANSWER_TAG = re.compile(r"<(answer|ans|final_?answer|conclusion|choice)>(.*?)(?:</\1>|$)", re.I | re.S)
_END = re.compile(r"<\|[^|<>\n]*\|>|</?s>|<eos>|<end_of_\w+>|\[/?INST\]")
_TAG_PAIR = re.compile(r"<(\w+)[^<>]*>([^<>]*)</\1>", re.S)
_JSON_KEY = re.compile(r"(?<=[{,\s])[\"']([A-Za-z][\w ]{0,30})[\"']\s*:\s*")

_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_ROOT = re.compile(r"\\sqrt\s*\{([^{}]*)\}")
_POWER = re.compile(r"\^\{([^{}]*)\}")
_LATEX_TEXT = re.compile(r"\\(?:text\w*|math\w*|operatorname|bold\w*|underline|emph)\s*\{([^{}]*)\}")
_BOXED = re.compile(r"\\?\b(?:boxed|fbox)\s*(?:\{([^{}]*)\}|(?<=boxed )(\w)\b)")
_LATEX_MATH = re.compile(r"\$+\s*(\(?[A-Za-z]\)?|[^$\n]*\\[^$\n]*)\s*\$+|\\[()\[\]]")
_STRUCK = re.compile(r"~~[^~\n]*~~")
_UNCHECKED = re.compile(r"^[^\w\n]*(?:\[ ?\]|☐|⬜).*$", re.M)
_CHECKED = re.compile(r"\[[xX]\]|☑|✅|☒")
_TABLE_RULE = re.compile(r"^[ \t]*\|[ \t:|-]+\|[ \t]*\n?", re.M)
_TABLE_ROW = re.compile(r"^[ \t]*\|(.*)\|[ \t]*$", re.M)
_VERDICT_BEFORE = re.compile(
    r"^([^❌✗✘×✓✔✅\n]*)([❌✗✘×✓✔✅])[ \t]*([^❌✗✘×✓✔✅\n]*\w[^❌✗✘×✓✔✅\n]*)$", re.M
)
_EMPTY_PHRASES = re.compile(
    r"\b(?:not only|no doubt(?: about (?:it|that))?|without (?:an?y? )?doubt|no question|n/a)\b", re.I
)
_NEXT_TURN = re.compile(r"\n\s*(?:question|q|user|human|instruction)\s*\d*\s*[:.]", re.I)
_SPEAKER = re.compile(r"^\s*(?:user|human)\s*:.*?\n\s*(?:assistant|ai|model)\s*:", re.I | re.S)

# Only the beginning and end of a very long answer are used; this also bounds the number of mentions.
_CHARACTERS_FROM_START, _CHARACTERS_FROM_END = 1000, 4000


def plain(text: str) -> str:
    """Straight quotes, plain dashes, spelled-out negations, digits together; compatibility forms folded (NFKC)."""
    text = unicodedata.normalize("NFKC", text.translate(_PLAIN)).translate(_PLAIN)
    text = _PRIVATE.sub("", text)
    for pattern, replacement in _CONTRACTIONS:
        text = pattern.sub(replacement, text)
    return text


def readable(answer: str) -> str:
    """The text of the answer without reasoning blocks, turn markers, tags, LaTeX and Markdown."""
    text = _without_tags(final_answer(answer))
    text = _without_latex(plain(text))
    text = _without_markdown(text)
    text = re.sub(r"\bans\b\s*[.:]?", "answer: ", text, flags=re.I)
    text = re.sub(r"\bopt\.\s*", "option ", text, flags=re.I)
    if re.search(r"^\s*Q\s*[:.]", text, re.M):
        text = re.sub(r"^\s*A\s*:", "Answer:", text, flags=re.M)
    text = re.sub(r"^\s*A\s*:(?=\W*[A-Z]\W*$)", "Answer:", text)
    text = _SPEAKER.sub("", _EMPTY_PHRASES.sub("", text)).strip()
    if len(text) > _CHARACTERS_FROM_START + _CHARACTERS_FROM_END:
        text = f"{text[:_CHARACTERS_FROM_START]}\n{text[-_CHARACTERS_FROM_END:]}"
    return text


def option_words(option: str) -> str:
    """The text of an option, with LaTeX converted as in an answer."""
    text = _without_latex(plain(option)).strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == "$" else text


def prefixes_before_next_turn(text: str) -> list[str]:
    """The text up to each position where another question or speaker begins, then the full text."""
    return [*(text[: match.start()] for match in _NEXT_TURN.finditer(text)), text]


def _without_tags(text: str) -> str:
    parts = [part for part in _END.split(text) if part.strip()]
    text = parts[0] if parts else ""
    tagged = [groups[1] for groups in _ANSWER_TAG.findall(text) if groups[1].strip()]
    return f"Final answer: {tagged[-1].strip()}" if tagged else text


def _without_latex(text: str) -> str:
    for pattern, replacement in (
        (_FRACTION, r"\1/\2"),
        (_ROOT, r"√\1"),
        (_POWER, r"^\1"),
        (_LATEX_TEXT, r" \1 "),
        (_TAG_PAIR, r" \2 "),
    ):
        while (shorter := pattern.sub(replacement, text)) != text:
            text = shorter
    for command, sign in (("^\\circ", "°"), ("\\%", "%"), ("\\pi", "π")):
        text = text.replace(command, sign)
    text = _BOXED.sub(lambda found: f"\nFinal answer: {found[1] or found[2] or ''}\n", text)
    return _LATEX_MATH.sub(r" \1 ", text)


def _without_markdown(text: str) -> str:
    text = _STRUCK.sub("", text)
    if _CHECKED.search(text) and _UNCHECKED.search(text):
        text = _UNCHECKED.sub("", text)
        text = _CHECKED.sub("", text)
    text = _TABLE_ROW.sub(
        lambda row: ": ".join(cell.strip() for cell in row[1].split("|")), _TABLE_RULE.sub("", text)
    )
    text = _VERDICT_BEFORE.sub(r"\1\3 \2", text)
    text = _JSON_KEY.sub(lambda found: f"\n{found[1].replace('_', ' ')}: ", text)
    return re.sub(r"[*#~]+|(?<!\w)_+|_+(?!\w)", "", text)
