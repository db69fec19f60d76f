"""What the chain says of an audit can be computed by whoever has the rows, and stays the same."""

import hashlib
from pathlib import Path

import pytest
from ledgers import NAME, ONE, covered_ledger, examples_of
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from tampering import TEA, LostSigner, tamper

from poisonwatch.failures import Attempts
from poisonwatch.ledger.audit_records import (
    RUN_DIRECTORY,
    append_audit_record,
    describe_audit,
    digest_summary,
    find_audit_record,
)
from poisonwatch.ledger.audits import commit_audit, open_audit
from poisonwatch.ledger.batches import load_current_batch
from poisonwatch.ledger.chain_tables import signatures
from poisonwatch.ledger.history import mark_audit_delivered
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import MLFLOW
from poisonwatch.ledger.records import read_head


def describe(ledger: Ledger) -> dict[str, str]:
    with ledger.read() as connection:
        return describe_audit(connection, 1).subjects


def test_results_are_digested_by_ids_alone(tmp_path: Path) -> None:
    """Each id, ascending, and whether it was flagged: nothing that only this ledger has."""
    with covered_ledger(tmp_path, TEA) as ledger:
        examples = examples_of(load_current_batch(ledger, NAME))
        outcomes = {}
        for prompt, example in examples.items():
            outcomes[bytes.fromhex(example.id)] = b"f" if prompt == TEA else b"c"
        expected = hashlib.sha256()
        for id, outcome in sorted(outcomes.items()):
            expected.update(id + outcome)
        assert describe(ledger)["results"] == expected.hexdigest()
        with ledger.read() as connection:
            record = find_audit_record(connection, "run")
    assert record is not None
    assert record.statement.subjects["results"] == expected.hexdigest()
    assert record.statement.predicate["counts"] == {"clean": 7, "flagged": 1, "rejected": 1}


def test_an_account_in_mlflow_changes_no_digest(tmp_path: Path) -> None:
    """The ids of its run come later than the record; anything else in the summary is in it."""
    with covered_ledger(tmp_path, TEA) as ledger:
        before = describe(ledger)
        added = {"mlflow_run_id": "1" * 32, "mlflow_experiment_id": "7"}
        mark_audit_delivered(ledger, 1, MLFLOW, added)
        assert describe(ledger) == before
        mark_audit_delivered(ledger, 1, MLFLOW, {"flagged": 0})
        assert describe(ledger)["summary"] != before["summary"]
    assert digest_summary(None) == digest_summary("{}")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE results SET flagged = 0",
        "UPDATE results SET flagged = 2 WHERE flagged = 1",
        "UPDATE flags SET q = 0.5",
        "UPDATE rejections SET expectation = 'none'",
    ],
)
def test_each_value_is_in_a_digest(tmp_path: Path, statement: str) -> None:
    with covered_ledger(tmp_path, TEA) as ledger:
        before = describe(ledger)
        assert tamper(ledger, statement)
        after = describe(ledger)
    assert sum(before[name] != after[name] for name in before) == 1


def test_an_audit_that_cannot_be_signed_is_committed_and_told(tmp_path: Path) -> None:
    """Its record is in the chain without a signature."""
    with covered_ledger(tmp_path, TEA) as ledger:
        ledger.signer = LostSigner()
        attempts = Attempts()
        with open_audit(ledger, "two", NAME, ONE, tmp_path / "two") as number:
            batch = load_current_batch(ledger, NAME)
            head = commit_audit(
                ledger,
                number,
                batch,
                examples=list(examples_of(batch).values()),
                rejected=[],
                flagged=[],
                checks="",
                summary={},
                seal="5" * 64,
                attempts=attempts,
            )
        with ledger.read() as connection:
            record = find_audit_record(connection, "two")
            assert connection.execute(select(signatures)).all() == []
    assert record is not None
    assert (record.number, record.hash) == head
    assert record.statement.subjects[RUN_DIRECTORY] == "5" * 64
    assert [failure.outcome for failure in attempts.failures] == ["not signed"]


def record_twice(ledger: Ledger) -> None:
    """Append a record, and fail after it."""
    with ledger.write() as connection:
        append_audit_record(connection, 1, None, None, Attempts())
        connection.exec_driver_sql("INSERT INTO versions (version) VALUES (1)")


def test_an_audit_is_recorded_within_its_transaction(tmp_path: Path) -> None:
    """What fails after it takes the record back."""
    with covered_ledger(tmp_path, TEA) as ledger:
        with ledger.read() as connection:
            before = read_head(connection)
        with pytest.raises(IntegrityError):
            record_twice(ledger)
        with ledger.read() as connection:
            assert read_head(connection) == before
