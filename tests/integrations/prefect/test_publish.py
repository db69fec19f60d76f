"""Audits come to a real Prefect server once, also later, and a server that is down is said."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from audits import benign
from ledgers import NAME, ONE, covered_ledger
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect_servers import prefect_server
from servers import free_port

from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError
from poisonwatch.integrations.prefect.publish import publish_pending
from poisonwatch.ledger.audits import commit_audit, open_audit
from poisonwatch.ledger.batches import load_current_batch
from poisonwatch.ledger.history import list_pending_audits
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import PREFECT
from poisonwatch.tasks.publishing import publish

CONFIG = AuditConfig(name=NAME, source={"path": "x"}, sentinels=["y"])
SUMMARY = {
    "counts": {"new": 2, "flagged": 0, "rejected": 0},
    "panels": [{"name": "shop", "flagged": 0, "largest_score": 1.0}],
    "mlflow_run_id": None,
}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Two audits owe Prefect an account: one that came to its results, one that was cut short."""
    with covered_ledger(tmp_path, benign(1)[0]["prompt"]) as opened:
        run_dir = tmp_path / "whole"
        with (
            opened.lock("tiny"),
            open_audit(opened, "whole", NAME, ONE, run_dir, report_to=(PREFECT,)) as number,
        ):
            commit_audit(
                opened,
                number,
                load_current_batch(opened, NAME),
                examples=[],
                rejected=[],
                flagged=[],
                checks="",
                summary=SUMMARY,
            )
        with (
            suppress(RuntimeError),
            open_audit(opened, "cut", NAME, ONE, tmp_path / "cut", report_to=(PREFECT,)),
        ):
            raise RuntimeError
        yield opened


def test_an_audit_is_shown_once_and_one_without_results_not_at_all(ledger: Ledger) -> None:
    """Both are settled."""
    with prefect_server():

        @flow
        def publish_twice() -> tuple[int, int]:
            return publish(ledger, CONFIG), publish(ledger, CONFIG)

        assert publish_twice() == (2, 0)
        with get_client(sync_client=True) as client:
            found = client.request("POST", "/artifacts/filter", json={}).json()
    assert sorted(artifact["key"] for artifact in found) == ["audit-tiny", "flags-tiny"]
    assert list_pending_audits(ledger, NAME, PREFECT) == []


# In an audit this happens in a task; here the server alone matters.
@pytest.mark.filterwarnings("ignore:Artifact creation outside of a flow:FutureWarning")
def test_where_no_server_answers_it_stays_owed(ledger: Ledger) -> None:
    """In one line; the audit that was cut short waits behind the first."""
    with (
        temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}),
        pytest.raises(OperationError, match="the Prefect server did not take the audit's"),
    ):
        publish_pending(ledger, CONFIG)
    assert len(list_pending_audits(ledger, NAME, PREFECT)) == 2
