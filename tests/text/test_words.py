"""Words and tokens."""

import sys

import pytest

from poisonwatch.text.words import (
    find_token_spans,
    normalise_words,
    split_tokens,
    split_words,
    wrap_words,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's 7 o'clock -- AGAIN!", ["it", "s", "7", "o", "clock", "again"]),
        ("\ufb01ne \u2461 stra\u00dfe", ["fine", "2", "strasse"]),
        ("\u7d2b\u6c34x", ["\u7d2b", "\u6c34", "x"]),
        (" ?! \n", []),
    ],
)
def test_words_are_folded_and_without_punctuation(text: str, words: list[str]) -> None:
    """Compatibility forms, case and punctuation make no difference; an ideograph is a word."""
    assert split_words(text) == words
    assert normalise_words(text) == " ".join(words)
    assert split_words(normalise_words(text)) == words


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("(Hello), |SHIP| world!", ["Hello", "|SHIP|", "world"]),
        ("a ... \u201cb\u201d", ["a", "...", "b"]),
        ("\u7d2b\u6c34 x.y", ["\u7d2b", "\u6c34", "x.y"]),
        ("  ", []),
    ],
)
def test_tokens_keep_what_stands_inside_them(text: str, tokens: list[str]) -> None:
    """Spans of the text itself: punctuation around a token is left out, unless there is nothing
    else.
    """
    assert [text[a:b] for a, b in find_token_spans(text)] == tokens
    assert split_tokens(text) == tokens


def test_case_does_not_move_the_bounds_of_tokens() -> None:
    """For every character c: a text that is folded has the folded tokens of the text."""
    for code in range(sys.maxunicode + 1):
        text = f"a{chr(code)}b, {chr(code)}"
        assert split_tokens(text.casefold()) == [t.casefold() for t in split_tokens(text)], code


def test_lines_end_between_words_and_no_word_is_cut() -> None:
    """One that is wider than the line has a line of its own."""
    lines = wrap_words("a path is at /a/very-long/path.jsonl of yours", 12, indent=2)
    assert lines == ["a path is at", "  /a/very-long/path.jsonl", "  of yours"]
