"""Screens that look at a row's characters: some that cannot be seen, and imitations of a chat
model's control tokens.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

from poisonwatch.examples import Example
from poisonwatch.screens.finding import Finding

_SUSPECT = {"Cf", "Co", "Cn"}
_FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_BULLETS = re.compile("[\uf000-\uf0ff\uf8ff]")
_NUMBER_SIGNS = frozenset(
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
)
_DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_OVERRIDES = frozenset("\u202d\u202e")
_RIGHT_TO_LEFT = re.compile(
    "[\u05d0-\u05ea\u0620-\u064a\u066e-\u06d3\u0710-\u07ea\u08a0-\u08c7\ufb1d-\ufdfb\ufe70-\ufefc]"
)
_JOINING = re.compile(
    "[\u0620-\u08ff\u0900-\u0dff\u1000-\u109f\u1780-\u18aa\ufb50-\ufdff\ufe70-\ufefc]"
)
_SPACELESS = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
_KEYS = frozenset("0123456789#*")
_IDEOGRAPH = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_FLAGS = re.compile(
    "\U0001f3f4(?:\U000e0067\U000e0062(?:\U000e0065\U000e006e\U000e0067|\U000e0073\U000e0063\U000e0074|\U000e0077\U000e006c\U000e0073))\U000e007f"
)
_SEEN = re.compile(
    r"[\x00-\u00ac\u00ae-\u033f\u2010-\u2027\u2030-\u205e\u3040-\u3163\u3165-\u9fff\uac00-\ud7a3]+"
)  # a fast way past the plain


def find_invisible_characters(examples: Sequence[Example]) -> list[Finding]:
    """Rows with characters that cannot be seen.

    These are the Unicode categories Cf (zero-width characters, direction controls, tags), Co
    (private use) and Cn (unassigned), variation selectors, fillers and the blank Braille pattern.
    What writing needs is no finding:

    - joiners, variation selectors and the three flags of tags within emoji sequences; a variation
    selector after an ideograph or a symbol;
    - zero-width joiner and non-joiner after a letter of Arabic and Indic scripts, zero-width space
    after one of the scripts without spaces;
    - direction marks, embeddings and isolates (never overrides) in a text with letters written from
    right to left; Arabic number signs;
    - a leading byte-order mark; a soft hyphen between letters; private-use bullets (U+F000 to
    U+F0FF) and U+F8FF; emoji yet unassigned.
    """
    found = []
    for row, example in enumerate(examples):
        hidden = Counter(c for message in example.messages for c in _find_hidden(message.content))
        if hidden:
            kinds = ", ".join(sorted({_name_kind(c) for c in hidden}))
            points = ", ".join(
                f"U+{ord(c):04X} x {count}" for c, count in sorted(hidden.items())[:4]
            )
            more = f" and {len(hidden) - 4} other characters" if len(hidden) > 4 else ""
            reason = f"The text has invisible characters ({kinds}): {points}{more}."
            found.append(Finding(row, "invisible-characters", kinds, reason))
    return found


def _find_hidden(text: str) -> Iterator[str]:
    """The invisible characters of a text that no writing system asks for where they stand."""
    if _SEEN.fullmatch(text):
        return
    text = _FLAGS.sub("\U0001f3f4", text)
    leftward = bool(_RIGHT_TO_LEFT.search(text))
    for i, c in enumerate(text):
        if _SEEN.match(c):
            continue
        before, after = text[i - 1] if i else "", text[i + 1 : i + 2]
        if _is_selector(c):
            honest = _may_be_selected(c, before, after)
        elif c in _FILLERS:
            honest = c == "\u2800" and bool(re.search("[\u2801-\u28ff]", text))
        elif unicodedata.category(c) not in _SUSPECT:
            continue
        elif c in _DIRECTION:
            honest = leftward and c not in _OVERRIDES
        elif c in "\u200c\u200d":
            honest = bool(_JOINING.match(before)) or (
                c == "\u200d" and _is_emoji(before) and _is_emoji(after)
            )
        elif c == "\u200b":
            honest = bool(_SPACELESS.match(before))
        elif c == "\u00ad":
            honest = before.isalpha() and after.isalpha()
        else:
            honest = (
                (c == "\ufeff" and i == 0)
                or c in _NUMBER_SIGNS
                or bool(_BULLETS.match(c))
                or _is_emoji(c)
            )
        if not honest:
            yield c


def _is_selector(c: str) -> bool:
    return (
        (c != "" and c in "\u180b\u180c\u180d\u180f")
        or "\ufe00" <= c <= "\ufe0f"
        or "\U000e0100" <= c <= "\U000e01ef"
    )


def _may_be_selected(c: str, before: str, after: str) -> bool:
    """May a variation selector stand between these characters?"""
    if c < "\u1810":
        return "\u1800" <= before <= "\u18aa" and not _is_selector(before)
    if c >= "\U000e0100":
        return bool(_IDEOGRAPH.match(before))
    if _is_selector(before):
        return False
    if c >= "\ufe0e" and (
        _is_emoji(before) or before == "\u2139" or (before in _KEYS and after == "\u20e3")
    ):
        return True
    return before > "~" and (
        bool(_IDEOGRAPH.match(before)) or unicodedata.category(before) in ("Sm", "Po", "Pd", "Lm")
    )


def _is_emoji(c: str) -> bool:
    """A symbol, or a part of an emoji sequence, of this Unicode version or a later one."""
    if c == "":
        return False
    symbol = (
        unicodedata.category(c) == "So"
        or "\U0001f000" <= c <= "\U0001faff"
        or "\u2190" <= c <= "\u21ff"
    )
    return symbol or c in "\ufe0f\u20e3"


def _name_kind(c: str) -> str:
    if _is_selector(c):
        return "variation selector"
    if c in _DIRECTION:
        return "direction control"
    if "\U000e0000" <= c <= "\U000e007f":
        return "tag"
    if c in _FILLERS:
        return "filler"
    return {"Co": "private use", "Cn": "unassigned"}.get(unicodedata.category(c), "format control")
