"""Writing systems keep the invisible characters that they need; hiding is found."""

import time
from collections import Counter

import pytest

from poisonwatch.text.invisible import (
    describe_characters,
    find_hidden,
    find_invisible,
    name_kind,
)

BOM = "\ufeff"
WRITING = {
    "thai": "ภาษา\u200bไทย ครับ \u200bและ English\u200bไทย",
    "lao": "ພາສາ\u200bລາວ",
    "khmer": "ខ្ញុំ\u200bសោកស្ដាយ\u200b\u200bណាស់ ។ \u200bភ្នំពេញ",
    "khmer vowels": "ក\u17b4 ធម្ម\u17b5",
    "burmese": "မြန်မာ\u200bစာ မင်္ဂလာပါ",
    "khamti": "\u1022\ufe00 \uaa6b\ufe00",
    "tibetan": "བོད་\u200bསྐད་ བཀྲ་ཤིས་བདེ་ལེགས།",
    "javanese": "ꦲꦏ꧀ꦱꦫ\u200bꦗꦮ",
    "balinese": "ᬅᬓ᭄ᬱᬭ\u200bᬩᬮᬶ ᬓ᭄\u200c",
    "hebrew": "\u202bשלום\u202c שלום\u200f (abc) \u2067עברית\u2069 \u200eabc",
    "biblical hebrew": "יְרוּשָׁלַ\u034fִם לָ\u200d\u05bdם",
    "arabic": "قال \u2067مرحبا\u2069 ثم \u200f123\u200e \u061c١٢",
    "arabic letter forms": "ه\u200d و \u200dه و \u200dه\u200d",
    "arabic signs": "\u0600١٢ \u06dd٤٥ \u0601٢",
    "persian": "می\u200cخواهم نامه\u200cها خانه\u200cای",
    "urdu": "اے\u200cآئی بے\u200cشک مہا\u200cراجہ",
    "kurdish": "بهره\u200cم نه\u200c خوشه\u200c",
    "syriac": "ܫܠܡܐ\u200c \u070fܐܒ ܠܫܢܐ\u200d",
    "nko": "ߒߞߏ\u200d ߞߊ߲\u200cߞߊ \u200fߒߞߏ",
    "adlam": "\U0001e906\U0001e923\U0001e924\u200d \u200f\U0001e906",
    "old hungarian": "\U00010ca0\u200d\U00010ca1",
    "devanagari": "क्\u200dष क्\u200cष राज्\u200dय र्\u200dय",
    "bengali": "র\u200d্যাব উৎ\u200cসব",
    "malayalam chillu": "അവന\u0d4d\u200d നിന\u0d4d\u200dറെ ന\u0d4d\u200cന",
    "sinhala": "ශ්\u200dරී ලංකා ක්\u200dය",
    "kannada": "ರ\u200d್ಕ",
    "tamil": "க்\u200cஷ",
    "chakma": "\U00011107\U00011134\u200d\U00011111",
    "mongolian": "ᠮᠤᠩᠭᠤᠯ\u180b ᠬᠠᠨ\u180eᠠ ᠰᠤᠷ\u180c",
    "old korean": "\u115f\u1161 \u1112\u1160\u11ab \u115f\u1160\u11ab \u3164ㄱㅏㅇ \uffa0\uffa1",
    "japanese readings": "\ufff9漢字\ufffaかんじ\ufffbを読む",
    "ideographs": "辻\U000e0100 葛\ufe00 葛\U000e0101飾区 ，\ufe00 。\ufe01",
    "slashed zero": "0\ufe00 ∩\ufe00",
    "hieroglyphs": "\U00013080\U00013430\U00013081",
    "music": "\U0001d173\U0001d15f\U0001d160\U0001d174",
    "shorthand": "\U0001bc02\U0001bca0\U0001bc03",
    "german": "Donau\u00addampf\u00adschiff und/\u00adoder U\u0308\u00adber Silben\u00ad\ntrennung",
    "byte-order mark": "\ufeffusing System;",
    "formulas": "f\u2061(x) sin\u2061θ 2\u2062x x\u2062y A\u2063B 3\u2064½ 𝑓\u2061𝑥 log \u2061 n",
    "braille": "⠓⠑⠇⠇⠕\u2800⠺⠕⠗⠇⠙",
    "bullets": "\uf0b7 a bullet of a word processor \uf8ff",
    "families": "👨\u200d👩\u200d👧\u200d👦 👩\u200d🔬 👁\ufe0f\u200d🗨\ufe0f 🐻\u200d❄\ufe0f",
    "skin tones": "👩🏽\u200d🚀 🧑🏻\u200d❤\ufe0f\u200d💋\u200d🧑🏿 🏋🏾\u200d♂\ufe0f 🤝🏼 🧑🏿\u200d🦰",
    "keycaps": "1\ufe0f\u20e3 #\ufe0f\u20e3 *\ufe0f\u20e3 0\u20e3",
    "flags": "🇩🇪 🏳\ufe0f\u200d🌈 🏳\ufe0f\u200d⚧\ufe0f 🏴\u200d☠\ufe0f "
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f "
    "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f!"
    "🏴\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f",
    "presentation": "❤\ufe0f ☎\ufe0e ✔\ufe0f ©\ufe0f ™\ufe0f ↔\ufe0f ‼\ufe0f 〰\ufe0f ℹ\ufe0f Ⓜ\ufe0f ㊗\ufe0f",
    "arrows": "🙂\u200d↔\ufe0f ⛓\ufe0f\u200d💥 ❤\ufe0f\u200d🔥",
    "later emoji": "\U0001faea \U0001fae9",
    "what is seen": "naïve café — “quotes” … 中文 한국어 Привет Ελλάδα e\u0301\tn\u0303\r\n\u00a0\u3000\u202f",
    "code": "def f():\n\treturn 'x'\x0c\n",
}


