"""What the gate answers, in numbers and words."""

from dataclasses import replace

import pytest

from poisonwatch.release.answer import GateAnswer, RequiredVersions, UnclearedRow

ROW = UnclearedRow("a.jsonl", 3, "0" * 64, "flagged")
FILE = UnclearedRow("clean.jsonl", None, None, "changed")
UNREAD = UnclearedRow(".x.jsonl", None, None, "not read", problem="its name begins with .\x1b")


def answer(*missing: UnclearedRow, rows: int = 5, by_decision: int = 0) -> GateAnswer:
    return GateAnswer(
        rows=rows,
        files=2,
        required=RequiredVersions(model="a" * 64),
        by_decision=by_decision,
        missing=missing,
        compared=True,
    )


def test_nothing_is_cleared_without_rows() -> None:
    """Nor where something is missing."""
    assert answer().cleared
    assert not answer(rows=0).cleared
    assert not answer(ROW).cleared


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        (answer(), ("5 rows in 2 files", f"model {'a' * 12}, ", "sentinels (any)")),
        (answer(by_decision=1), ("5 rows in 2 files", "(1 by a person's decision)")),
        (answer(ROW, FILE), ("1 of 5 rows", "1 file is not")),
        (answer(FILE), ("1 file is not what was released",)),
        (answer(FILE, UNREAD, UNREAD), ("1 file is not", "2 files or folders")),
        (answer(FILE, FILE, UNREAD), ("2 files are not", "1 file or folder cannot be read")),
        (answer(rows=0), ("0 of 0 rows",)),
    ],
)
def test_the_headline_counts_rows_and_files(given: GateAnswer, parts: tuple[str, ...]) -> None:
    """Rows that are missing, and files that are others; no more digits than are read."""
    assert all(part in given.headline for part in parts), given.headline
    assert "a" * 13 not in given.headline


def test_reasons_are_counted_the_most_frequent_first() -> None:
    """The record has each missing row with its reason."""
    given = answer(FILE, ROW, ROW)
    assert list(given.reasons.items()) == [("flagged", 2), ("changed", 1)]
    record = given.record()
    assert (record["cleared"], record["model"], record["sentinels"]) == (False, "a" * 64, None)
    assert [place["reason"] for place in record["missing"]] == ["changed", "flagged", "flagged"]


def test_a_row_is_named_by_its_place() -> None:
    """A file by its name; nothing of it acts on a terminal."""
    assert (ROW.words, FILE.words) == ("a.jsonl:4", "clean.jsonl")
    assert "\x1b" not in UnclearedRow("\x1b[2J", 0, None, "flagged").words


def test_a_problem_is_told_where_there_is_one() -> None:
    """In words, and in the record; nothing of it acts on a terminal."""
    assert ROW.account == ROW.words
    assert "problem" not in ROW.record()
    assert UNREAD.account == ".x.jsonl: its name begins with .\\u{1b}"
    assert UNREAD.record()["problem"] == UNREAD.problem


def test_what_was_passed_over_is_counted_where_something_was() -> None:
    """Otherwise the record is as it always was."""
    assert "passed_over" not in answer().record()
    assert replace(answer(), passed_over=2).record()["passed_over"] == 2


def test_versions_are_met_by_their_first_digits() -> None:
    """All of them; None asks for nothing."""
    assert RequiredVersions().is_met_by("m", "s", "r")
    assert RequiredVersions("ab").is_met_by("abc", "s", None)
    assert not RequiredVersions("ab", "t").is_met_by("abc", "s", "r")
    assert RequiredVersions("ab", reading="de").is_met_by("abc", "s", "def")
    assert not RequiredVersions("ab", reading="de").is_met_by("abc", "s", "fed")


def test_an_audit_without_a_reading_will_do_where_no_setting_shapes_it() -> None:
    """Then it is the only one that there was."""
    assert not RequiredVersions("ab", reading="de").is_met_by("abc", "s", None)
    plain = RequiredVersions("ab", reading="de", reads_as_before=True)
    assert plain.is_met_by("abc", "s", None)
    assert not plain.is_met_by("abc", "s", "fed")
    assert not plain.is_met_by("bc", "s", None)
