"""What is still to be decided on, who was told of it, and which alerts wait while it is muted."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import HIGH, audit, found, pulled, settings
from ledgers import NAME
from muting import NOW, audit_two_groups, flagged, muted

from poisonwatch.ledger.assignments import record_assignment
from poisonwatch.ledger.decisions import record_decision
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.mutes import list_active_mutes
from poisonwatch.ledger.outbox import list_pending_alerts, mark_failed, mark_sent
from poisonwatch.ledger.owed import list_owed
from poisonwatch.ledger.reminders import (
    OpenGroup,
    list_held_alerts,
    list_open_groups,
    list_tellings,
)

ALERTS = settings("json://one")
THEN = "2026-07-01T10:00:00+00:00"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with pulled(tmp_path) as opened:
        audit_two_groups(opened, tmp_path, ALERTS)
        yield opened


def groups(ledger: Ledger) -> list[OpenGroup]:
    with ledger.read() as connection:
        return list_open_groups(connection, NAME)


def test_open_rows_are_in_the_group_that_they_were_flagged_in_last(
    tmp_path: Path, ledger: Ledger
) -> None:
    """Without those that somebody decided on; a row in no group is one."""
    first = groups(ledger)
    assert [(group.key, len(group.rows), group.severity) for group in first] == [
        ("1", 3, "high"),
        ("2", 2, "low"),
    ]
    record_decision(ledger, first[0].rows[0].example_id, "benign")
    assert [len(group.rows) for group in groups(ledger)] == [2, 2]
    audit(ledger, tmp_path / "two", ALERTS, lambda rows: found([(HIGH, rows[1:4])], rows[8:9]))
    latest = groups(ledger)
    assert [(len(group.rows), group.rows[0].audit_id) for group in latest] == [
        (3, "two"),
        (1, "two"),
    ]
    assert latest[1].key == latest[1].rows[0].example_id[:16]


def test_a_row_was_told_of_once_it_arrived(ledger: Ledger) -> None:
    """On its way, arrived, given up."""
    row = groups(ledger)[0].rows[0].number
    (target,) = {alert.target for alert in pending(ledger)}
    assert tellings(ledger)[row] == {target: None}
    sent, failed = pending(ledger)
    with ledger.write() as connection:
        mark_sent(connection, sent.delivery, THEN)
        mark_failed(connection, failed.delivery, THEN, "no", refused=True, give_up=True)
    assert tellings(ledger)[row] == {target: THEN}
    assert len(tellings(ledger)) == 3


def pending(ledger: Ledger):  # type: ignore[no-untyped-def]
    with ledger.read() as connection:
        return list_pending_alerts(connection, NAME)


def tellings(ledger: Ledger) -> dict[int, dict[str, str | None]]:
    with ledger.read() as connection:
        return list_tellings(connection, NAME)


def test_alerts_wait_where_all_of_their_rows_are_muted(tmp_path: Path, ledger: Ledger) -> None:
    """They are owed to nobody meanwhile."""
    high, low = (alert.number for alert in pending(ledger))
    audit(ledger, tmp_path / "two", ALERTS, flagged((HIGH, slice(3)), (5.0, slice(4, 6))))
    muted(ledger, "two/2")
    with ledger.read() as connection:
        mutes = list_active_mutes(connection, NAME, NOW)
        assert list_held_alerts(connection, NAME, mutes) == {low}
        assert list_held_alerts(connection, NAME, ()) == set()
        assert [owed.count for owed in list_owed(connection, NAME, ())] == [1]
    muted(ledger, "panel:shop")
    with ledger.read() as connection:
        mutes = list_active_mutes(connection, NAME, NOW)
        assert list_held_alerts(connection, NAME, mutes) == {high, low}
        assert list_owed(connection, NAME, ()) == []


def test_open_rows_say_who_has_them(ledger: Ledger) -> None:
    """And a message says so, too."""
    record_assignment(ledger, "one", "1", "bob", author="ann")
    assert [group.assignees for group in groups(ledger)] == [["bob"], []]
