"""What MLflow is owed of discoveries that came after their audits."""

from pathlib import Path

from ledgers import NAME, sqlite_ledger
from silent import MINUTE, NOON, add_audit

from poisonwatch.ledger.findings import (
    list_owed_findings,
    mark_finding_delivered,
    owe_finding,
)
from poisonwatch.ledger.history import mark_audit_delivered
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import AUDIT_KIND, MLFLOW, enqueue


def list_numbers(ledger: Ledger) -> list[int]:
    return [past.number for past in list_owed_findings(ledger, NAME)]


def test_a_finding_is_owed_once_its_audit_was_told_and_again_after_another_look(
    tmp_path: Path,
) -> None:
    """Of an audit that MLflow was never to hear of, it is owed nothing."""
    with sqlite_ledger(tmp_path) as ledger:
        for _ in range(2):
            add_audit(ledger, NOON, NOON + MINUTE)
        with ledger.write() as connection:
            enqueue(connection, AUDIT_KIND, 1, audit=1, targets=[MLFLOW])
        assert owe_finding(ledger, 1)
        assert not owe_finding(ledger, 2)
        assert list_numbers(ledger) == []
        mark_audit_delivered(ledger, 1, MLFLOW)
        assert list_numbers(ledger) == [1]
        mark_finding_delivered(ledger, 1)
        assert list_numbers(ledger) == []
        assert owe_finding(ledger, 1)
        assert list_numbers(ledger) == [1]
