"""An incident is over with the last decision on its alert's rows, and is told to be once."""

from pathlib import Path

import pytest
from audits import benign, write_rows
from clusters import HIGH, audit, found, pulled, settings
from ledgers import NAME, pull
from servers import postgres_server
from sqlalchemy import select

from poisonwatch.errors import InputError
from poisonwatch.ledger.decisions import record_decision, record_decisions
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import list_pending_alerts, mark_delivered, mark_sent
from poisonwatch.ledger.resolves import (
    Reopening,
    list_pending_resolves,
    list_reopenings,
    mark_reopened,
    mark_resolved,
)
from poisonwatch.ledger.tables import alerts

PAGER = f"pagerduty://{'k' * 32}@token"
BOTH = settings(PAGER, "json://one")


def send(ledger: Ledger, sent_as: str | None = None) -> list[str]:
    """Every alert arrives: their keys at the pager, oldest first."""
    with ledger.write() as connection:
        pending = list_pending_alerts(connection, NAME)
        for alert in pending:
            mark_sent(connection, alert.delivery, "2026-07-01T10:00:00+00:00", sent_as)
    return [alert.key for alert in pending if alert.target.startswith("pagerduty")]


def over(ledger: Ledger) -> list[tuple[str, int]]:
    """The keys of incidents that are over, and of how many alerts each was."""
    with ledger.read() as connection:
        found = list_pending_resolves(connection, NAME)
    assert all(resolve.target.startswith("pagerduty") for resolve in found)
    return [(resolve.key, len(resolve.alerts)) for resolve in found]


def reopened(ledger: Ledger) -> list[Reopening]:
    with ledger.read() as connection:
        return list_reopenings(connection, NAME)


def title(ledger: Ledger, key: str) -> str:
    with ledger.read() as connection:
        return str(connection.execute(select(alerts.c.title).where(alerts.c.key == key)).scalar())


def two_groups(ledger: Ledger, folder: Path) -> list[str]:
    """Alerts about rows 0 to 2 and 4 to 5: all ids."""
    ids: list[str] = []

    def flagged(rows):  # type: ignore[no-untyped-def]
        ids.extend(row.id for row in rows)
        return found([(HIGH, rows[:3]), (HIGH, rows[4:6])])

    audit(ledger, folder / "one", BOTH, flagged)
    return ids


def check_last_decision(ledger: Ledger, folder: Path) -> None:
    ids = two_groups(ledger, folder)
    keys = send(ledger)
    record_decisions(ledger, ids[:2], "poison")
    assert over(ledger) == []
    record_decision(ledger, ids[2], "benign")
    record_decision(ledger, ids[2], "poison")
    assert over(ledger) == [(keys[0], 1)]
    record_decision(ledger, ids[2], "unsure")
    assert over(ledger) == []
    record_decision(ledger, ids[2], "benign")
    assert over(ledger) == [(keys[0], 1)]
    with ledger.write() as connection:
        mark_resolved(connection, list_pending_resolves(connection, NAME), "2026-07-01")
    assert over(ledger) == []
    record_decisions(ledger, ids[4:6], "benign")
    assert over(ledger) == [(keys[1], 1)]
    assert reopened(ledger) == []
    record_decisions(ledger, [ids[1], ids[2], ids[4]], "unsure")
    # Of the second incident nobody was told that it is over.
    (again,) = reopened(ledger)
    assert (again.key, again.open_rows, again.title) == (keys[0], 2, title(ledger, keys[0]))
    with ledger.write() as connection:
        mark_reopened(connection, again)
    assert reopened(ledger) == over(ledger) == []
    record_decisions(ledger, ids[:3], "poison")
    assert over(ledger) == [(keys[0], 1)]


def test_the_last_decision_ends_an_incident(tmp_path: Path) -> None:
    """At the pager alone; deciding anew changes nothing, and taking it back takes it back."""
    with pulled(tmp_path) as ledger:
        check_last_decision(ledger, tmp_path)


def test_the_last_decision_ends_an_incident_on_postgresql(tmp_path: Path) -> None:
    """On a real server."""
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "rows.jsonl", benign(12))
    with postgres_server() as url, Ledger.at(url) as ledger:
        pull(ledger, tmp_path / "data")
        check_last_decision(ledger, tmp_path)


def test_a_digest_is_over_once_all_that_it_spoke_of_is(tmp_path: Path) -> None:
    """It was opened under one key, and is closed under it."""
    with pulled(tmp_path) as ledger:
        ids = two_groups(ledger, tmp_path)
        send(ledger, "d" * 16)
        record_decisions(ledger, ids[:3], "poison")
        assert over(ledger) == []
        record_decisions(ledger, ids[4:6], "poison")
        assert over(ledger) == [("d" * 16, 2)]
        with ledger.write() as connection:
            mark_resolved(connection, list_pending_resolves(connection, NAME), "2026-07-01")
        record_decision(ledger, ids[0], "unsure")
        (again,) = reopened(ledger)
        assert (again.key, len(again.alerts), again.open_rows) == ("d" * 16, 2, 1)


def test_an_incident_that_nobody_opened_is_not_over(tmp_path: Path) -> None:
    """Decided on before the target was reached: the alert goes first."""
    with pulled(tmp_path) as ledger:
        ids = two_groups(ledger, tmp_path)
        record_decisions(ledger, ids[:3], "poison")
        assert over(ledger) == []
        keys = send(ledger)
        assert over(ledger) == [(keys[0], 1)]


def test_what_was_sent_without_a_key_is_not_resolved(tmp_path: Path) -> None:
    """By a version that opened incidents under none."""
    with pulled(tmp_path) as ledger:
        ids = two_groups(ledger, tmp_path)
        with ledger.write() as connection:
            for alert in list_pending_alerts(connection, NAME):
                mark_delivered(connection, alert.delivery, "2026-07-01T10:00:00+00:00")
        record_decisions(ledger, ids[:6], "poison")
        assert over(ledger) == []


def test_a_decision_that_fails_ends_nothing(tmp_path: Path) -> None:
    """One of several rows is unknown: none is decided on."""
    with pulled(tmp_path) as ledger:
        ids = two_groups(ledger, tmp_path)
        send(ledger)
        with pytest.raises(InputError):
            record_decisions(ledger, [*ids[:3], "0" * 64], "poison")
        assert over(ledger) == []
