"""`tracking: none`: an audit that nothing of goes to MLflow."""

from pathlib import Path

import pytest
from audits import write_audit

from poisonwatch.config_file import load_config
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.cli.app import main
from poisonwatch.ledger.history import list_pending_audits
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import MLFLOW


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return int(end.value.code or 0)


def test_nothing_goes_to_mlflow_and_nothing_is_owed(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands that look at MLflow do without, and make no store."""
    config = write_audit(tmp_path, tiny_folder, tracking="none")
    (tmp_path / "mlflow.db").unlink(missing_ok=True)
    settings = load_config(config)
    assert settings.tracking is None
    outcome = audit_inline(settings, tmp_path / "run")
    assert outcome.warnings == []
    assert outcome.summary["counts"]["flagged"] >= 3
    with Ledger.existing(settings.state) as ledger:
        assert list_pending_audits(ledger, "tiny", MLFLOW) == []
    assert load_config(tmp_path / "run" / "config.yaml").tracking is None
    assert run("history", str(config)) == 0
    assert run("sync", str(config)) == 0
    assert run("verify", str(config)) == 0
    assert run("prune", str(config)) == 0
    assert run("upgrade", str(config), "--check") == 0
    run("status", str(config))
    told = capsys.readouterr()
    assert "Traceback" not in told.out + told.err
    assert not (tmp_path / "mlflow.db").exists()
