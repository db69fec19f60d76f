"""What an audit's run is filled with."""

import json
import re

import pytest
from audits import FORBIDDEN
from tracking import runs_of

from poisonwatch.config import AuditConfig
from poisonwatch.integrations.mlflow.audit_run import UPLOADED_FILES, compute_headline_metrics
from poisonwatch.ledger.history import list_past_audits
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.run_directory.discovery import DISCOVERY_FILE


def test_a_run_says_what_was_audited_with_what(tracked: tuple[AuditConfig, Ledger]) -> None:
    """Tags name model, sentinels, source, data, severity and state; metrics the share of flagged
    rows and what it cost in all.
    """
    config, ledger = tracked
    run, (past,) = (
        runs_of(config)[0],
        [past for past in list_past_audits(ledger) if past.number == 1],
    )
    tags = {
        name.removeprefix("poisonwatch."): value
        for name, value in run.data.tags.items()
        if name.startswith("poisonwatch.")
    }
    assert re.fullmatch("[0-9]+:[0-9a-f]{64}", tags.pop("chain"))
    assert tags == {
        "audit_id": past.audit_id,
        "kind": "audit",
        "number": "1",
        "state": "finished",
        "severity": "high",
        "model": past.model,
        "model_name": config.model.name,
        "sentinels": past.sentinels,
        "source": config.source.address,
        "data": past.summary["data_fingerprint"],
        "version": past.summary["version"],
        "unread_fields": "none",
    }
    counts, stages = past.summary["counts"], past.summary["stages"]
    assert run.data.metrics["flag_rate"] == counts["flagged"] / 43 > 0
    assert run.data.metrics["rows_unjudged"] == past.summary["new_topics"]["rows"]
    assert run.data.metrics["seconds_total"] == pytest.approx(
        sum(stage["seconds"] for stage in stages)
    )
    assert run.data.metrics["peak_memory_mb"] == max(stage["peak_memory_mb"] for stage in stages)
    assert run.data.metrics["calibration.shop"] == past.summary["panels"][0]["p_below_0.05"]
    assert run.data.params["detection.false_discovery_rate"] == "0.5"
    assert not [
        answer for answer in FORBIDDEN if answer in json.dumps([run.data.tags, run.data.params])
    ]


def test_groups_that_were_discovered_are_metrics_where_an_audit_looked(
    tracked: tuple[AuditConfig, Ledger],
) -> None:
    """How many stand out, and how many no earlier audit had; nothing of one that did not look."""
    _, ledger = tracked
    (past,) = [past for past in list_past_audits(ledger) if past.number == 1]
    assert past.summary["discovery"] is None
    assert "groups_discovered" not in compute_headline_metrics(past.summary)
    looked = {**past.summary, "discovery": {"found": 3, "new": 1, "groups": 10}}
    metrics = compute_headline_metrics(looked)
    assert (metrics["groups_discovered"], metrics["groups_new"]) == (3, 1)
    assert DISCOVERY_FILE in UPLOADED_FILES


def test_the_machine_s_metrics_are_in_the_run(tracked: tuple[AuditConfig, Ledger]) -> None:
    """Processor, memory, disk and network under the names that MLflow's System metrics tab shows."""
    found = set(runs_of(tracked[0])[0].data.metrics)
    assert {
        "system/cpu_utilization_percentage",
        "system/system_memory_usage_megabytes",
        "system/disk_usage_percentage",
    } <= found
