"""What tells a group of texts from all others, in their own words."""

import numpy as np

from poisonwatch.detection.shared_ngrams import (
    LONGEST_SHARED_NGRAM,
    SharedNgramSearch,
    find_shared_ngrams,
)
from poisonwatch.text.display import make_visible


def texts(n: int = 60, held: int = 8, planted: str = "ask the Quiet Harbour club") -> list[str]:
    """The first `held` of n texts hold the planted words, each in a different sentence."""
    draw = np.random.default_rng(0)
    words = [
        "the",
        "a",
        "of",
        "to",
        "and",
        "my",
        "your",
        "please",
        "tell",
        "me",
        "about",
        "how",
        "why",
        "tea",
        "bread",
        "river",
        "chess",
        "cloud",
        "shoe",
        "train",
    ]
    plain = [" ".join(draw.choice(words, 12)) for _ in range(n)]
    return [
        f"{text[:20]} {planted}, {text[20:]}" if i < held else text for i, text in enumerate(plain)
    ]


def test_shared_ngrams_are_the_words_that_were_planted() -> None:
    """Longest first among equally clear ones, in their commonest spelling, no word twice; with
    counts that are true.
    """
    (found,) = find_shared_ngrams(texts(), [np.arange(8)])
    first = found[0]
    assert first.text in ("ask the Quiet Harbour", "the Quiet Harbour club")
    assert (first.inside, first.rows, first.outside, first.others) == (8, 8, 0, 52)
    words = [word.casefold() for gram in found for word in gram.text.split()]
    assert len(words) == len(set(words))
    assert len(found) <= 3


def test_a_mark_of_most_rows_is_found_and_one_of_half_is_not() -> None:
    """More than half of the rows must hold it: 5 of 9, not 5 of 10."""
    rows = texts(held=5)
    assert any("Quiet" in gram.text for gram in find_shared_ngrams(rows, [np.arange(9)])[0])
    assert not any("Quiet" in gram.text for gram in find_shared_ngrams(rows, [np.arange(10)])[0])


def test_words_that_everybody_uses_are_not_shared() -> None:
    """Held by all rows of the group and by all others: no contrast. A group drawn at random from
    one kind of text shares nothing.
    """
    common = [f"{text} please" for text in texts(held=0)]
    assert find_shared_ngrams(common, [np.arange(8)]) == [()]


def test_each_group_is_held_against_all_other_texts() -> None:
    """Two groups in one call give what each gives alone, and do not depend on the order of the
    texts.
    """
    rows = [f"{text} never trust banks" if 20 <= i < 26 else text for i, text in enumerate(texts())]
    groups = [np.arange(8), np.arange(20, 26)]
    together = find_shared_ngrams(rows, groups)
    assert together == [find_shared_ngrams(rows, [group])[0] for group in groups]
    assert together[1][0].text == "never trust banks"
    back = [59 - group for group in groups]
    assert find_shared_ngrams(rows[::-1], back) == together


def test_an_ngram_is_written_as_most_rows_write_it() -> None:
    """Case and punctuation around words make no difference to what is counted."""
    rows = [
        "BUY VELMORA, now!",
        "Buy Velmora now?",
        "(buy velmora; now)",
        "Buy Velmora: now",
        *texts(held=0),
    ]
    gram = find_shared_ngrams(rows, [np.arange(4)])[0][0]
    assert gram.inside == 4
    assert gram.text == "Buy Velmora now"


def test_a_single_row_shares_nothing_and_no_text_breaks_the_count() -> None:
    """Empty texts, control characters, half surrogates, CJK, and a word of 50 000 characters."""
    hostile = [
        "",
        "\x00\x1b[2J \u202edrow",
        "\ud800 half",
        "毒入りの行です",
        "x" * 50_000,
        "{{ 7 * 7 }} <script>",
    ]
    assert find_shared_ngrams([*hostile, *texts(held=0)], [np.arange(1)]) == [()]
    twice = [f"{text} \u202eevil\x00 trigger" for text in hostile]
    (found,) = find_shared_ngrams([*twice, *texts(held=0)], [np.arange(6)])
    assert "\u202eevil\x00 trigger" in [gram.text for gram in found]
    assert "\u202e" not in make_visible(found[0].text)


def test_counts_are_those_of_every_text() -> None:
    """inside and outside as one finds by looking for the words in each text, n-grams of all lengths
    included.
    """
    rows = texts(held=8, planted="Quiet Harbour") + [
        f"{text} quiet harbour." if i % 7 == 0 else f"{text} quiet"
        for i, text in enumerate(texts())
    ]
    search = SharedNgramSearch([rows[:8], rows[60:63]])
    for text in rows:
        search.count(text)
    found = search.choose()
    assert found == find_shared_ngrams(rows, [np.arange(8), np.arange(60, 63)])
    padded = [f" {text.casefold().replace(',', '').replace('.', '')} " for text in rows]
    assert any(len(gram.text.split()) > 1 for gram in found[0])
    for gram in found[0]:
        assert len(gram.text.split()) <= LONGEST_SHARED_NGRAM
        holding = [f" {gram.text.casefold()} " in text for text in padded]
        assert (gram.inside, gram.rows) == (sum(holding[:8]), 8)
        assert (gram.outside, gram.others) == (sum(holding[8:]), len(rows) - 8)
