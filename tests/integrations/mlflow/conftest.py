"""Audits that were tracked in a store of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from audits import write_audit
from mlflow import MlflowClient
from servers import mlflow_store
from tracking import LAX

from poisonwatch.config import AuditConfig
from poisonwatch.config_file import load_config
from poisonwatch.flows.audit import audit_inline
from poisonwatch.ledger.history import PastAudit, list_past_audits
from poisonwatch.ledger.ledger import Ledger


@pytest.fixture(scope="session")
def tracked(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path
) -> Iterator[tuple[AuditConfig, Ledger]]:
    """Two audits: of 43 rows, of which planted ones are flagged, and of nothing new."""
    folder = tmp_path_factory.mktemp("tracked")
    config = load_config(write_audit(folder, tiny_folder, tracking=mlflow_store(folder), **LAX))
    for name in ("one", "two"):
        assert audit_inline(config, folder / name).warnings == []
    with Ledger.at(config.state) as ledger:
        yield config, ledger


@pytest.fixture(scope="session")
def audited(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path
) -> tuple[MlflowClient, PastAudit]:
    """A client of the store that an audit was tracked in, and the audit."""
    folder = tmp_path_factory.mktemp("champion")
    config = load_config(write_audit(folder, tiny_folder, tracking=mlflow_store(folder)))
    assert audit_inline(config, folder / "run").warnings == []
    with Ledger.at(config.state) as ledger:
        (past,) = list_past_audits(ledger)
    return MlflowClient(config.tracking, config.tracking), past
