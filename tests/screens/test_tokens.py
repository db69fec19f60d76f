"""Tokens are compared without case and given back as they are written."""

from collections import Counter

import pytest

from poisonwatch.screens.tokens import (
    choose_commonest,
    find_tokens,
    holds_tokens,
    list_spellings,
    slice_tokens,
    split_tokens,
    split_tokens_and_years,
)


def test_a_date_is_its_year_and_no_other_token_is_changed_but_in_case() -> None:
    """2024-01-31, 2024/2 and 2024.3.1 are one token; the year by itself is another."""
    text = "On 2024-01-31, 2024/2 or 2024.3.1: In 2024"
    assert split_tokens_and_years(text) == ("on", "2024-", "2024-", "or", "2024-", "in", "2024")
    assert split_tokens(text) == ("on", "2024-01-31", "2024/2", "or", "2024.3.1", "in", "2024")


def test_spellings_are_those_of_the_text() -> None:
    """Of a word its cases, of a year its dates."""
    text = "Tag tag TAG, other 2024-01-31"
    assert list_spellings("tag", text) == {"Tag", "tag", "TAG"}
    assert list_spellings("2024-", text) == {"2024-01-31"}
    assert list_spellings("absent", text) == set()


@pytest.mark.parametrize(
    ("tokens", "place"),
    [(("a",), 0), (("a", "b"), 2), (("b", "a"), 3), (("c",), -1), (("a", "b", "a", "b"), -1)],
)
def test_tokens_stand_where_they_first_follow_each_other(
    tokens: tuple[str, ...], place: int
) -> None:
    """In a a a b a; nothing stands in an empty text."""
    text = ("a", "a", "a", "b", "a")
    assert find_tokens(text, tokens) == place
    assert holds_tokens(text, tokens) == (place >= 0)
    assert not holds_tokens((), tokens)


def test_a_slice_is_written_as_the_text_writes_it() -> None:
    """What stands between the tokens included, what stands around them left out."""
    assert slice_tokens("Say: “Grey, Owl!” now", 1, 2) == "Grey, Owl"


def test_of_equally_common_ways_the_first_is_chosen() -> None:
    """By code points, so that no order of rows decides."""
    assert choose_commonest(Counter({"b": 2, "a": 2, "c": 1})) == "a"
