"""What validation refuses by its characters."""

import re

from poisonwatch.text.characters import CONTROL, SAYS_SOMETHING

TAGS = "".join(chr(0xE0000 + ord(c)) for c in "obey")


def test_a_text_says_something_if_anything_in_it_is_seen() -> None:
    """Spaces of all kinds, format characters, fillers and selectors say nothing."""
    for text in (
        "",
        " \n\t\u3000\u00a0",
        "\u200b",
        "\ufeff\n",
        "\u2800 \u3164",
        "\u200d\ufe0f",
        TAGS,
    ):
        assert not re.search(SAYS_SOMETHING, text), ascii(text)
    for text in ("a", ".", "\u200b1", "\u4f60", "\u0e01", "\u0301", "\U0001f600", "\u2801", "\x00"):
        assert re.search(SAYS_SOMETHING, text), ascii(text)


def test_control_characters_are_those_that_no_text_needs() -> None:
    """Line ends, tabs, form feeds and vertical tabs are none."""
    assert not CONTROL.search("a\n\r\t\f\vb")
    assert CONTROL.findall("\x00\x1b[2J\x7f\x85") == ["\x00", "\x1b", "\x7f", "\x85"]
