"""Where run directories lie, and what they and their files are called."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

OPERATORS_FILE = "operators.safetensors"  # of `operators`
SETTINGS_FILE = "config.yaml"
# What answers are explained by: the operators, the settings, and which rows they are.
EXPLAINING_FILES = (OPERATORS_FILE, SETTINGS_FILE, "scores.parquet")
# Written last by an audit, and by a drill: a folder with one of them is a run directory.
CONCLUDING_FILES = ("summary.json", "drill.json")


def make_audit_id() -> str:
    """A name that sorts by time and never comes twice."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid4().hex[:6]}"


def choose_run_dir(config: Path, kind: str = "") -> Path:
    """A run directory that nobody named: below `runs`, beside the audit file."""
    return config.resolve().parent / "runs" / f"{kind}{make_audit_id()}"
