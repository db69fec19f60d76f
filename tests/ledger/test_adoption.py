"""What is older than the chain of records is in it once the ledger is opened, and stays as it is."""

from pathlib import Path

import pytest
from older_ledgers import make_older_ledger, split_statements
from servers import postgres_server
from sqlalchemy import insert, select

from poisonwatch.ledger.audit_records import ADOPTED_NOTE, describe_audit, find_audit_record
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.records import find_record, read_records, verify_records
from poisonwatch.ledger.row_states import read_row_states
from poisonwatch.ledger.tables import rejections, results, rows, versions

ROWS_OF_0006 = """
    INSERT INTO versions (version, model, sentinels, reading)
        VALUES (1, 'model', 'sentinels', NULL), (2, 'model', 'sentinels', 'reading')
    INSERT INTO audits (audit, audit_id, name, version, state, started_at, run_dir)
        VALUES (1, 'one', 'tiny', 1, 'finished', 'a', '/runs/one'),
        (2, 'two', 'tiny', 2, 'committed', 'b', '/runs/two'),
        (3, 'three', 'tiny', 2, 'interrupted', 'c', '/runs/three')
    INSERT INTO shapes (shape, digest, format) VALUES (1, '', 'null')
    INSERT INTO rows (row, id, raw, digest, shape, status, decided, first_seen)
        VALUES (1, BYTES('1'), BYTES('x'), BYTES('d'), 1, 'flagged', NULL, ''),
        (2, BYTES('2'), BYTES('x'), BYTES('d'), 1, 'released', NULL, ''),
        (3, BYTES('3'), BYTES('x'), BYTES('d'), 1, 'rejected', NULL, ''),
        (4, BYTES('4'), BYTES('x'), BYTES('d'), 1, 'rejected', NULL, '')
    INSERT INTO results (row, version, audit, flagged)
        VALUES (1, 1, 1, 0), (1, 2, 2, 1), (2, 1, 1, 0)
    INSERT INTO rejections (row, checks, audit, expectation, reason)
        VALUES (3, 'checks', 1, 'readable', 'no JSON')
    INSERT INTO flags (audit, row, panel, sentinel, severity, score, q, record)
        VALUES (2, 1, 'shop', 'shop-1', 'high', 9.5, 0.001, '{}')
    INSERT INTO decisions
        VALUES (1, 4, '34', 'unsure', '', 'ann', 'c', 'none', 'the hash')
"""


def fill(url: str) -> None:
    bytes_of = "CAST({} AS BLOB)" if url.startswith("sqlite") else "{}::bytea"
    text = ROWS_OF_0006
    for letter in "1234xd":
        text = text.replace(f"BYTES('{letter}')", bytes_of.format(f"'{letter}'"))
    make_older_ledger(url, "0006", split_statements(text))


def check_adoption(url: str) -> None:
    fill(url)
    for _ in range(2):
        with Ledger.at(url) as ledger, ledger.read() as connection:
            made = list(read_records(connection))
            assert verify_records(connection) == []
            assert [(record.kind, record.item) for record in made] == [
                ("adopted", "audit one"),
                ("adopted", "audit two"),
                ("adopted", "decisions"),
            ]
            for record in made:
                assert record.statement.predicate["note"] == ADOPTED_NOTE
            assert made[2].statement.predicate["decisions"] == {"number": 1, "hash": "the hash"}
            for audit, name in ((1, "one"), (2, "two")):
                adopted = find_audit_record(connection, name)
                assert adopted is not None
                assert adopted.statement.subjects == describe_audit(connection, audit).subjects
            assert made[0].statement.predicate["counts"] == {
                "clean": 2,
                "flagged": 0,
                "rejected": 1,
            }
            assert made[1].statement.predicate["version"]["reading"] == "reading"
            assert find_record(connection, "adopted", "audit three") is None
            assert all(state.is_right for state in read_row_states(connection))
            # A row that nobody rejected, once its verdict was taken back, is not audited yet.
            statuses = select(rows.c.status).order_by(rows.c.row)
            assert connection.execute(statuses).scalars().all() == [
                "flagged",
                "released",
                "rejected",
                "pending",
            ]
            assert connection.execute(select(versions.c.settings)).scalars().all() == [None, None]
    with Ledger.at(url) as ledger, ledger.write() as connection:
        # One more audit of the same rows, under the same version and settings.
        again = {"row": 1, "version": 1, "audit": 2, "flagged": 0}
        connection.execute(insert(results).values(again))
        refused = {"row": 3, "checks": "checks", "audit": 2, "expectation": "", "reason": ""}
        connection.execute(insert(rejections).values(refused))


def test_a_ledger_from_before_the_chain_is_adopted(tmp_path: Path) -> None:
    """One record for each audit with results, and one for the decisions; opened again, no more."""
    check_adoption(f"sqlite:///{tmp_path / 'ledger.db'}")


def test_a_ledger_from_before_the_chain_is_adopted_on_postgresql() -> None:
    """On a real server."""
    with postgres_server() as url:
        check_adoption(url)


def test_a_new_ledger_adopts_nothing(tmp_path: Path) -> None:
    with Ledger.at(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger, ledger.read() as connection:
        assert list(read_records(connection)) == []


@pytest.mark.parametrize("statement", ["UPDATE flags SET score = 1", "DELETE FROM rejections"])
def test_what_is_adopted_may_not_change_either(tmp_path: Path, statement: str) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    fill(url)
    with Ledger.at(url) as ledger:
        with ledger.write() as connection:
            connection.exec_driver_sql(statement)
        with ledger.read() as connection:
            differ = []
            for audit, name in ((1, "one"), (2, "two")):
                adopted = find_audit_record(connection, name)
                assert adopted is not None
                said = describe_audit(connection, audit).subjects
                differ.append(adopted.statement.subjects != said)
    assert sum(differ) == 1
