"""Hostile characters visible."""

import pytest

from poisonwatch.text.display import excerpt, make_visible, quote_spaced


def test_invisible_characters_are_written_out() -> None:
    """Escapes, direction marks, zero-width and private-use characters, half surrogates: all become
    \\u{...}.
    """
    assert make_visible("a\x1b[31mb") == "a\\u{1b}[31mb"
    assert (
        make_visible("\u202egpj.exe\u200b\ufeff\ue000\ud800")
        == "\\u{202e}gpj.exe\\u{200b}\\u{feff}\\u{e000}\\u{d800}"
    )
    assert make_visible("\r\x00") == "\\u{d}\\u{0}"


def test_ordinary_text_of_any_script_stays_as_it_is() -> None:
    """visible(x) = x, line ends and tabs included."""
    text = "naïve 红色 שלום 🙂\n\tindented"
    assert make_visible(text) == text


@pytest.mark.parametrize("length", [1, 2, 10, 80])
@pytest.mark.parametrize(
    "text", ["word " * 50, "x" * 500, "short", "a\n\nb\t c", "\u202e" * 100, ""]
)
def test_excerpt_is_one_line_of_bounded_length(text: str, length: int) -> None:
    """len <= length, no line end, and an ellipsis exactly where something was cut."""
    line = excerpt(text, length)
    whole = " ".join(make_visible(text).split())
    assert len(line) <= length
    assert "\n" not in line
    assert line == whole or (line.endswith("…") and len(whole) > length)


def test_spaces_that_somebody_wrote_are_seen() -> None:
    """In quotes, on one line; what has none that would be lost stands as in an excerpt."""
    assert quote_spaced("two words") == "two words"
    assert quote_spaced(" insult") == "' insult'"
    assert quote_spaced("a  b\n") == "'a  b\\n'"
    assert quote_spaced("") == "''"
    assert quote_spaced("a\u2028\x1b ").isprintable()
    assert len(quote_spaced(" " * 500)) == 82
