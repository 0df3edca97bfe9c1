"""The Penn Treebank tokenization that the caption metrics are defined on, without Java.

Target: ``PTBTokenizer`` of pycocoevalcap 1.2, which runs Stanford CoreNLP 3.4.1 with ``-preserveLines
-lowerCase`` and then drops a list of punctuation tokens. At each position, the lexer applies the rule
with the longest match (including its trailing context, which is not consumed); on ties, the earlier rule. Quirks kept: brackets become ``-lrb-`` in lower case and are therefore *not* dropped, and neither
are runs of marks such as ``!!!``.

The rules cover what captions contain. Not covered: web and e-mail addresses of unusual form, British
spellings and currency names (left as they are), line separators inside a caption.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache

_DROPPED = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)

_LETTER = r"[^\W\d_²³¹¼-¾⁰-₉⅐-↏]"
_WORD_PART = rf"(?:{_LETTER}|[\u00AD\u0300-\u036F])"
_WORD = rf"{_WORD_PART}(?:{_WORD_PART}|\d)*(?:[.!?]{_WORD_PART}(?:{_WORD_PART}|\d)*)*"
_ALNUM = rf"(?:{_LETTER}|\d)"
_APOSTROPHE = r"(?:['\u0092’´]|&apos;)"
_ANY_APOSTROPHE = r"(?:['\u0092’´`\u0091‘‛]|&apos;)"
_CLITIC = rf"{_APOSTROPHE}(?i:re|ve|ll|[msd])"
_SPACE = r"[ \t\u00A0\u2000-\u200A\u3000]"
_SPACE_OR_LINE = r"[ \t\u00A0\u2000-\u200A\u3000\r\n]"
_NUM = r"(?:\d+(?:[.:,\u00AD\u066B\u066C]\d+)*|\d*(?:[.,\u066B\u066C]\d+)+)"
_ACRONYM_DOTTED = r"[A-Za-z](?:\.[A-Za-z])+"
_PREFIXED = rf"(?:[dDoOlL]{_ANY_APOSTROPHE}{_ALNUM})?"
_HYPHEN = r"[-_\u058A\u2010\u2011]"
_BEFORE_LOWER = (
    r"(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|Mon|Tues?|Wed|Thu|Thurs|Fri"
    r"|Ala|Ariz|Calif|Colo|Conn|Dak|Fla|Ga|Ind|Kans?|Ky|Md|Mich|Minn|Mo|Mont|Neb|Nev|Okla|Penn"
    r"|Tenn|Va|Vt|Wisc?|Wyo|Inc|Cos?|Corp|Pp?tys?|Ltd|Plc|Bancorp|Bhd|Assn|Univ|Intl|Sys|tel|est|ext"
    r"|sq|Jr|Sr|Bros|(?:Ed|Ph)\.D|Esq|etc|al|seq)"
)
_CAPITAL_STATES = r"(?:Ark|Del|Ill|La|Mass|Miss|Ore|Pa|Tex|Wash)"
_BEFORE_NUMBER = r"(?:ca|figs?|prop|nos?|sect?s?|arts?|paras?|bldg|pp|op|approx)"
_TITLES = (
    r"(?:Mr|Mrs|Ms|Drs?|Profs?|Sens?|Reps?|Attys?|Lt|Col|Gen|Messrs|Govs?|Adm|Rev|Maj|Sgt|Cpl|Pvt|Mt|Ft"
    r"|Capt|Ste?|Ave|Pres|Lieut|Hon|Brig|Co?mdr|Pfc|Spc|Supts?|Det|vs|Alex|Wm|Jos|Cie|cf|Ph|Blvd|Rd|Dept"
    r"|Invt|Elec|Natl|M[ft]g)"
)
_URL_END = r"[^ \t\n\f\r\"<>|.!?(){},-]"
_NOT_IN_URL = r"[^ \t\n\f\r\"<>|()]"
_IN_EMAIL = r"[^ \t\n\f\r\"<>|()\u00A0]"
_IN_DOMAIN = r"[^ \t\n\f\r\"<>|().\u00A0]"
_THING = rf"{_PREFIXED}{_ALNUM}+(?:{_HYPHEN}{_PREFIXED}{_ALNUM}+)*"
_HYPHENATED = rf"[A-Za-z0-9][A-Za-z0-9.,\u00AD]*(?:-(?:{_ACRONYM_DOTTED}\.|[A-Za-z0-9\u00AD]+(?:\.\d+)?))+"
_TREEBANK_WORDS = (
    rf"(?i:-(?:[RL][RCS]B)-|C\.D\.s|pro-|anti-|S(?:&|&amp;)P-500|Cap{_APOSTROPHE}n|c{_APOSTROPHE}est)"
)
_SYMBOLS = r"[+%&~^|\\¦§¨©¬®¯°±´-º×÷·‖‗†-‣‰-‸※‾-⁂⁄⁺-ⁿ₊-₎℀-⅏←-⯿〒・！-／：-＠［-｀｛-･]"
_APOSTROPHE_WORDS = "|".join(
    (
        rf"{_APOSTROPHE}n{_APOSTROPHE}?",
        rf"[lLdDjJ]{_APOSTROPHE}",
        rf"(?i:dunkin|somethin|ol){_APOSTROPHE}",
        rf"{_APOSTROPHE}(?i:em|cause|till?)",
        rf"[A-HJ-XZn]{_ANY_APOSTROPHE}{_LETTER}{{2,}}",
        rf"{_APOSTROPHE}[2-9]0s",
        rf"{_LETTER}{{2,}}(?<=[aeiouyAEIOUY]){_ANY_APOSTROPHE}[aeiouA-Z]{_LETTER}*",
        r"(?i:cont'd\.?|nor'easter|c'mon|e'er|s'mores|ev'ry|li'l|nat'l)",
    )
)
_PHONE = (
    r"(?:\([0-9]{2,3}\)[ \u00A0]?|(?:\+\+?)?(?:[0-9]{2,4}[- \u00A0])?[0-9]{2,4}[- \u00A0])"
    r"[0-9]{3,4}[- \u00A0]?[0-9]{3,5}|(?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}"
)
_SINGLE_QUOTES = str.maketrans(dict.fromkeys("\u0091‘‛‹‚", "`") | dict.fromkeys("\u0092’›´", "'"))
_FRACTIONS = {"¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"}


def _same(token: str) -> str:
    return token


def _always(token: str) -> Callable[[str], str]:
    return lambda _: token


def _glued(token: str) -> str:
    return token.replace(" ", "\u00a0")


def _bracketed(token: str) -> str:
    return _glued(token).replace("(", "-LRB-").replace(")", "-RRB-")


def _quotes(token: str) -> str:
    token = token.replace("&apos;", "'").translate(_SINGLE_QUOTES)
    return re.sub(r"[\"“”„‟«»]|&quot;", "''", token)


def _dashes(token: str) -> str:
    return "--" if len(token) in (3, 4) else token


def _without_soft_hyphens(token: str) -> str:
    return token.replace("\u00ad", "") or "-"


# (token, trailing context, form of the token), in the order of precedence.
_RULES: tuple[tuple[str, str, Callable[[str], str]], ...] = (
    (r"(?i:c\+\+|[cf]#)", "", _same),
    (r"(?i:can)", r"(?i:not)", _same),
    (rf"(?i:{_APOSTROPHE}t|'t)", r"(?i:was|is)", _quotes),
    (r"(?i:du)", r"(?i:nno)", _same),
    (r"(?i:gon|wan|n)", r"(?i:na|no)(?![^\W_])", _same),
    (r"(?i:got)", r"(?i:ta)", _same),
    (r"(?i:lem|gim)", r"(?i:me)", _same),
    (r"</?[A-Za-z!?][^>\r\n]*>", "", _glued),
    (r"&(?:MD|mdash|ndash);|[\u0096\u0097–—―]", "", _always("--")),
    (r"(?i:&amp;)", "", _always("&")),
    (_WORD, _CLITIC, _without_soft_hyphens),
    (r"[A-Za-z\u00AD]*[A-MO-Za-mo-z]\u00AD*", rf"(?i:n{_ANY_APOSTROPHE}t)", _without_soft_hyphens),
    (_WORD, "", _without_soft_hyphens),
    (_APOSTROPHE_WORDS, "", _quotes),
    (rf"[yY]{_APOSTROPHE}", _LETTER, _quotes),
    (rf"(?i:https?)://{_NOT_IN_URL}+{_URL_END}", "", _same),
    (
        r"(?:(?i:www)\.(?:[^ \t\n\f\r\"<>|.!?(){},]+\.)+[a-zA-Z]{2,4}"
        r"|(?:[^ \t\n\f\r\"`'<>|.!?(){},_$]+\.)+(?i:com|net|org|edu))"
        rf"(?:/{_NOT_IN_URL}+{_URL_END})?",
        "",
        _same,
    ),
    (rf"[a-zA-Z0-9]{_IN_EMAIL}*@(?:{_IN_DOMAIN}+\.)*{_IN_DOMAIN}+", "", _same),
    (rf"@[a-zA-Z_][a-zA-Z_0-9]*|#{_WORD_PART}+", "", _same),
    (_CLITIC, r"[^A-Za-z]", _quotes),
    (rf"(?i:n{_ANY_APOSTROPHE}t)", "", _quotes),
    (r"\d{1,2}[-/]\d{1,2}[-/]\d{2,4}", "", _same),
    (rf"[-+]?{_NUM}", "", _without_soft_hyphens),
    (r"[⁺⁻₊₋]?(?:[⁰¹²³⁴-⁹]+|[₀-₉]+)", "", _same),
    (r"(?:\d{1,4}[- \u00A0])?\d{1,4}(?:\\?/|⁄)\d{1,4}", "", _glued),
    (r"[¼½¾⅓-⅞]", "", lambda token: _FRACTIONS.get(token, token)),
    (_TREEBANK_WORDS, "", _quotes),
    (r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}", "", _same),
    (r"[A-Z]*\$|#", "", _same),
    (r"[¢£¤¥\u0080₠€؋฿₤￠￡￥￦]", "", _same),
    (rf"(?i:{_BEFORE_NUMBER})\.", rf"{_SPACE_OR_LINE}?\d", _same),
    (rf"(?:(?i:{_BEFORE_LOWER})|{_CAPITAL_STATES})\.", "", _same),
    (rf"(?:[A-Za-z](?:\.[A-Za-z])*|(?i:{_TITLES})|(?i:a\.k\.a))\.", "", _same),
    (_ACRONYM_DOTTED, _SPACE_OR_LINE, _same),
    (rf"{_APOSTROPHE}\d\d", _SPACE_OR_LINE, _quotes),
    (rf"{_WORD}\.", r"[,;:、]", _without_soft_hyphens),
    (_PHONE, "", _bracketed),
    (r"(?:\"|&quot;)", r"[A-Za-z0-9$]", _always("``")),
    (r"(?:\"|&quot;)", "", _always("''")),
    (r"&lt;", "", _always("<")),
    (r"&gt;", "", _always(">")),
    (r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]]", r"[^A-Za-z0-9]", _bracketed),
    (r"[<>]", "", _same),
    (r"\{", "", _always("-LCB-")),
    (r"\}", "", _always("-RCB-")),
    (r"\[", "", _always("-LSB-")),
    (r"\]", "", _always("-RSB-")),
    (r"\(", "", _always("-LRB-")),
    (r"\)", "", _always("-RRB-")),
    (r"-+", "", _dashes),
    (r"\.\.\.+|(?:\.[ \u00A0]){2,}\.|[\u0085…]", "", _always("...")),
    (r"@+|#+|_+", "", _same),
    (r"\*+", "", _same),
    (r"[,;:、]", "", _same),
    (r"[?!]+", "", _same),
    (r"[.¡¿;։؟۔܀-܂。]", "", _same),
    (r"=+", "", _same),
    (r"/", "", _same),
    (_HYPHENATED, "", _same),
    (_THING, "", _same),
    (rf"{_THING}\.", r"[,;:、]", _same),
    (r"[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+", "", lambda token: token.replace("&amp;", "&")),
    (r"'", r"[A-Za-z][^ \t\n\r\u00A0]", _always("`")),
    (_CLITIC, "", _quotes),
    (rf"''|[`‘’‚‛“”\u0091-\u0094„‟‹›«»]{{1,2}}|{_APOSTROPHE}", "", _quotes),
    (r"<<|>>", "", _same),
    (_SYMBOLS, "", _same),
)

_PLAIN_WORD = re.compile(r"[A-Za-z]+(?=[ \n])")
_SPLIT_WORDS = frozenset(["cannot", "dunno", "gonna", "gotta", "lemme", "gimme", "wanna"])


def tokenize(caption: str) -> list[str]:
    """Tokens of a caption: lower case, punctuation dropped.

    >>> tokenize("A man's dog isn't (really) here!")
    ['a', 'man', "'s", 'dog', 'is', "n't", '-lrb-', 'really', '-rrb-', 'here']
    """
    text = caption.replace("\n", " ") + "\n"
    tokens: list[str] = []
    position, end = 0, len(text) - 1
    while position < end:
        word = _PLAIN_WORD.match(text, position)
        if word is not None and word.group().lower() not in _SPLIT_WORDS:
            tokens.append(word.group())
            position = word.end()
        elif text[position].isspace():
            position += 1
        else:
            token, length = _longest_match(text, position)
            tokens.append(token)
            position += length
    lowered = (token.lower() for token in tokens)
    return [token for token in lowered if token and token not in _DROPPED]


def tokenize_all(captions: Iterable[str]) -> list[list[str]]:
    """Tokens of each caption."""
    return [tokenize(caption) for caption in captions]


@cache
def _compiled() -> tuple[tuple[re.Pattern[str], Callable[[str], str]], ...]:
    return tuple((re.compile(f"({token}){after}"), form) for token, after, form in _RULES)


def _longest_match(text: str, position: int) -> tuple[str, int]:
    """The token at a position and how many characters it takes; an empty one for an unknown character."""
    furthest, token, length = position, "", 1
    for pattern, form in _compiled():
        match = pattern.match(text, position)
        if match is not None and match.end() > furthest:
            furthest = match.end()
            token, length = form(match.group(1)), match.end(1) - position
    return token, length