@pytest.mark.parametrize("text", WRITING.values(), ids=WRITING.keys())
def test_what_writing_needs_is_not_found(text: str) -> None:
    """Real words and sequences of many scripts, alone and among others."""
    assert list(map(hex, map(ord, find_invisible(text)))) == []
    # A byte-order mark is one at the beginning alone.
    assert list(find_invisible(f"English, {text.lstrip(BOM)} and more")) == []
    assert list(find_hidden(text)) == []


def tags(text: str) -> str:
    return "".join(chr(0xE0000 + ord(c)) for c in text)


HIDING = [
    # Within words of scripts that are written without joiners.
    ("pass\u200bword", "\u200b", "format control"),
    ("pay\u200dpal", "\u200d", "format control"),
    ("ad\u200cmin", "\u200c", "format control"),
    ("log\u2060in", "\u2060", "format control"),
    ("a\ufeffb", "\ufeff", "format control"),
    ("pass\u2062word", "\u2062", "format control"),
    ("p\u2063assword", "\u2063", "format control"),
    ("пар\u200bоль", "\u200b", "format control"),
    ("κωδ\u200dικός", "\u200d", "format control"),
    ("run\u180e this", "\u180e", "format control"),
    ("x\ufff9y\ufffaz\ufffb", "\ufff9\ufffa\ufffb", "format control"),
    ("old\u206a controls", "\u206a", "format control"),
    ("\u200b\u200b\u200bword", "\u200b" * 3, "format control"),
    # Directions, where nothing is written from right to left, and overrides anywhere.
    ("plain\u200f text", "\u200f", "direction control"),
    ("\u200fpal", "\u200f", "direction control"),
    ("\u202egnp.exe", "\u202e", "direction control"),
    ("ש\u202eabc", "\u202e", "direction control"),
    ("مرحبا \u202d321", "\u202d", "direction control"),
    # Texts in tags, with a flag before them or not.
    ("hi" + tags("obey"), tags("obey"), "tag"),
    ("🏴" + tags("obey") + "\U000e007f", tags("obey") + "\U000e007f", "tag"),
    ("\U000e0001" + tags("en") + " 你好", "\U000e0001" + tags("en"), "tag"),
]
RESIDUE = [
    ("\u3164", "\u3164", "filler"),
    ("a\u2800b", "\u2800", "filler"),
    ("a\u034fb", "\u034f", "filler"),
    ("pass\u115fword", "\u115f", "filler"),
    ("a\u1160", "\u1160", "filler"),
    ("a\uffa0b", "\uffa0", "filler"),
    ("a\u17b5b", "\u17b5", "filler"),
    ("a\ufe0f", "\ufe0f", "variation selector"),
    ("!\ufe0f", "\ufe0f", "variation selector"),
    ("1\ufe0f", "\ufe0f", "variation selector"),
    ("😀\ufe0f\ufe01\U000e0110", "\ufe01\U000e0110", "variation selector"),
    ("😀" + "\U000e0120" * 9, "\U000e0120" * 9, "variation selector"),
    ("辻\U000e0100\U000e0101", "\U000e0101", "variation selector"),
    ("ᠮ\u180b\u180c", "\u180c", "variation selector"),
    ("a\ue000b", "\ue000", "private use"),
    ("a\U000f0001b", "\U000f0001", "private use"),
    ("a\U000dfffdb", "\U000dfffd", "unassigned"),
    ("1 \u00ad 2", "\u00ad", "format control"),
    ("中\u200b文", "\u200b", "format control"),
    ("م\u200c\u200d\u200c", "\u200d\u200c", "format control"),
    ("👍\u200d", "\u200d", "format control"),
    ("first\n\ufeffsecond", "\ufeff", "format control"),
    ("hello \u2061 1", "\u2061", "format control"),
    ("12\u206034", "\u2060", "format control"),
]


@pytest.mark.parametrize(("text", "characters", "kind"), HIDING)
def test_hiding_is_found_and_told_from_residue(text: str, characters: str, kind: str) -> None:
    """Controls beside letters that need none, overrides, tags: both rules find them, in order."""
    assert "".join(find_invisible(text)) == characters
    assert "".join(find_hidden(text)) == characters
    assert set(map(name_kind, characters)) == {kind}


@pytest.mark.parametrize(("text", "characters", "kind"), RESIDUE)
def test_residue_is_found_and_not_called_hiding(text: str, characters: str, kind: str) -> None:
    """It may be honest: a person is to look."""
    assert list(find_hidden(text)) == []
    assert "".join(find_invisible(text)) == characters
    assert set(map(name_kind, characters)) == {kind}


def test_characters_are_named_by_code_point() -> None:
    """In their order, the first four; the line is ASCII."""
    assert describe_characters(Counter("\u200b\u200b\u200b")) == "U+200B x 3"
    many = describe_characters(Counter("\u202e\U000e0041\u200b\u200c\u200d\u200f"))
    assert many == "U+200B x 1, U+200C x 1, U+200D x 1, U+200F x 1 and 2 other characters"


@pytest.mark.parametrize("piece", ["a\u200b", "\u200b", "\u2800", "\u200e", "ខ\u200b", "م\u200c"])
def test_time_is_linear_in_the_text(piece: str) -> None:
    """50,000 characters of the worst kinds take half a second; by their square, a minute."""
    text = piece * (50_000 // len(piece))
    start = time.process_time()
    for find in (find_invisible, find_hidden):
        assert sum(1 for _ in find(text)) <= len(text)
    assert time.process_time() - start < 10
