"""Where people find what an audit left."""

import os
from pathlib import Path

from poisonwatch.config import AuditConfig
from poisonwatch.text.addresses import HIDDEN, parse_address, show_address


def locate_report(run_dir: Path) -> Path:
    """An audit's report."""
    return run_dir / "report.html"


def find_mlflow_ui(config: AuditConfig) -> str | None:
    """The address of MLflow's pages, without a slash at its end: `mlflow_ui`, or a tracking
    server's own; None where neither is known.

    An address that holds a password or a variable of the environment is not passed on.
    """
    return _clean_address(config.mlflow_ui or config.tracking or "")


def make_dashboard_url(config: AuditConfig, audit_id: str) -> str | None:
    """The page of an audit in the dashboard; None where its address is not known, or is none to
    pass on.
    """
    base = _clean_address(config.dashboard or "")
    if base is None:
        return None
    return f"{base}/audits/{audit_id}"


def make_group_url(config: AuditConfig, audit_id: str, key: str) -> str | None:
    """The page of a group of flagged rows in the dashboard, by its number in the audit, or the
    digits of the one row (`FlaggedGroup.key`); None as `make_dashboard_url`.
    """
    base = _clean_address(config.dashboard or "")
    if base is None:
        return None
    return f"{base}/triage/{audit_id}/{key}"


def make_mlflow_run_url(
    config: AuditConfig, experiment_id: str | None, run_id: str | None
) -> str | None:
    """The page of a run; None where MLflow's address, or the run, is not known."""
    base = find_mlflow_ui(config)
    if base is None or experiment_id is None or run_id is None:
        return None
    return f"{base}/#/experiments/{experiment_id}/runs/{run_id}"


def make_prefect_run_url(flow_run: str | None) -> str | None:
    """The page of a flow run, on the server that PREFECT_UI_URL or PREFECT_API_URL names; None
    where neither does.
    """
    # An API's address is also its pages', but for the /api at its end.
    api = os.environ.get("PREFECT_API_URL", "").rstrip("/").removesuffix("/api")
    base = _clean_address(os.environ.get("PREFECT_UI_URL") or api)
    if base is None or flow_run is None:
        return None
    return f"{base}/runs/flow-run/{flow_run}"


def _clean_address(address: str) -> str | None:
    # MLflow's tracking may be a folder or a database: neither opens in a browser. What holds a
    # password, or will once a variable is filled in, must not go into a report or a message.
    if not address.startswith(("http://", "https://")) or "${" in address:
        return None
    parsed = parse_address(address, of_server=True)
    if parsed is None or parsed.names_user or "@" in address:
        return None
    shown = show_address(parsed)
    # Of a page behind a web hook's address, or a host that is none, nothing is left to open.
    if HIDDEN in shown:
        return None
    return shown.rstrip("/")
