"""An audit in the ledger: opened, committed, or interrupted."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from ledgers import (
    NAME,
    ONE,
    cover,
    pull,
    sqlite_ledger,
    statuses,
    waiting,
    write_two_files,
)
from sqlalchemy import func, select

from poisonwatch.ledger.audit_records import find_audit_record
from poisonwatch.ledger.audits import open_audit, record_nothing_new
from poisonwatch.ledger.history import HAD_ROWS, list_pending_audits
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import MLFLOW
from poisonwatch.ledger.records import read_head
from poisonwatch.ledger.tables import audits, flags, rejections, results
from poisonwatch.verification.audits import check_audits

TEA = "Tell me fact 0 about tea."


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Nine pulled rows, one of them broken."""
    write_two_files(tmp_path / "data")
    with sqlite_ledger(tmp_path) as opened:
        pull(opened, tmp_path / "data")
        yield opened


def test_all_rows_can_be_audited_again(ledger: Ledger, tmp_path: Path) -> None:
    """The second audit has the last word; what the first found stays."""
    cover(ledger, tmp_path / "one", flagged=[TEA])
    assert len(cover(ledger, tmp_path / "two", again=True)) == 9
    assert statuses(ledger) == {"clean": 8, "rejected": 1}
    with ledger.read() as connection:
        assert [
            connection.scalar(select(func.count()).select_from(table))
            for table in (results, rejections, flags)
        ] == [16, 2, 1]
    assert len(waiting(ledger)) == 0


def test_an_audit_that_fails_leaves_its_rows_waiting(ledger: Ledger, tmp_path: Path) -> None:
    """It is written down as interrupted."""
    with (
        pytest.raises(KeyError),
        ledger.lock("tiny"),
        open_audit(ledger, "one", NAME, ONE, tmp_path / "run"),
    ):
        raise KeyError
    assert len(waiting(ledger)) == 9
    with ledger.read() as connection:
        assert connection.scalars(select(audits.c.state)).all() == ["interrupted"]


def test_an_audit_without_new_rows_is_a_line_and_its_record(ledger: Ledger, tmp_path: Path) -> None:
    """Finished at once, owed to whom it is to be told, without a result or a run directory."""
    cover(ledger, tmp_path / "one")
    summary = {"audit_id": "two", "name": NAME, "nothing_new": True}
    with ledger.read() as connection:
        before = read_head(connection)
    head = record_nothing_new(ledger, summary, ONE, tmp_path / "two", [MLFLOW], "flow-2")
    (past,) = list_pending_audits(ledger, NAME, MLFLOW)
    assert (past.audit_id, past.state, past.flow_run) == ("two", "finished", "flow-2")
    assert past.nothing_new
    assert head.number == before.number + 1
    with ledger.read() as connection:
        record = find_audit_record(connection, "two")
        assert record is not None
        assert record.statement.predicate["counts"] == {"clean": 0, "flagged": 0, "rejected": 0}
        assert list(check_audits(connection)) == []
        held = connection.execute(select(audits.c.audit_id).where(HAD_ROWS)).scalars().all()
    assert held == ["one"]
