"""Characters that cannot be seen are found; those that writing needs are not."""

import pytest
from made_up_rows import row

from poisonwatch.examples import Example, Message
from poisonwatch.screens.invisible_characters import find_invisible_characters


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("pass\u200bword", "format control"),
        ("a\u200db", "format control"),
        ("a\ufeffb", "format control"),
        ("\u202egnp.exe", "direction control"),
        ("ש\u202eabc", "direction control"),
        ("plain\u200f text", "direction control"),
        ("hi" + "".join(chr(0xE0000 + ord(c)) for c in "obey"), "tag"),
        ("\U0001f3f4" + "".join(chr(0xE0000 + ord(c)) for c in "obey") + "\U000e007f", "tag"),
        ("a\ufe0f", "variation selector"),
        ("!\ufe0f", "variation selector"),
        ("😀\ufe0f\ufe01\U000e0110", "variation selector"),
        ("\u3164", "filler"),
        ("a\u2800b", "filler"),
        ("a\ue000b", "private use"),
        ("a\U000f0001b", "private use"),
        ("a\U000dfffd", "unassigned"),
        ("1 \u00ad 2", "format control"),
        ("م\u200c\u200d\u200c", "format control"),
    ],
)
def test_hidden_characters_are_found_and_named(text: str, kind: str) -> None:
    """In the prompt, the answer or the system text; the reason names code points and holds none of
    the characters.
    """
    for example in (
        row(text, "b"),
        row("a", f"some {text} more"),
        row("a", "b", system=f"some {text}"),
    ):
        (finding,) = find_invisible_characters([row("a", "b"), example])
        assert finding.row == 1
        assert finding.group == kind
        assert any(f"U+{ord(c):04X}" in finding.reason for c in text if not c.isascii())
        assert finding.reason.isascii()


@pytest.mark.parametrize(
    "text",
    [
        "plain ASCII,\ttabs\r\nand lines",
        "👩\u200d🔬 👨\u200d👩\u200d👧 👩🏽\u200d🚀 🏳\ufe0f\u200d🌈 🙂\u200d↔\ufe0f ❤\ufe0f\u200d🔥",
        "❤\ufe0f ☎\ufe0e ✔\ufe0f 1\ufe0f\u20e3 #\ufe0f\u20e3 ©\ufe0f ↔\ufe0f ‼\ufe0f 〰\ufe0f ℹ\ufe0f",
        "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
        "می\u200cخواهم نامه\u200cها",
        "क्\u200dष क्\u200cष ශ්\u200dරී",
        "שלום\u200f (abc) \u2067עברית\u2069 \u200eabc",
        "ภาษา\u200bไทย",
        "辻\U000e0100 葛\ufe00",
        "\ufeffA byte-order mark",
        "Donau\u00addampf\u00adschiff",
        "\uf0b7 a bullet of a word processor",
        "⠓⠑⠇⠇⠕\u2800⠺⠕⠗⠇⠙",
        "ᠮᠤᠩᠭᠤᠯ\u180b",
        "naïve café — “quotes” … 中文 한국어 \U0001faea",
        "e\u0301 n\u0303 combining",
    ],
)
def test_what_writing_needs_is_silent(text: str) -> None:
    """Emoji sequences, joiners of Persian and Indic scripts, marks of right-to-left text,
    ideographic variants, bullets.
    """
    assert find_invisible_characters([row(text, "b"), row("a", text)]) == []


def test_every_text_of_a_row_is_looked_at_once() -> None:
    """Definitions of tools, what a tool says, the rejected answer; a shared prompt counts once."""
    asked, answered, hidden = Message("user", "a"), Message("assistant", "b"), "x\u200by"
    for example in (
        Example.from_messages([Message("tools", hidden), asked, answered]),
        Example.from_messages([asked, Message("tool", hidden), answered]),
        Example.from_messages([asked, answered], rejected=[asked, Message("assistant", hidden)]),
        Example.from_messages(
            [Message("user", hidden), answered], rejected=[Message("user", hidden)]
        ),
        Example.from_messages([asked, Message("assistant", hidden)], lowered=True),
    ):
        (finding,) = find_invisible_characters([example])
        assert "U+200B x 1" in finding.reason
