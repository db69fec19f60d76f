"""Where run directories lie, and what they and their files are called."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

RUNS_FOLDER = "runs"  # beside the audit file
OPERATORS_FILE = "operators.safetensors"  # of `operators`
SETTINGS_FILE = "config.yaml"
# What answers are explained by: the operators, the settings, and which rows they are.
EXPLAINING_FILES = (OPERATORS_FILE, SETTINGS_FILE, "scores.parquet")
SUMMARY_FILE, DRILL_FILE = "summary.json", "drill.json"
# Written last by an audit, and by a drill: a folder with one of them is a run directory.
CONCLUDING_FILES = (SUMMARY_FILE, DRILL_FILE)
MAX_SUMMARY_BYTES = 64 << 20


def make_audit_id() -> str:
    """A name that sorts by time and never comes twice."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid4().hex[:6]}"


def choose_run_dir(config: Path, kind: str = "") -> Path:
    """A run directory that nobody named: below `runs`, beside the audit file."""
    return config.resolve().parent / RUNS_FOLDER / f"{kind}{make_audit_id()}"


def read_summary(run_dir: Path, name: str = SUMMARY_FILE) -> dict[str, Any] | None:
    """A run directory's summary (or a drill's report), unchecked; None where it has none that can
    be read.
    """
    path = run_dir / name
    try:
        if not path.is_file() or path.stat().st_size > MAX_SUMMARY_BYTES:
            return None
        summary = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return summary if isinstance(summary, dict) else None
