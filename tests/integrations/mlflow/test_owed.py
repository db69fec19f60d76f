"""Where MLflow is owed nothing, it is not asked."""

from pathlib import Path

from audits import write_audit
from ledgers import sqlite_ledger

from poisonwatch.config_file import load_config
from poisonwatch.integrations.mlflow.owed import queue_undecided, take_answers, upload_owed


def test_nothing_owed_needs_no_server(tmp_path: Path) -> None:
    """Nobody is at the address."""
    config = load_config(write_audit(tmp_path, tmp_path, tracking="http://127.0.0.1:9"))
    with sqlite_ledger(tmp_path) as ledger:
        assert upload_owed(ledger, config) == 0
        assert queue_undecided(ledger, config) == 0
        assert take_answers(ledger, config) == 0
