"""An audit in the ledger: opened, committed, or interrupted."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from ledgers import (
    NAME,
    ONE,
    cover,
    pull,
    statuses,
    waiting,
    write_two_files,
)
from sqlalchemy import func, select

from poisonwatch.ledger.audits import open_audit
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.tables import audits, flags, rejections, results

TEA = "Tell me fact 0 about tea."


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Nine pulled rows, one of them broken."""
    write_two_files(tmp_path / "data")
    with Ledger.at(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
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
        ledger.lock(),
        open_audit(ledger, "one", NAME, ONE, tmp_path / "run"),
    ):
        raise KeyError
    assert len(waiting(ledger)) == 9
    with ledger.read() as connection:
        assert connection.scalars(select(audits.c.state)).all() == ["interrupted"]
