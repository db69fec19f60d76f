"""People who review together, against the chain: what somebody changed behind its back is named."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import pulled, settings
from muting import audit_two_groups
from tampering import tamper, verify

from poisonwatch.ledger.assignments import record_assignment
from poisonwatch.ledger.comments import record_comment
from poisonwatch.ledger.decisions import record_decision
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.queue import list_group_rows
from poisonwatch.ledger.two_people import submit_verdict

HIGH = ("one", "1")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with pulled(tmp_path) as opened:
        audit_two_groups(opened, tmp_path, settings("json://one"))
        yield opened


def ids(ledger: Ledger, place: tuple[str, str]) -> list[str]:
    return [row.example_id for row in list_group_rows(ledger, *place)]


def say(ledger: Ledger, place: tuple[str, str], verdict: str, author: str) -> None:
    submit_verdict(ledger, ids(ledger, place), verdict, "seen", author, two_people="high")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE proposals SET verdict = 'poison'",
        "UPDATE proposals SET author = 'eve', person = 'eve'",
        "DELETE FROM proposals",
    ],
)
def test_verify_names_a_proposal_that_was_changed(ledger: Ledger, statement: str) -> None:
    """Each row of it."""
    say(ledger, HIGH, "benign", "ann")
    tamper(ledger, statement)
    named = {difference.what.split(" row ")[0] for difference in verify(ledger).differences}
    assert named == {"proposal on"}


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM agreements", "UPDATE agreements SET proposer = 'eve'"],
)
def test_verify_names_an_agreement_that_was_changed(ledger: Ledger, statement: str) -> None:
    """And one that was made up."""
    say(ledger, HIGH, "benign", "ann")
    say(ledger, HIGH, "benign", "bob")
    tamper(ledger, statement)
    assert len(verify(ledger).differences) == 3


def test_what_one_person_decided_cannot_be_called_an_agreement(ledger: Ledger) -> None:
    """A line without its record."""
    record_decision(ledger, ids(ledger, HIGH)[0], "benign", "", "ann")
    tamper(ledger, "INSERT INTO agreements VALUES (1, 1, 'bob', 1)")
    assert [str(each.what) for each in verify(ledger).differences] == ["agreement on decision 1"]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM assignments",
        "UPDATE assignments SET assignee = 'eve'",
        "DELETE FROM commented_rows",
    ],
)
def test_verify_names_rows_that_changed_hands(ledger: Ledger, statement: str) -> None:
    """And comments that were put on others."""
    record_assignment(ledger, *HIGH, "bob", author="ann")
    record_comment(ledger, *HIGH, "look", author="ann")
    tamper(ledger, statement)
    assert len(verify(ledger).differences) == 3
