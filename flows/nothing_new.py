"""An audit that no row waits for: a line in the ledger, and no more."""

from pathlib import Path
from typing import Any

from poisonwatch.config import AuditConfig
from poisonwatch.flows.engine import Engine
from poisonwatch.ledger.audits import record_nothing_new
from poisonwatch.ledger.batches import LedgerBatch
from poisonwatch.ledger.intake import IngestStats
from poisonwatch.ledger.ledger import Ledger, Version
from poisonwatch.ledger.outbox import MLFLOW, PREFECT
from poisonwatch.provenance.openlineage_owed import list_lineage_readers
from poisonwatch.reports.summary import describe_source, summarise_nothing


def list_readers(config: AuditConfig, flow_run: str | None) -> list[str]:
    """Who is to have an account of an audit: MLflow, unless its `tracking` is none, Prefect where
    it is a flow run, and an OpenLineage server where one is named.
    """
    readers = list_lineage_readers(config)
    if config.tracking is not None:
        readers.append(MLFLOW)
    if flow_run is not None:
        readers.append(PREFECT)
    return readers


def record_without_rows(
    ledger: Ledger,
    config: AuditConfig,
    engine: Engine,
    audit_id: str,
    version: Version,
    run_dir: Path,
    ingested: IngestStats,
    batch: LedgerBatch,
    flow_run: str | None,
) -> dict[str, Any]:
    """Record the audit of an empty batch, whose results would have gone to `run_dir`: its
    summary.
    """
    attempts, costs = engine.attempts, engine.clock.costs
    source = describe_source(ingested, batch.rows, unread=())
    summary = summarise_nothing(config, audit_id, version, ingested, source, costs)
    summary["chain"] = str(ledger.read_head())
    summary["failures"] = attempts.to_records()
    record_nothing_new(
        ledger, summary, version, run_dir, list_readers(config, flow_run), flow_run, attempts
    )
    return summary
