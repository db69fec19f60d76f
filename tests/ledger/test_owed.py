"""What is owed to whom."""

from pathlib import Path

import pytest
from clusters import HIGH, audit, found, pulled, settings
from ledgers import NAME, covered_ledger, sqlite_ledger
from silent import HOUR, MINUTE, NOON, add_audit

from poisonwatch.alerts.targets import list_targets
from poisonwatch.errors import OperationError
from poisonwatch.ledger.history import counting_failures
from poisonwatch.ledger.notices import OVERDUE, Notice, add_notice, address_notice
from poisonwatch.ledger.outbox import AUDIT_KIND, enqueue, list_pending_alerts, mark_delivered
from poisonwatch.ledger.owed import Owed, count_undecided_rows, list_owed
from poisonwatch.release.release import write_release


def test_accounts_of_audits_that_have_ended_are_owed(tmp_path: Path) -> None:
    """Since the oldest; one that is at work gives its own at its end."""
    with sqlite_ledger(tmp_path) as ledger:
        add_audit(ledger, NOON, NOON + MINUTE)
        add_audit(ledger, NOON + HOUR, NOON + HOUR)
        add_audit(ledger, NOON + 2 * HOUR, None, state="running")
        with ledger.write() as connection:
            for number in (1, 2, 3):
                enqueue(connection, AUDIT_KIND, number, audit=number, targets=["mlflow"])
            (owed,) = list_owed(connection, NAME, [])
            assert list_owed(connection, "another", []) == []
    since = "2026-05-04T12:01:00+00:00"
    assert owed == Owed("audit", "mlflow", count=2, attempts=0, since=since)
    assert not owed.is_failing(NOON + 16 * MINUTE)
    assert owed.is_failing(NOON + 17 * MINUTE)


def test_an_account_that_was_tried_in_vain_is_failing_at_once(tmp_path: Path) -> None:
    """All that the target was not told of, by however many attempts; an error of ours goes on."""
    with sqlite_ledger(tmp_path) as ledger:
        add_audit(ledger, NOON, NOON + MINUTE)
        with ledger.write() as connection:
            enqueue(connection, AUDIT_KIND, 1, audit=1, targets=["mlflow", "prefect"])
        for _ in range(2):
            with (
                pytest.raises(OperationError, match="no answer"),
                counting_failures(ledger, NAME, "mlflow"),
            ):
                raise OperationError("no answer")
        with counting_failures(ledger, NAME, "prefect"):
            pass
        with ledger.read() as connection:
            owed = list_owed(connection, NAME, [])
    assert {one.target: one.attempts for one in owed} == {"mlflow": 2, "prefect": 0}
    assert [one.is_failing(NOON + MINUTE) for one in owed] == [True, False]


def test_messages_are_owed_by_target(tmp_path: Path) -> None:
    """With the most attempts at one; what was tried is failing."""
    config = settings("json://one", "json://two")
    one, two = (target.id for target in list_targets(config))
    with pulled(tmp_path) as ledger:
        audit(ledger, tmp_path / "one", config, lambda rows: found([(HIGH, rows[:3])]))
        with ledger.write() as connection:
            for alert in list_pending_alerts(connection, NAME):
                if alert.target == one:
                    mark_delivered(connection, alert.delivery, None)
            notice = Notice(name="other", kind=OVERDUE, key="k", severity="high", title="", body="")
            number = add_notice(connection, notice, NOON)
            assert number is not None
            address_notice(connection, number, [two, "json-elsewhere"])
            owed = list_owed(connection, NAME, [one, two])
    by_target = {(one.kind, one.target): (one.count, one.attempts) for one in owed}
    assert by_target == {("alert", one): (1, 1), ("alert", two): (1, 0), ("notice", two): (1, 0)}


def test_releases_are_owed_by_the_audit_that_they_are_of(tmp_path: Path) -> None:
    """Another audit of the same ledger owes nothing of them; several are counted together."""
    with covered_ledger(tmp_path, "Tell me fact 0 about tea.") as ledger:
        for folder in ("one", "two"):
            write_release(ledger, NAME, tmp_path / folder, report_to=["openlineage"])
        with ledger.read() as connection:
            (owed,) = list_owed(connection, NAME, [])
            assert list_owed(connection, "another", []) == []
    assert (owed.kind, owed.target, owed.count, owed.attempts) == ("release", "openlineage", 2, 0)


def test_undecided_rows_are_those_that_are_flagged_and_wait(tmp_path: Path) -> None:
    """Of this name's audits."""
    with (
        covered_ledger(tmp_path, "Tell me fact 0 about tea.") as ledger,
        ledger.read() as connection,
    ):
        assert count_undecided_rows(connection, NAME) == 1
        assert count_undecided_rows(connection, "another") == 0
