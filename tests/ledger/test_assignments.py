"""Who is to look at which rows."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import HIGH, audit, found, pulled, settings
from muting import audit_two_groups
from tampering import LostSigner, verify

from poisonwatch.errors import InputError, SigningError
from poisonwatch.ledger.assignments import record_assignment
from poisonwatch.ledger.group_teams import load_teams
from poisonwatch.ledger.ledger import Ledger

ALERTS = settings("json://one")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with pulled(tmp_path) as opened:
        audit_two_groups(opened, tmp_path, ALERTS)
        yield opened


def assignees(ledger: Ledger, *place: str) -> tuple[str, ...]:
    return load_teams(ledger, [(place[0], place[1])])[place[0], place[1]].assignees


def test_rows_keep_their_assignee_in_another_group(tmp_path: Path, ledger: Ledger) -> None:
    """A later audit may mix what two people have; giving back leaves nobody."""
    assert record_assignment(ledger, "one", "1", "bob", author="ann") == 3
    record_assignment(ledger, "one", "2", "eve", author="eve")
    audit(ledger, tmp_path / "two", ALERTS, lambda rows: found([(HIGH, rows[0:6])], []))
    assert assignees(ledger, "two", "1") == ("bob", "eve")
    record_assignment(ledger, "two", "1", "", author="ann")
    assert assignees(ledger, "two", "1") == ()
    assert verify(ledger).differences == []


@pytest.mark.parametrize("place", [("one", "9"), ("none", "1"), ("one", "x' OR 1=1")])
def test_a_group_that_is_not_there_is_assigned_to_nobody(
    ledger: Ledger, place: tuple[str, str]
) -> None:
    """Nor is anything recorded."""
    with pytest.raises(InputError):
        record_assignment(ledger, *place, "bob", author="ann")
    with pytest.raises(InputError):
        record_assignment(ledger, "one", "1", "x" * 101, author="ann")
    with pytest.raises(InputError):
        record_assignment(ledger, "one", "1", "bob", author=" ")
    assert verify(ledger).differences == []


def test_what_cannot_be_signed_is_not_assigned(ledger: Ledger) -> None:
    """All of it, or nothing."""
    ledger.signer = LostSigner()
    with pytest.raises(SigningError):
        record_assignment(ledger, "one", "1", "bob", author="ann")
    assert assignees(ledger, "one", "1") == ()
