"""Audits of made-up rows, and drills, that left run directories as real ones do: sealed, those of
audits with operators.
"""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from audits import benign
from ledgers import CHECKS, NAME, ONE, append, examples_of, flag, pull, waiting

from poisonwatch.keep_config import KeepConfig
from poisonwatch.ledger.audits import commit_audit, open_audit, record_nothing_new
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.run_directory.checksums import write_checksums
from poisonwatch.run_directory.layout import (
    DRILL_FILE,
    OPERATORS_FILE,
    RUNS_FOLDER,
    SETTINGS_FILE,
    SUMMARY_FILE,
)

SIZE = 1000  # bytes of operators
LAST_ONE = KeepConfig(days=0, audits=1, operators=1)


def leave(
    ledger: Ledger,
    folder: Path,
    audit_id: str,
    flagged: bool = False,
    owed: Collection[str] = (),
    settings: str = "",
) -> Path:
    """An audit of two rows that no other has, one of which it may flag: its run directory."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    path = data / "rows.jsonl"
    start = len(path.read_text().splitlines()) if path.exists() else 0
    append(path, benign(2, start=start))
    pull(ledger, data)
    run_dir = folder / "runs" / audit_id
    with (
        ledger.lock(NAME),
        open_audit(ledger, audit_id, NAME, ONE, run_dir, report_to=list(owed)) as number,
    ):
        batch = waiting(ledger)
        examples = list(examples_of(batch).values())
        summary = {
            "audit_id": audit_id,
            "name": NAME,
            "created": "2026-01-01T00:00:00+00:00",
            "counts": {"pulled": 2, "new": 2, "flagged": int(flagged), "rejected": 0},
            "panels": [],
            "stages": [],
        }
        run_dir.mkdir(parents=True)
        (run_dir / SUMMARY_FILE).write_text(json.dumps(summary))
        (run_dir / SETTINGS_FILE).write_text(settings)
        (run_dir / OPERATORS_FILE).write_bytes(b"o" * SIZE)
        commit_audit(
            ledger,
            number,
            batch,
            examples=examples,
            rejected=[],
            flagged=[flag(examples[0])] if flagged else [],
            checks=CHECKS,
            summary=summary,
            seal=write_checksums(run_dir),
        )
    return run_dir


def leave_line(
    ledger: Ledger,
    folder: Path,
    audit_id: str,
    name: str = NAME,
    owed: Sequence[str] = (),
) -> Path:
    """An audit without new rows: where its run directory would be."""
    run_dir = folder / "runs" / audit_id
    summary = {
        "audit_id": audit_id,
        "name": name,
        "counts": {"pulled": 0, "new": 0, "flagged": 0, "rejected": 0},
        "panels": [],
        "stages": [],
        "nothing_new": True,
    }
    with ledger.lock(name):
        record_nothing_new(ledger, summary, ONE, run_dir, owed)
    return run_dir


def leave_drill(folder: Path, drill_id: str, created: str, name: str = NAME) -> Path:
    """A drill that began then, an ISO time: its run directory."""
    run_dir = folder / RUNS_FOLDER / f"drill-{drill_id}"
    run_dir.mkdir(parents=True)
    report = {"drill_id": drill_id, "name": name, "created": created}
    (run_dir / SETTINGS_FILE).write_text("seed: 7\n")
    (run_dir / DRILL_FILE).write_text(json.dumps(report))
    write_checksums(run_dir)
    return run_dir
