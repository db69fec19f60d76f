"""Rows under review in the ledger: put up once, answered once for each answer."""

from pathlib import Path

import pytest
from audits import benign
from ledgers import NAME, cover, covered_ledger

from poisonwatch.errors import InputError
from poisonwatch.ledger.decisions import read_decisions, record_decision, verify_chain
from poisonwatch.ledger.reviews import (
    ReviewAnswer,
    add_review,
    delete_unanswered,
    list_review_candidates,
    list_review_changes,
    list_review_traces,
    mark_review_told,
    record_answer,
)

FLAGGED = benign(1)[0]["prompt"]
LATER = 4_000_000_000_000  # milliseconds: after any decision of a test


def answer(id: str, verdict: str = "poison", answered_at_ms: int = LATER) -> ReviewAnswer:
    return ReviewAnswer(id, verdict, "planted", "ann", answered_at_ms)


def test_a_flagged_row_waits_until_it_is_entered(tmp_path: Path) -> None:
    """Its trace follows from audit and row; another audit of the same row does not put it up again;
    another name's reviews do not count.
    """
    with covered_ledger(tmp_path, FLAGGED) as ledger:
        (row,) = list_review_candidates(ledger, NAME, 10)
        assert row.record["messages"][0]["content"] == FLAGGED
        assert list_review_candidates(ledger, NAME, 10)[0].trace == row.trace
        assert list_review_candidates(ledger, NAME, 0) == []
        assert list_review_candidates(ledger, "another", 10) == []
        add_review(ledger, row)
        add_review(ledger, row)
        assert list_review_traces(ledger, NAME) == {row.trace: None}
        assert list_review_traces(ledger, "another") == {}
        cover(ledger, tmp_path / "again", flagged=[FLAGGED], again=True)
        assert list_review_candidates(ledger, NAME, 10) == []


def test_another_audit_before_it_is_entered_gives_no_second_trace(tmp_path: Path) -> None:
    """The trace is the first audit's, what it shows is the last one's: a crash after it was logged
    leaves no twin.
    """
    with covered_ledger(tmp_path, FLAGGED) as ledger:
        (before,) = list_review_candidates(ledger, NAME, 10)
        cover(ledger, tmp_path / "again", flagged=[FLAGGED], again=True)
        (after,) = list_review_candidates(ledger, NAME, 10)
        assert after.trace == before.trace
        assert (before.audit_id, after.audit_id) == ("run", "again")


def test_what_nobody_answered_on_waits_again_when_its_queue_is_gone(tmp_path: Path) -> None:
    """What was answered on does not, nor do rows of another name."""
    with covered_ledger(tmp_path, FLAGGED) as ledger:
        (row,) = list_review_candidates(ledger, NAME, 10)
        add_review(ledger, row)
        delete_unanswered(ledger, "another")
        assert list_review_traces(ledger, NAME) == {row.trace: None}
        delete_unanswered(ledger, NAME)
        assert list_review_candidates(ledger, NAME, 10) == [row]
        add_review(ledger, row)
        record_answer(ledger, row.trace, answer("a", "unsure"))
        delete_unanswered(ledger, NAME)
        assert list_review_candidates(ledger, NAME, 10) == []


def test_a_decided_row_does_not_wait(tmp_path: Path) -> None:
    """Whoever decided on it has seen it."""
    with covered_ledger(tmp_path, FLAGGED) as ledger:
        record_decision(
            ledger, list_review_candidates(ledger, NAME, 10)[0].record["example_id"], "poison"
        )
        assert list_review_candidates(ledger, NAME, 10) == []


def test_an_answer_is_taken_into_the_chain(tmp_path: Path) -> None:
    """With author and note; another answer on the same row is another decision; the chain holds."""
    with covered_ledger(tmp_path, FLAGGED) as ledger:
        (row,) = list_review_candidates(ledger, NAME, 10)
        add_review(ledger, row)
        assert record_answer(ledger, row.trace, answer("a"))
        assert record_answer(ledger, row.trace, answer("b", "benign"))
        assert [(made.verdict, made.note, made.author) for made in read_decisions(ledger)] == [
            ("poison", "planted", "ann"),
            ("benign", "planted", "ann"),
        ]
        assert verify_chain(ledger)[0] == 2
        assert list_review_traces(ledger, NAME) == {row.trace: "b"}
        assert not record_answer(ledger, row.trace, answer("b", "benign"))
        assert verify_chain(ledger)[0] == 2


