"""A difference is one visible line, whatever was put into the ledger."""

from poisonwatch.ledger.differences import Difference


def test_a_difference_is_one_visible_line() -> None:
    """Hostile text stays inert, and long text is cut."""
    hostile = Difference("audit \x1b[31mred", "a\nb" + "x" * 1000, "\u202egnp.exe")
    assert "\n" not in hostile.words
    assert "\x1b" not in hostile.words
    assert "\u202e" not in hostile.words
    assert len(hostile.words) < 400
    assert hostile.record()["found"] == "\u202egnp.exe"
