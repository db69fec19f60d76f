"""Run directories: their names, how they come to be whole or not at all, and their JSON Lines."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

OPERATORS_FILE = "operators.safetensors"  # written by `saved`


def make_audit_id() -> str:
    """A name that sorts by time and never comes twice."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid4().hex[:6]}"


def choose_run_dir(config: Path, kind: str = "") -> Path:
    """A run directory that nobody named: below `runs`, beside the audit file."""
    return config.resolve().parent / "runs" / f"{kind}{make_audit_id()}"
