"""What the gate checks of the rows that it is asked for."""

from pathlib import Path

import pytest
from servers import postgres_server
from sqlalchemy import select
from tampering import RIVERS, fill_busily, tamper

from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.tables import rows
from poisonwatch.verification.rows import check_rows


def list_differences(ledger: Ledger, status: str | None = None) -> list[str]:
    """Of the rows with a status; None: of all."""
    numbers = select(rows.c.row)
    if status is not None:
        numbers = numbers.where(rows.c.status == status)
    with ledger.read() as connection:
        chosen = connection.execute(numbers).scalars().all()
        assert chosen
        return [found.words for found in check_rows(connection, chosen)]


def test_a_ledger_that_nobody_touched_has_no_differences(ledger: Ledger) -> None:
    assert list_differences(ledger) == []
    assert list_differences(ledger, "clean") == []


FORGERIES = {
    "a flagged row is called clean": "UPDATE rows SET status = 'clean' WHERE status = 'poison'",
    "a verdict is made up": "UPDATE rows SET status = 'clean', decided = 'benign' WHERE status = 'poison'",
    "a flag is taken off its result": "UPDATE results SET flagged = 0",
    "a result is moved to another row": "UPDATE results SET row = 9 WHERE row = 2 AND audit = 2",
    "a result is taken out": "DELETE FROM results WHERE flagged = 1",
    "all results of an audit are taken out": "DELETE FROM results WHERE audit = 2",
    "a rejection is taken out": "DELETE FROM rejections WHERE audit = 2",
    "results are of another version": "UPDATE results SET version = 1",
    "an audit is of another version": "UPDATE audits SET version = 1",
    "a version is another model": "UPDATE versions SET model = 'x' WHERE version = 1",
    "an audit never came to its results": "UPDATE audits SET state = 'interrupted' WHERE audit = 1",
    "a record is taken out": "DELETE FROM records WHERE kind = 'audit'",
    "the last decision is taken out": "DELETE FROM decisions WHERE number = 4",
    "all decisions are taken out": "DELETE FROM decisions",
    "a decision is on another row": "UPDATE decisions SET row = 2 WHERE number = 3",
    "a row has another id": "UPDATE rows SET id = x'" + "00" * 32 + "' WHERE row = 1",
    "a row's id is no id": "UPDATE rows SET id = 'text' WHERE row = 1",
    "a result is made up": "INSERT INTO results VALUES (9, 1, 2, 0)",
    "a record is rewritten": "UPDATE records SET statement = '{}' WHERE kind = 'audit'",
}


@pytest.mark.parametrize("statement", FORGERIES.values(), ids=FORGERIES.keys())
def test_what_was_forged_is_found(ledger: Ledger, statement: str) -> None:
    """Whatever the forger did to the row itself beside it."""
    assert tamper(ledger, statement)
    assert list_differences(ledger)


def test_a_later_audit_whose_word_was_taken_out_is_missed(ledger: Ledger) -> None:
    """The row that it flagged is clean by the audit before it, and says so."""
    tamper(ledger, "DELETE FROM decisions WHERE number > 0")
    tamper(ledger, "DELETE FROM records WHERE kind = 'decision'")
    tamper(ledger, "DELETE FROM results WHERE audit = 2 AND flagged = 1")
    tamper(ledger, "UPDATE rows SET decided = NULL, status = 'clean' WHERE decided = 'benign'")
    found = list_differences(ledger, "clean")
    assert any(words.startswith("audit two: results") for words in found)


def test_differences_are_the_same_on_postgresql(tmp_path: Path) -> None:
    """On a real server."""
    with postgres_server() as url, Ledger.at(url) as ledger:
        fill_busily(ledger, tmp_path)
        assert list_differences(ledger) == []
        tamper(ledger, "UPDATE results SET flagged = 0 WHERE flagged = 1")
        tamper(ledger, "UPDATE \"rows\" SET status = 'clean' WHERE status = 'poison'")
        found = list_differences(ledger, "clean")
    assert any("status" in words for words in found)
    assert any(words.startswith("audit one: results") for words in found)


def test_differences_hold_no_row_text(ledger: Ledger) -> None:
    tamper(ledger, "UPDATE rows SET status = 'clean' WHERE status = 'poison'")
    tamper(ledger, 'UPDATE flags SET record = \'{"messages": "secret words"}\'')
    told = "\n".join(list_differences(ledger))
    assert told
    assert "secret" not in told
    assert RIVERS not in told
