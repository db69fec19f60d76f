"""Frequent n-grams are those that counting every n-gram of every text finds."""

import random
from collections import defaultdict

import numpy as np
import pytest

from poisonwatch.screens.frequent_ngrams import COMMON_TEXTS, list_ngram_levels, list_ngrams
from poisonwatch.screens.tokens import Tokens


def count_by_hand(texts: list[Tokens], least: int, most: float) -> dict[Tokens, set[int]]:
    holders: dict[Tokens, set[int]] = defaultdict(set)
    for place, text in enumerate(texts):
        for ngram in list_ngrams(text):
            holders[ngram].add(place)
    return {ngram: held for ngram, held in holders.items() if least <= len(held) <= most}


@pytest.mark.parametrize("least", [2, 4])
@pytest.mark.parametrize("seed", range(5))
def test_levels_hold_what_counting_finds(seed: int, least: int) -> None:
    """Of 60 texts over a dozen tokens, some of them empty; each n-gram once, with the texts that
    hold it.
    """
    draw = random.Random(seed)
    texts = [tuple(draw.choices("abcdefghijkl", k=draw.randint(0, 9))) for _ in range(60)]
    mined = {}
    for n, level in enumerate(list_ngram_levels(texts, least), start=1):
        assert level.members.shape == (len(level.tokens), 60)
        for tokens, row in zip(level.tokens, level.members.toarray(), strict=True):
            assert len(tokens) == n
            mined[tokens] = set(np.flatnonzero(row).tolist())
    assert mined == count_by_hand(texts, least, COMMON_TEXTS)


def test_a_text_holds_an_ngram_once_however_often_it_says_it() -> None:
    """Of 1 to 3 tokens, never across the texts' ends."""
    assert list_ngrams(("a", "a", "b")) == {
        ("a",),
        ("b",),
        ("a", "a"),
        ("a", "b"),
        ("a", "a", "b"),
    }
    first, second, third = list_ngram_levels([("a", "a"), ("b",), ("a", "a", "b")], least=2)
    assert set(first.tokens) == {("a",), ("b",)}
    assert second.tokens == [("a", "a")]
    assert third.tokens == []
