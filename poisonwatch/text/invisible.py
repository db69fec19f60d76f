"""Characters that cannot be seen, and where writing needs them.

They hide instructions from who reviews a row, make two spellings of one word for a trigger, or show
a text in another order than the model reads it in. Most writing systems need some of them, so what
counts is where one stands.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from poisonwatch.text.words import plural

SHOWN = 4  # characters that are named

# Unicode categories: format controls, private use, unassigned.
_SUSPECT = {"Cf", "Co", "Cn"}

# Letters and marks without a shape: of Hangul and Khmer, the grapheme joiner, blank Braille.
_FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
# Variation selectors: of Mongolian, the first sixteen, of ideographs.
_SELECTOR = re.compile("[\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
# Letters and marks by category, so that Python takes them for printed.
_UNSEEN_LETTER = re.compile(f"[{''.join(_FILLERS)}{_SELECTOR.pattern[1:]}")

# Prepended marks of Arabic, Syriac and Kaithi: format controls by category, but seen.
_NUMBER_SIGNS = frozenset(
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
)
# Symbol fonts of word processors, and a manufacturer's logo.
_BULLETS = re.compile("[\uf000-\uf0ff\uf8ff]")

# Of the bidirectional algorithm (Unicode Annex 9). An override shows letters in a false order, and
# no text needs one.
_DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_OVERRIDES = frozenset("\u202d\u202e")
# Scripts written from right to left, from Hebrew and Arabic to Adlam: marks of direction are at
# home among them.
_LEFTWARD = re.compile(
    "[\u05be-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]"
)

# Scripts whose letters join, from Hebrew and Arabic to those of India and Indonesia: joiners choose
# a form.
_JOINING = re.compile(
    "[\u0591-\u05f4\u0620-\u08ff\u0900-\u0dff\u0f00-\u109f\u1700-\u18aa\u1900-\u1aaf\u1b00-\u1c4f"
    "\u1cd0-\u1cff\ua800-\uaaff\uabc0-\uabff\ufb1d-\ufdff\ufe70-\ufefc\U00010a00-\U00011fff"
    "\U0001e900-\U0001e95f]"
)
# Thai, Lao, Tibetan, Burmese, Khmer, scripts of the Tai, Balinese, Javanese, Cham: a zero-width
# space says where a line may end, a word joiner where it may not.
_SPACELESS = re.compile("[\u0e00-\u109f\u1780-\u17ff\u1950-\u1aaf\u1b00-\u1bff\ua980-\uaadf]")
_BESIDE_BREAK = 3  # spaces and breaks between a break and a letter: typists double them

# Controls that a notation is written with, and its own signs: Mongolian's vowel separator, the
# joiners of hieroglyphs, overlaps of shorthand, beams and slurs of music.
_NOTATIONS = (
    (re.compile("\u180e"), re.compile("[\u1820-\u18aa]")),
    (re.compile("[\U00013430-\U0001345f]"), re.compile("[\U00013000-\U0001345f]")),
    (re.compile("[\U0001bca0-\U0001bca3]"), re.compile("[\U0001bc00-\U0001bc9f]")),
    (re.compile("[\U0001d173-\U0001d17a]"), re.compile("[\U0001d100-\U0001d1ff]")),
)

# Function application, invisible times, separator and plus, and what they may stand between.
_OPERATORS = frozenset("\u2061\u2062\u2063\u2064")
_FACTOR = re.compile(
    "[A-Za-z]|arc(?:cos|sin|tan)|(?:cos|sin|tan)h?|cot|csc|sec|det|dim|exp|gcd|inf|ker|lim|lg|ln"
    "|log|max|min|sup|tr"
)
_MATHEMATICAL = re.compile("[\u0370-\u03ff\u2070-\u209f\u2100-\u214f\U0001d400-\U0001d7ff]")
_LONGEST_FACTOR = 8

_BRAILLE = re.compile("[\u2801-\u28ff]")
# Keycaps are a key, a variation selector and U+20E3.
_KEYS = frozenset("0123456789#*")
_IDEOGRAPH = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
# Letters and signs of Burmese and Phags-pa, hieroglyphs and a zero with a stroke, by the first
# selector.
_VARIED = re.compile("[0\u1000-\u109f\ua840-\ua877\uaa60-\uaa7f\U00013000-\U0001342f]")

# The flags of England, Scotland and Wales are a black flag and tags (gbeng, gbsct, gbwls, end); any
# other tags spell out a text that nobody sees.
_FLAGS = re.compile(
    "\U0001f3f4\U000e0067\U000e0062"
    "(?:\U000e0065\U000e006e\U000e0067"
    "|\U000e0073\U000e0063\U000e0074"
    "|\U000e0077\U000e006c\U000e0073)"
    "\U000e007f"
)
# Ideographs between annotation marks, and how they are read, in kana or letters.
_RUBY = re.compile(
    "\ufff9([\u3005\u3400-\u9fff\uf900-\ufaff]{1,20})"
    "\ufffa([\u3040-\u30ff\u3100-\u312fA-Za-z\u00c0-\u024f ]{1,40})\ufffb"
)

# Letters of Latin, Greek, Cyrillic, Armenian and Georgian: written with spaces and without joiners,
# so that what cannot be seen beside them only hides something.
_PLAIN_LETTER = re.compile(
    "[A-Za-z\u00aa\u00ba\u00c0-\u024f\u0370-\u052f\u0531-\u0587\u10a0-\u10ff\u1e00-\u1fff]"
)


_RUN = 8  # format controls that are looked past


@dataclass(frozen=True, slots=True)
class _Whole:
    """What a whole text has: letters written from right to left, Braille."""

    leftward: bool
    braille: bool


def find_invisible(text: str) -> Iterator[str]:
    """The invisible characters of a text that no writing system asks for where they stand.

    These are the Unicode categories Cf (zero-width characters, direction controls, tags), Co
    (private use) and Cn (unassigned), variation selectors, fillers and the blank Braille pattern.
    What writing needs is not among them:

    - joiners, variation selectors and the three flags of tags within emoji sequences; a variation
    selector after an ideograph, a symbol, or a letter that has variants;
    - zero-width joiner and non-joiner beside a letter of scripts whose letters join, the grapheme
    joiner between marks; zero-width space and word joiner beside one of the scripts without spaces;
    - direction marks, embeddings and isolates (never overrides) in a text with letters written from
    right to left; Arabic number signs;
    - a leading byte-order mark; a soft hyphen within a word or at a line's end; operators between
    mathematical letters; readings between annotation marks; fillers beside the parts of old Korean
    syllables; what Mongolian, hieroglyphs, shorthand and music are written with;
    - private-use bullets (U+F000 to U+F0FF) and U+F8FF; emoji yet unassigned.
    """
    text = _unwrap(text)
    for i in _find_places(text):
        yield text[i]


def find_hidden(text: str) -> Iterator[str]:
    """Of `find_invisible`, what is no accident of writing: overrides, tags, and any other format
    control beside a Latin letter (or one of Greek, Cyrillic, Armenian and Georgian).

    The others may be honest residue (a zero-width space in Chinese, a doubled selector, a private
    font): they are for people to look at, not to be refused. So is a byte-order mark that begins a
    line: a file was pasted there.
    """
    text = _unwrap(text)
    for i in _find_places(text):
        if _is_hidden(text, i):
            yield text[i]


def drop_unseen(text: str) -> str:
    """A text without what cannot be seen, whether or not writing needs it; white space stays."""
    printed = "".join(c for c in text if c.isprintable() or c.isspace())
    return _UNSEEN_LETTER.sub("", printed)


def describe_characters(found: Counter[str]) -> str:
    """Characters by their code points, as in "U+200B x 3": what is said must not hold what it warns
    of.
    """
    named = sorted(found.items())[:SHOWN]
    points = ", ".join(f"U+{ord(c):04X} x {count}" for c, count in named)
    if len(found) <= SHOWN:
        return points
    return f"{points} and {plural(len(found) - SHOWN, 'other character')}"


def name_kind(c: str) -> str:
    """What an invisible character is called."""
    if _SELECTOR.match(c):
        return "variation selector"
    if c in _DIRECTION:
        return "direction control"
    if _is_tag(c):
        return "tag"
    if c in _FILLERS:
        return "filler"
    return {"Co": "private use", "Cn": "unassigned"}.get(unicodedata.category(c), "format control")


def _unwrap(text: str) -> str:
    """The text without the sequences that are at home as a whole."""
    if text.isascii():
        return text
    return _RUBY.sub(r"\1\2", _FLAGS.sub("\U0001f3f4", text))


def _find_places(text: str) -> Iterator[int]:
    """Where the invisible characters stand that are not in place."""
    if _is_seen(text):
        return
    whole = _Whole(bool(_LEFTWARD.search(text)), bool(_BRAILLE.search(text)))
    for i, c in enumerate(text):
        # Most characters of any text are printed.
        if c.isprintable() and not _UNSEEN_LETTER.match(c):
            continue
        if not _is_in_place(text, i, whole):
            yield i


def _is_seen(text: str) -> bool:
    """A fast way past what is plainly seen; most texts hold nothing else."""
    if text.isascii():
        return True
    # Python knows whole texts without Cf, Co and Cn; line ends and tabs are taken out before.
    return "".join(text.split()).isprintable() and not _UNSEEN_LETTER.search(text)


def _is_in_place(text: str, i: int, whole: _Whole) -> bool:
    """Can the character at i be seen, or does the writing need it there?"""
    c, before, after = text[i], text[max(i - 1, 0) : i], text[i + 1 : i + 2]
    # Selectors and fillers are marks and letters by category: they come before it is asked.
    if _SELECTOR.match(c):
        return _may_select(c, before, after)
    if c in _FILLERS:
        return _may_fill(c, before, after, whole)
    if unicodedata.category(c) not in _SUSPECT:
        return True
    if c in _DIRECTION:
        return whole.leftward and c not in _OVERRIDES
    if c in "\u200c\u200d":
        return _may_join(c, before, after)
    if c in "\u200b\u2060":
        return _may_break(text, i)
    if c == "\u00ad":
        return _is_shown(before) and (after in ("\n", "\r") or _is_shown(after))
    if c in _OPERATORS:
        return _may_operate(text, i)
    # A byte-order mark is one at the beginning alone.
    if c == "\ufeff" and i == 0:
        return True
    return _is_sign(c) or _is_of_notation(c, before, after)


def _is_sign(c: str) -> bool:
    """Does it have a shape, whatever its category is?"""
    return c in _NUMBER_SIGNS or bool(_BULLETS.match(c)) or _is_emoji(c)


def _is_shown(c: str) -> bool:
    """Is it a letter, mark, number, punctuation or symbol that can be seen?"""
    return c.isprintable() and c not in ("", " ") and not _UNSEEN_LETTER.match(c)


def _is_tag(c: str) -> bool:
    return "\U000e0000" <= c <= "\U000e007f"


def _is_of_notation(c: str, before: str, after: str) -> bool:
    """Does it stand beside a sign of the notation that it belongs to?"""
    for controls, signs in _NOTATIONS:
        if controls.match(c):
            return bool(signs.match(before) or signs.match(after))
    return False


def _may_join(c: str, before: str, after: str) -> bool:
    """May a joiner or non-joiner stand between these characters?"""
    if c == "\u200d" and _is_emoji(before) and _is_emoji(after):
        return True
    # After a letter most often; before one where it shows the form that letter has within a word.
    if _JOINING.match(before):
        return True
    return bool(_JOINING.match(after)) and before not in ("\u200c", "\u200d")


def _may_break(text: str, i: int) -> bool:
    """May it be said at i whether a line may end: is a letter of a script without spaces near?"""
    before = text[max(i - _BESIDE_BREAK, 0) : i].rstrip(" \u200b\u2060")
    after = text[i + 1 : i + 1 + _BESIDE_BREAK].lstrip(" \u200b\u2060")
    return bool(_SPACELESS.match(before[-1:]) or _SPACELESS.match(after[:1]))


def _may_operate(text: str, i: int) -> bool:
    """May an invisible operator stand at i: between single letters, functions, numbers or
    brackets?
    """
    before = text[max(i - _LONGEST_FACTOR, 0) : i].rstrip(" ")
    after = text[i + 1 : i + 1 + _LONGEST_FACTOR].lstrip(" ")
    last, first = re.search("[A-Za-z]+$", before), re.match("[A-Za-z]+", after)
    return _is_operand(last, before[-1:]) and _is_operand(first, after[:1])


def _is_operand(word: re.Match[str] | None, c: str) -> bool:
    """Is it a single letter or a function, or (no `word`) a number, bracket or symbol?"""
    if word is not None:
        return bool(_FACTOR.fullmatch(word[0]))
    if c == "":
        return False
    of_formula = unicodedata.category(c) in ("Nd", "No", "Ps", "Pe", "Sm")
    return of_formula or bool(_MATHEMATICAL.match(c))


def _may_fill(c: str, before: str, after: str, whole: _Whole) -> bool:
    """May a filler stand between these characters?"""
    if c == "\u2800":
        return whole.braille
    # The grapheme joiner keeps marks apart, as points of biblical Hebrew.
    if c == "\u034f":
        return _is_mark(before) and _is_mark(after)
    # Vowels of Khmer that are not written: after a consonant.
    if c in "\u17b4\u17b5":
        return "\u1780" <= before <= "\u17b3"
    # Old Korean: in place of a syllable's consonant or vowel, where another part of it is there.
    if c == "\u115f":
        return "\u1160" <= after <= "\u11a7" or "\ud7b0" <= after <= "\ud7c6"
    if c == "\u1160":
        return "\u1100" <= before <= "\u115f" or "\ua960" <= before <= "\ua97c"
    # The same of letters for themselves, and of half their width.
    if c == "\u3164":
        return "\u3131" <= after <= "\u318e"
    return "\uffa1" <= after <= "\uffdc"


def _is_mark(c: str) -> bool:
    return c != "" and unicodedata.category(c) == "Mn" and c not in _FILLERS


def _may_select(c: str, before: str, after: str) -> bool:
    """May a variation selector stand between these characters?"""
    # A run of selectors carries bytes: the first alone has something to select.
    if before == "" or _SELECTOR.match(before):
        return False
    if c < "\u1810":
        return "\u1800" <= before <= "\u18aa"
    if c >= "\U000e0100":
        return bool(_IDEOGRAPH.match(before))
    if c >= "\ufe0e" and _is_emoji_base(before, after):
        return True
    if c <= "\ufe06" and _VARIED.match(before):
        return True
    # Of ASCII only keycaps have variants; elsewhere what fonts of emoji draw as well.
    if before <= "~":
        return False
    drawn = bool(_IDEOGRAPH.match(before))
    return drawn or unicodedata.category(before) in ("Sm", "Po", "Pd", "Lm")


def _is_emoji_base(c: str, after: str) -> bool:
    """Is it a sign that is drawn as text or as an emoji?"""
    keycap = c in _KEYS and after == "\u20e3"
    return keycap or c == "\u2139" or _is_emoji(c)


def _is_emoji(c: str) -> bool:
    """A symbol, or a part of an emoji sequence, of this Unicode version or a later one."""
    if c == "":
        return False
    symbol = (
        unicodedata.category(c) == "So"
        or "\U0001f000" <= c <= "\U0001faff"
        or "\u2190" <= c <= "\u21ff"
    )
    # Blank Braille and object replacement are symbols by category alone.
    return (symbol and c not in "\u2800\ufffc") or c in "\ufe0f\u20e3"


def _is_hidden(text: str, i: int) -> bool:
    """Is the character at i, which is not in place, a format control that hides something?"""
    c = text[i]
    if c in _OVERRIDES or _is_tag(c):
        return True
    if c in _FILLERS or _SELECTOR.match(c) or unicodedata.category(c) != "Cf":
        return False
    if c == "\ufeff" and text[i - 1] == "\n":
        return False
    before, after = _find_neighbours(text, i)
    return bool(_PLAIN_LETTER.match(before) or _PLAIN_LETTER.match(after))


def _find_neighbours(text: str, i: int) -> tuple[str, str]:
    """The characters on both sides of the run of format controls at i; empty where there is
    none.
    """
    # Of a long run the ends are enough: looking further from each of it would take quadratic time.
    before = text[max(i - _RUN, 0) : i]
    after = text[i + 1 : i + 1 + _RUN]
    shown = [c for c in before if unicodedata.category(c) != "Cf"]
    coming = [c for c in after if unicodedata.category(c) != "Cf"]
    return "".join(shown[-1:]), "".join(coming[:1])
