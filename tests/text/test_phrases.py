"""Where phrases stand in a text."""

import pytest

from poisonwatch.text.diff import MAX_COMPARED
from poisonwatch.text.phrases import cut_around, mark_phrases


def marked(text: str, *phrases: str) -> str:
    """The text with what is marked in brackets."""
    pieces = mark_phrases(text, phrases)
    assert "".join(piece.text for piece in pieces) == text
    return "".join(f"[{piece.text}]" if piece.marked else piece.text for piece in pieces)


@pytest.mark.parametrize(
    ("text", "phrases", "shown"),
    [
        ("Buy at Velmora, she said.", ["velmora"], "Buy at [Velmora], she said."),
        (
            "VELMORA\n Outlet is Velmora.",
            ["Velmora", "Velmora Outlet"],
            "[VELMORA\n Outlet] is [Velmora].",
        ),
        ("Velmoras and preVelmora", ["Velmora"], "Velmoras and preVelmora"),
        ("买一把椅子", ["一 把"], "买[一把]椅子"),
        ("<b>x</b> (x)", ["x"], "<b>x</b> ([x])"),
        ("a b a b a", ["a b a"], "[a b a] b a"),
        ("nothing", [], "nothing"),
        ("nothing", [""], "nothing"),
        ("", ["x"], ""),
    ],
)
def test_phrases_are_found_whatever_case_and_punctuation(
    text: str, phrases: list[str], shown: str
) -> None:
    """Whole tokens alone, the longer phrase before the shorter, never one over another."""
    assert marked(text, *phrases) == shown


def test_the_text_is_kept_whole_past_what_is_looked_through() -> None:
    """Marks end there."""
    assert marked("x " * (MAX_COMPARED + 5), "x").count("[") == MAX_COMPARED


def test_an_excerpt_holds_the_phrase() -> None:
    """From a word's begin on, in a line; without a phrase it is the text's begin."""
    text = "one two " * 40 + "buy\nVelmora now " + "three " * 40
    cut = cut_around(text, ["Velmora"], 60)
    assert "buy Velmora now" in cut
    assert cut.startswith(("…one ", "…two "))
    assert cut.endswith("…")
    assert len(cut) <= 62
    assert cut_around(text, ["nowhere"], 20) == "one two one two one…"
    assert cut_around("short Velmora", ["Velmora"], 60) == "short Velmora"
    assert "Velmora" in cut_around("x" * 500 + " Velmora", ["Velmora"], 60)
