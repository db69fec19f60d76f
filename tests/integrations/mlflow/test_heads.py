"""MLflow remembers how long the ledger was."""

from pathlib import Path

import pytest
from audits import benign, write_audit
from ledgers import append
from servers import mlflow_store
from tampering import tamper
from tracking import client_of, owe, runs_of

from poisonwatch.config import AuditConfig
from poisonwatch.config_file import load_config
from poisonwatch.errors import OperationError
from poisonwatch.flows.audit import audit_inline
from poisonwatch.integrations.mlflow.heads import CHAIN, check_heads
from poisonwatch.integrations.mlflow.owed import upload_owed
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.records import ChainHead, find_record, read_head


def check(config: AuditConfig) -> tuple[int, list[str]]:
    with Ledger.at(config.state) as ledger:
        count, differences = check_heads(ledger, config)
    return count, [difference.words for difference in differences]


def test_runs_are_witnesses_of_a_ledger_that_is_cut_off(tiny_folder: Path, tmp_path: Path) -> None:
    """Each holds a head with its own audit's record before it, and keeps it; one that somebody
    changed is named, too.
    """
    config = load_config(
        write_audit(tmp_path, tiny_folder, rows=benign(12), tracking=mlflow_store(tmp_path))
    )
    assert check(config) == (0, [])
    outcome = audit_inline(config, tmp_path / "one")
    append(tmp_path / "rows.jsonl", benign(1, start=500))
    audit_inline(config, tmp_path / "two")
    first, second = runs_of(config)
    heads = [ChainHead.parse(run.data.tags[CHAIN]) for run in (first, second)]
    with Ledger.at(config.state) as ledger:
        with ledger.read() as connection:
            assert heads[1] == read_head(connection)
            record = find_record(connection, "audit", outcome.summary["audit_id"])
            assert record is not None
            told = ChainHead.parse(outcome.summary["chain"])
            assert heads[0] == (record.number, record.hash)
            assert told.number == record.number - 1
        assert check(config) == (2, [])
        tamper(ledger, f"DELETE FROM records WHERE number >= {heads[1].number}")
        owe(ledger)
        upload_owed(ledger, config)
    count, lines = check(config)
    assert count == 2
    (line,) = lines
    assert second.info.run_id in line
    assert str(heads[1])[:20] in line
    client_of(config).set_tag(first.info.run_id, CHAIN, "no head")
    assert len(check(config)[1]) == 2


def test_a_server_that_is_down_is_an_error(tiny_folder: Path, tmp_path: Path) -> None:
    """Nobody takes silence for a witness."""
    (tmp_path / "notes.txt").write_text("no database")
    config = load_config(write_audit(tmp_path, tiny_folder, tracking="sqlite:///notes.txt"))
    with pytest.raises(OperationError, match=r"MLflow at .* cannot be used"):
        check(config)
