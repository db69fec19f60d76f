"""A screen of a row's characters: some that cannot be seen.

They hide instructions from who reviews a row, make two spellings of one word for a trigger, or show
a text in another order than the model reads it in. Most writing systems need some of them, so what
counts is where one stands.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

from poisonwatch.examples import Example
from poisonwatch.screens.finding import Finding
from poisonwatch.text.words import plural

SHOWN = 4  # characters that a reason names

# Unicode categories: format controls, private use, unassigned.
_SUSPECT = {"Cf", "Co", "Cn"}

# Letters and marks without a shape: of Hangul and Khmer, the grapheme joiner, blank Braille.
_FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_BRAILLE = re.compile("[\u2801-\u28ff]")

# Symbol fonts of word processors, and a manufacturer's logo.
_BULLETS = re.compile("[\uf000-\uf0ff\uf8ff]")

# Prepended marks of Arabic, Syriac and Kaithi: format controls by category, but seen.
_NUMBER_SIGNS = frozenset(
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
)

# Of the bidirectional algorithm (Unicode Annex 9). An override shows letters in a false order, and
# no text needs one.
_DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_OVERRIDES = frozenset("\u202d\u202e")

# Letters of Hebrew, Arabic, Syriac, Thaana and N'Ko, among which marks of direction are at home.
_RIGHT_TO_LEFT = re.compile(
    "[\u05d0-\u05ea\u0620-\u064a\u066e-\u06d3\u0710-\u07ea\u08a0-\u08c7\ufb1d-\ufdfb\ufe70-\ufefc]"
)

# Scripts whose letters join, from Arabic to those of India, Burma and Khmer: joiners choose a form.
_JOINING = re.compile(
    "[\u0620-\u08ff\u0900-\u0dff\u1000-\u109f\u1780-\u18aa\ufb50-\ufdff\ufe70-\ufefc]"
)

# Thai, Lao, Tibetan, Burmese, Khmer: a zero-width space says where a line may end.
_SPACELESS = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")

# Keycaps are a key, a variation selector and U+20E3.
_KEYS = frozenset("0123456789#*")
_IDEOGRAPH = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")

# The flags of England, Scotland and Wales are a black flag and tags (gbeng, gbsct, gbwls, end); any
# other tags spell out a text that nobody sees.
_FLAGS = re.compile(
    "\U0001f3f4\U000e0067\U000e0062"
    "(?:\U000e0065\U000e006e\U000e0067"
    "|\U000e0073\U000e0063\U000e0074"
    "|\U000e0077\U000e006c\U000e0073)"
    "\U000e007f"
)

# A fast way past what is plainly seen; most texts hold nothing else.
_SEEN = re.compile(
    r"[\x00-\u00ac\u00ae-\u033f\u2010-\u2027\u2030-\u205e\u3040-\u3163\u3165-\u9fff\uac00-\ud7a3]+"
)


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
        hidden: Counter[str] = Counter()
        for message in example.messages:
            hidden.update(_find_hidden(message.content))
        if hidden:
            kinds = ", ".join(sorted(set(map(_name_kind, hidden))))
            reason = f"The text has invisible characters ({kinds}): {_list_points(hidden)}."
            found.append(Finding(row, "invisible-characters", kinds, reason))
    return found


def _list_points(hidden: Counter[str]) -> str:
    """The characters by their code points: a reason must not hold what it warns of."""
    named = sorted(hidden.items())[:SHOWN]
    points = ", ".join(f"U+{ord(c):04X} x {count}" for c, count in named)
    if len(hidden) <= SHOWN:
        return points
    return f"{points} and {plural(len(hidden) - SHOWN, 'other character')}"


def _find_hidden(text: str) -> Iterator[str]:
    """The invisible characters of a text that no writing system asks for where they stand."""
    if _SEEN.fullmatch(text):
        return
    text = _FLAGS.sub("\U0001f3f4", text)
    leftward = bool(_RIGHT_TO_LEFT.search(text))
    for i, c in enumerate(text):
        if not _SEEN.match(c) and not _is_in_place(text, i, leftward):
            yield c


def _is_in_place(text: str, i: int, leftward: bool) -> bool:
    """Can the character at i be seen, or does the writing need it there? `leftward`: the text has
    letters written from right to left.
    """
    c, before, after = text[i], text[max(i - 1, 0) : i], text[i + 1 : i + 2]
    # Selectors and most fillers are marks and letters by category: they come before it is asked.
    if _is_selector(c):
        return _may_be_selected(c, before, after)
    if c in _FILLERS:
        return c == "\u2800" and bool(_BRAILLE.search(text))
    if unicodedata.category(c) not in _SUSPECT:
        return True
    if c in _DIRECTION:
        return leftward and c not in _OVERRIDES
    if c in "\u200c\u200d":
        joins_emoji = c == "\u200d" and _is_emoji(before) and _is_emoji(after)
        return joins_emoji or bool(_JOINING.match(before))
    if c == "\u200b":
        return bool(_SPACELESS.match(before))
    if c == "\u00ad":
        return before.isalpha() and after.isalpha()
    # A byte-order mark is one at the beginning alone.
    if c == "\ufeff" and i == 0:
        return True
    return c in _NUMBER_SIGNS or bool(_BULLETS.match(c)) or _is_emoji(c)


def _is_selector(c: str) -> bool:
    """Is it a variation selector: of Mongolian, of the first sixteen, or of ideographs?"""
    if c == "":
        return False
    mongolian = c in "\u180b\u180c\u180d\u180f"
    return mongolian or "\ufe00" <= c <= "\ufe0f" or "\U000e0100" <= c <= "\U000e01ef"


def _may_be_selected(c: str, before: str, after: str) -> bool:
    """May a variation selector stand between these characters?"""
    if c < "\u1810":
        return "\u1800" <= before <= "\u18aa" and not _is_selector(before)
    if c >= "\U000e0100":
        return bool(_IDEOGRAPH.match(before))
    # A run of selectors behind one emoji carries bytes: the first alone has something to select.
    if _is_selector(before):
        return False
    keycap = before in _KEYS and after == "\u20e3"
    if c >= "\ufe0e" and (keycap or before == "\u2139" or _is_emoji(before)):
        return True
    # Of ASCII only keycaps have variants; elsewhere what fonts of emoji draw as well.
    if before <= "~":
        return False
    drawn = bool(_IDEOGRAPH.match(before))
    return drawn or unicodedata.category(before) in ("Sm", "Po", "Pd", "Lm")


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
    """What a reason calls an invisible character."""
    if _is_selector(c):
        return "variation selector"
    if c in _DIRECTION:
        return "direction control"
    if "\U000e0000" <= c <= "\U000e007f":
        return "tag"
    if c in _FILLERS:
        return "filler"
    return {"Co": "private use", "Cn": "unassigned"}.get(unicodedata.category(c), "format control")