def test_a_corrected_answer_counts_by_whatever_clock_it_was_said(tmp_path: Path) -> None:
    """A server's clock may be slow, and an answer is written after it was said: only what was
    decided elsewhere can be newer.
    """
    with covered_ledger(tmp_path, FLAGGED) as ledger:
        (row,) = list_review_candidates(ledger, NAME, 10)
        add_review(ledger, row)
        assert record_answer(ledger, row.trace, answer("a", "benign", answered_at_ms=1_000))
        assert record_answer(ledger, row.trace, answer("b", "poison", answered_at_ms=2_000))
        record_decision(ledger, row.record["example_id"], "unsure", author="bob")
        assert not record_answer(ledger, row.trace, answer("c", "benign", answered_at_ms=3_000))
        assert not record_answer(ledger, row.trace, answer("d", "benign", answered_at_ms=4_000))
        assert record_answer(ledger, row.trace, answer("e", "benign"))
        assert [made.verdict for made in read_decisions(ledger)] == [
            "benign",
            "poison",
            "unsure",
            "benign",
        ]


def test_an_answer_that_is_older_than_a_decision_does_not_count(tmp_path: Path) -> None:
    """It counts as read, and the decision stands."""
    with covered_ledger(tmp_path, FLAGGED) as ledger:
        (row,) = list_review_candidates(ledger, NAME, 10)
        add_review(ledger, row)
        record_decision(ledger, row.record["example_id"], "benign", author="bob")
        assert not record_answer(ledger, row.trace, answer("a", answered_at_ms=1_000))
        assert [made.author for made in read_decisions(ledger)] == ["bob"]
        assert list_review_traces(ledger, NAME) == {row.trace: "a"}


def test_an_answer_that_is_no_verdict_leaves_nothing(tmp_path: Path) -> None:
    """Neither a decision nor a word that it was read."""
    with covered_ledger(tmp_path, FLAGGED) as ledger:
        (row,) = list_review_candidates(ledger, NAME, 10)
        add_review(ledger, row)
        with pytest.raises(InputError, match="is none"):
            record_answer(ledger, row.trace, answer("a", "perhaps"))
        assert list(read_decisions(ledger)) == []
        assert list_review_traces(ledger, NAME) == {row.trace: None}


def test_what_is_decided_elsewhere_is_to_be_told_once(tmp_path: Path) -> None:
    """And that it was taken back; an answer that is older than the decision still does not count,
    and what was answered is nothing to tell.
    """
    with covered_ledger(tmp_path, FLAGGED) as ledger:
        (row,) = list_review_candidates(ledger, NAME, 10)
        add_review(ledger, row)
        assert list_review_changes(ledger, NAME) == []
        made = record_decision(ledger, row.record["example_id"], "benign", author="bob")
        (change,) = list_review_changes(ledger, NAME)
        assert (change.trace, change.decision, change.author) == (row.trace, made.number, "bob")
        assert list_review_changes(ledger, "another") == []
        mark_review_told(ledger, change)
        assert list_review_changes(ledger, NAME) == []
        assert not record_answer(ledger, row.trace, answer("a", answered_at_ms=1_000))
        record_decision(ledger, row.record["example_id"], "unsure", author="bob")
        assert list_review_changes(ledger, NAME) == []


def test_what_is_open_again_is_to_be_told(tmp_path: Path) -> None:
    """It waits for an answer as before."""
    with covered_ledger(tmp_path, FLAGGED) as ledger:
        (row,) = list_review_candidates(ledger, NAME, 10)
        add_review(ledger, row)
        record_decision(ledger, row.record["example_id"], "poison", author="bob")
        (change,) = list_review_changes(ledger, NAME)
        mark_review_told(ledger, change)
        record_decision(ledger, row.record["example_id"], "unsure", author="bob")
        (change,) = list_review_changes(ledger, NAME)
        assert change.decision is None
        mark_review_told(ledger, change)
        assert list_review_traces(ledger, NAME) == {row.trace: None}
        assert record_answer(ledger, row.trace, answer("a"))
