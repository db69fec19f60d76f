"""What was discovered after an audit goes beside its run, whenever the server takes it."""

import json
from pathlib import Path

from audits import write_audit
from servers import free_port, mlflow_store
from tracking import client_of, held, owe, runs_of

from poisonwatch.config_file import load_config
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.bars import Bars
from poisonwatch.flows.discover import Inquiry, discover_inline
from poisonwatch.integrations.mlflow.owed import upload_owed
from poisonwatch.ledger.findings import list_owed_findings, owe_finding
from poisonwatch.ledger.history import list_past_audits
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.owed import list_owed
from poisonwatch.run_directory.discovery import get_later_path

LATER = "later/discovery.json"


def test_what_is_discovered_later_is_owed_until_the_server_has_it(
    tmp_path: Path, tiny_folder: Path
) -> None:
    """Numbers, and the file, as the audit's own; the trend has them; what is sent twice is there
    once. What is recorded nowhere is owed to nobody.
    """
    config = load_config(write_audit(tmp_path, tiny_folder, tracking=mlflow_store(tmp_path)))
    audit_inline(config, tmp_path / "runs" / "one")
    down = config.model_copy(update={"tracking": f"http://127.0.0.1:{free_port()}"})
    with Ledger.at(config.state) as ledger:
        (past,) = list_past_audits(ledger)
        look = Inquiry(say=0, again=True)
        assert not owe_finding(ledger, past.number + 1)
        found = discover_inline(down, past, ledger, look, Bars(quiet=True))
        (warning,) = found.warnings
        assert "owed to MLflow" in warning
        with ledger.read() as connection:
            (owed,) = list_owed(connection, config.name, [])
        assert (owed.kind, owed.target, owed.attempts) == ("finding", "mlflow", 1)
        # the audit's own account is first
        owe(ledger)
        assert list_owed_findings(ledger, config.name) == []
        assert upload_owed(ledger, config) == 1
        assert list_owed_findings(ledger, config.name) == []
        (run,) = runs_of(config)
        assert run.data.metrics["groups_discovered"] == len(found.report.leading)
        client = client_of(config)
        written = json.loads(Path(client.download_artifacts(run.info.run_id, LATER)).read_text())
        assert written == json.loads(get_later_path(past.run_dir).read_text())
        before = held(config)
        assert owe_finding(ledger, past.number)
        assert [each.number for each in list_owed_findings(ledger, config.name)] == [past.number]
        upload_owed(ledger, config)
        assert list_owed_findings(ledger, config.name) == []
        assert held(config) == before
        (trend,) = runs_of(config, "trend")
        (point,) = client.get_metric_history(trend.info.run_id, "groups_new")
        assert point.step == past.number
