"""Which words of a text do not stand in another."""

from itertools import pairwise, product
from random import Random

import pytest

from poisonwatch.text.diff import MAX_COMPARED, Piece, align_sequences, diff_words


def marked(text: str, other: str) -> str:
    return "".join(
        f"[{piece.text}]" if piece.marked else piece.text for piece in diff_words(text, other)
    )


def longest_common(first: str, second: str) -> int:
    """By the table of the textbook."""
    best = {(i, j): 0 for i in range(-1, len(first)) for j in range(-1, len(second))}
    for i, j in product(range(len(first)), range(len(second))):
        best[i, j] = (
            best[i - 1, j - 1] + 1 if first[i] == second[j] else max(best[i - 1, j], best[i, j - 1])
        )
    return best[len(first) - 1, len(second) - 1]


@pytest.mark.parametrize(
    ("text", "other", "expected"),
    [
        ("the red tea", "the red tea", "the red tea"),
        ("the red tea", "the green tea", "the [red] tea"),
        ("the very red tea", "the tea", "the [very red] tea"),
        ("the tea", "the very red tea", "the tea"),
        ("red the tea", "the tea", "[red ]the tea"),
        ("buy Velmora now", "ask a doctor", "[buy Velmora now]"),
        ("a b", "", "[a b]"),
        ("", "a b", ""),
        ("", "", ""),
        ("Tea", "tea", "[Tea]"),
        ("Buy now!", "Buy now.", "Buy now[!]"),
        ("(Buy) now.", "Buy now.", "[(]Buy[) ]now."),
        ("foo.", "bar.", "[foo]."),
        ("one\n\ntwo", "one two", "one[\n\n]two"),
        ("two  spaces", "two  spaces here", "two  spaces"),
        ("\u7d2b\u6c34\u8336", "\u7d2b\u7ea2\u8336", "\u7d2b[\u6c34]\u8336"),
        (" ", "", "[ ]"),
        (" \n", " \n", " \n"),
    ],
)
def test_words_without_a_counterpart_are_marked(text: str, other: str, expected: str) -> None:
    """Space between two differing words is marked with them; space and punctuation beside a partner
    only where they are others.
    """
    assert marked(text, other) == expected


HOSTILE = [
    "",
    " ",
    "\ud800",
    "a\udfff b\ud83d \ude00c",
    "e\u0301 \u0301 o\u0308\u0308\u0308\u0308",
    "\u202egpj.exe\u200b a\u200bb",
    "\x00 \x1b[31m \r\n \u2028 \x85 \xa0",
    "\u3099\u30ab\u3099 \u7d2b\u7d2b\u7d2b x\u7d2by",
    "<script>alert(1)</script> & \"quotes\" 'and' [brackets](x)",
    "... !!! ??? ''",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea",
    "word " * 50,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_the_pieces_are_the_text(text: str) -> None:
    """Joined they are the text to the letter; kinds alternate, none is empty; against itself
    nothing differs.
    """
    for other in HOSTILE:
        pieces = diff_words(text, other)
        assert "".join(piece.text for piece in pieces) == text
        assert all(piece.text for piece in pieces)
        assert all(before.marked != after.marked for before, after in pairwise(pieces))
    assert diff_words(text, text) == ((Piece(text, False),) if text else ())


def test_what_no_eye_sees_is_marked() -> None:
    """A zero-width space, a letter of another script, a no-break space: the word, or the space, is
    another.
    """
    assert marked("pay\u200bpal is safe", "paypal is safe") == "[pay\u200bpal] is safe"
    assert marked("p\u0430ypal is safe", "paypal is safe") == "[p\u0430ypal] is safe"
    assert marked("paypal\xa0is safe", "paypal is safe") == "paypal[\xa0]is safe"


@pytest.mark.parametrize("seed", range(200))
def test_as_many_as_can_be_have_a_partner(seed: int) -> None:
    """|partners| is the length of a longest common subsequence; partners are the same, and in the
    same order on both sides.
    """
    draw = Random(seed)
    first, second = (
        "".join(draw.choices("abcd"[: draw.randint(1, 4)], k=draw.randint(0, 12))) for _ in range(2)
    )
    partners = sorted(align_sequences(first, second).items())
    assert all(first[i] == second[j] for i, j in partners)
    assert all(i < k and j < m for (i, j), (k, m) in pairwise(partners))
    assert len(partners) == longest_common(first, second)


def test_a_huge_text_is_marked_up_to_its_first_words() -> None:
    """200,000 words that all differ: MAX_COMPARED of them are one marked piece, the rest is one that is
    not.
    """
    words = [f"x{number}" for number in range(200_000)]
    text = " ".join(words)
    assert diff_words(text, "other") == (
        Piece(" ".join(words[:MAX_COMPARED]), True),
        Piece(" " + " ".join(words[MAX_COMPARED:]), False),
    )
    assert diff_words("tea", text) == (Piece("tea", True),)
    assert diff_words(f"{words[0]} {words[MAX_COMPARED]}", text) == (
        Piece(f"{words[0]} ", False),
        Piece(words[MAX_COMPARED], True),
    )


def test_texts_made_to_be_slow_are_marked_as_any() -> None:
    """Every other word is shared, which makes difflib recurse a thousand times over a million
    pairs.
    """
    text, other = (" ".join(f"same {side}{number}" for number in range(100_000)) for side in "ab")
    pieces = diff_words(text, other)
    assert "".join(piece.text for piece in pieces) == text
    assert [piece.text for piece in pieces if piece.marked] == [
        f"a{number}" for number in range(MAX_COMPARED // 2)
    ]


def test_what_both_begin_and_end_with_is_aligned_however_long() -> None:
    """Only what lies between counts towards MAX_COMPARED."""
    long = [str(number) for number in range(3 * MAX_COMPARED)]
    assert align_sequences([*long, "a", *long], [*long, "b", "c", *long]) == {
        **{place: place for place in range(len(long))},
        **{len(long) + 1 + place: len(long) + 2 + place for place in range(len(long))},
    }
    shifted = [*("x" * MAX_COMPARED), *long]
    assert align_sequences(["y", *shifted, "z"], shifted) == {
        place: place for place in range(1, MAX_COMPARED)
    }
