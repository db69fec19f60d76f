"""What the ledger knows of alerts: put in with the flags, owed until delivered, told once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import HIGH, MEDIUM, audit, found, pulled, settings
from ledgers import NAME
from sqlalchemy import func, select

from poisonwatch.alerts.targets import list_targets
from poisonwatch.ledger.ledger import Ledger, now
from poisonwatch.ledger.outbox import (
    PendingAlert,
    list_notified_ids,
    list_pending_alerts,
    mark_delivered,
    retarget,
)
from poisonwatch.ledger.tables import alerts, deliveries, flags, notified_rows

BOTH = settings("json://one", "json://two")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with pulled(tmp_path) as opened:
        yield opened


def owed(ledger: Ledger) -> list[PendingAlert]:
    with ledger.read() as connection:
        return list_pending_alerts(connection, NAME)


def count(ledger: Ledger, table: object) -> int:
    with ledger.read() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def deliver(ledger: Ledger, message: PendingAlert, arrives: bool = True) -> None:
    with ledger.write() as connection:
        mark_delivered(connection, message.delivery, now() if arrives else None)


def move(ledger: Ledger, *urls: str) -> list[str]:
    """Settle what is owed for these targets: their ids."""
    targets = [target.id for target in list_targets(settings(*urls))]
    with ledger.write() as connection:
        retarget(connection, NAME, targets)
    return targets


def test_alerts_are_owed_from_the_moment_the_flags_are_there(
    ledger: Ledger, tmp_path: Path
) -> None:
    """One message for each target, oldest first; the rows count as told of."""
    audit(ledger, tmp_path / "one", BOTH, lambda rows: found([(HIGH, rows[:3])]))
    assert [message.target for message in owed(ledger)] == sorted(
        target.id for target in list_targets(BOTH)
    )
    assert count(ledger, flags) == count(ledger, notified_rows) == 3
    with ledger.read() as connection:
        assert len(list_notified_ids(connection, NAME)) == 3
        assert list_notified_ids(connection, "another audit") == set()
        assert list_pending_alerts(connection, "another audit") == []


def test_an_audit_that_cannot_be_committed_owes_nothing(ledger: Ledger, tmp_path: Path) -> None:
    """Flags and alerts come together or not at all: the second audit repeats a key, which the
    ledger refuses.
    """
    audit(ledger, tmp_path / "a" / "one", BOTH, lambda rows: found([(HIGH, rows[:1])]))
    with ledger.write() as connection:
        connection.execute(notified_rows.delete())
    with pytest.raises(Exception, match=r"(?i)unique"):
        audit(
            ledger,
            tmp_path / "b" / "one",
            BOTH,
            lambda rows: found([(HIGH, rows[:1])], alone=rows[1:5]),
        )
    assert count(ledger, flags) == count(ledger, alerts) == 1


def test_a_cluster_is_told_of_once_over_audits(ledger: Ledger, tmp_path: Path) -> None:
    """The same rows flagged again are no news; a row that joins them is, in the digest; another
    cluster has its message.
    """
    audit(ledger, tmp_path / "one", BOTH, lambda rows: found([(HIGH, rows[:3])]))
    audit(ledger, tmp_path / "two", BOTH, lambda rows: found([(HIGH, rows[:3])]))
    assert count(ledger, alerts) == 1
    audit(
        ledger,
        tmp_path / "three",
        BOTH,
        lambda rows: found([(HIGH, rows[:4]), (MEDIUM, rows[6:8])]),
    )
    with ledger.read() as connection:
        kinds = connection.execute(select(alerts.c.kind).order_by(alerts.c.alert)).scalars().all()
    assert kinds == ["cluster", "cluster", "digest"]


def test_what_is_delivered_is_not_owed(ledger: Ledger, tmp_path: Path) -> None:
    """A failed attempt leaves it owed, and is counted."""
    audit(ledger, tmp_path / "one", BOTH, lambda rows: found([(HIGH, rows[:3])]))
    first, second = owed(ledger)
    deliver(ledger, first)
    deliver(ledger, second, arrives=False)
    assert [message.delivery for message in owed(ledger)] == [second.delivery]
    with ledger.read() as connection:
        assert connection.execute(select(deliveries.c.attempts)).scalars().all() == [1, 1]


def test_what_is_owed_to_a_target_that_is_gone_is_dropped(ledger: Ledger, tmp_path: Path) -> None:
    """What the other is owed stays; what was delivered stays written down."""
    audit(ledger, tmp_path / "one", BOTH, lambda rows: found([(HIGH, rows[:3]), (HIGH, rows[3:5])]))
    one, two = (target.id for target in list_targets(BOTH))
    for message in owed(ledger):
        if message.number == 1 or message.target == one:
            deliver(ledger, message, arrives=message.number == 1)
    move(ledger, "json://one")
    assert [(message.number, message.target) for message in owed(ledger)] == [(2, one)]
    assert count(ledger, deliveries) == 3
    assert two not in {message.target for message in owed(ledger)}


def test_a_mended_address_gets_what_the_old_one_is_owed(ledger: Ledger, tmp_path: Path) -> None:
    """A target of the same kind that nothing was tried on takes over; one of another kind does not."""
    config = settings("slack://wrong", "mailto://ann@host")
    audit(ledger, tmp_path / "one", config, lambda rows: found([(HIGH, rows[:3])]))
    for message in owed(ledger):
        deliver(ledger, message, arrives=False)
    slack, _ = move(ledger, "slack://right", "json://new")
    assert [message.target for message in owed(ledger)] == [slack]


def test_a_target_that_takes_over_is_told_each_thing_once(ledger: Ledger, tmp_path: Path) -> None:
    """Where it is owed the same message itself, that is enough."""
    audit(ledger, tmp_path / "one", BOTH, lambda rows: found([(HIGH, rows[:3])]))
    (two,) = move(ledger, "json://two")
    assert [message.target for message in owed(ledger)] == [two]
