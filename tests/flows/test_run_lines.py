"""What `watch` says of a run, in one line."""

import re
from datetime import datetime
from pathlib import Path

import pytest
from audits import write_audit
from prefect.states import Cancelled, Completed, Crashed, Failed
from servers import mlflow_store
from sqlalchemy import update
from tracking import LAX

from poisonwatch.config_file import load_config
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.run_lines import (
    describe_audit,
    describe_drill,
    describe_probes,
    format_seconds,
)
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.probes import record_probe
from poisonwatch.ledger.tables import audits

BEGAN = datetime(2026, 11, 29, 16, 0)


def test_an_audit_that_found_nothing_says_why_in_one_line(tmp_path: Path) -> None:
    """Prefect's words around an error are left out, and hostile text is inert."""
    states = {
        "failed: InputError: no \\u{1b}[31mrows": Failed(
            message="Flow run encountered an exception: InputError: no\n \x1b[31mrows"
        ),
        "crashed: its process was ended by SIGKILL": Crashed(
            message="its process was ended by SIGKILL"
        ),
        "cancelled": Cancelled(),
    }
    for what, state in states.items():
        line = describe_audit(tmp_path / "away.yaml", "a run", state, began=BEGAN, took=1.44)
        assert line == f"2026-11-29 16:00 {what}, 1.4 s"
    unknown = describe_audit(tmp_path / "away.yaml", "a run", None, began=BEGAN, took=1.44)
    assert "its end is unknown" in unknown


def test_an_audit_says_how_many_rows_were_new_and_flagged(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """By the ledger, as one flow run after the other: of 43 rows, and of nothing new."""
    file = write_audit(tmp_path, tiny_folder, tracking=mlflow_store(tmp_path), **LAX)
    config = load_config(file)
    for name in ("one", "two"):
        audit_inline(config, tmp_path / name)
    with Ledger.at(config.state) as ledger, ledger.write() as connection:
        for number, run in ((1, "first"), (2, "second")):
            of_audit = update(audits).where(audits.c.audit == number)
            connection.execute(of_audit.values(flow_run=run))
    lines = [
        describe_audit(file, run, Completed(), began=BEGAN, took=2.1) for run in ("first", "second")
    ]
    assert re.fullmatch(r"2026-11-29 16:00 43 new rows, \d+ flagged, 2\.1 s", lines[0])
    assert lines[1] == "2026-11-29 16:00 0 new rows, nothing flagged, 2.1 s"


def test_a_drill_is_done_or_says_why_not() -> None:
    """It is told apart from an audit."""
    done = describe_drill(Completed(), began=BEGAN, took=52)
    assert done == "2026-11-29 16:00 drill: done, 52 s"
    crashed = describe_drill(Crashed(message="gone"), began=BEGAN, took=52)
    assert crashed == "2026-11-29 16:00 drill: crashed: gone, 52 s"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(2.13, "2.1 s"), (9.96, "10 s"), (21.4, "21 s"), (200, "3 min 20 s"), (7200, "120 min 0 s")],
)
def test_seconds_are_as_coarse_as_they_are_long(seconds: float, words: str) -> None:
    """A tenth of one matters below ten alone."""
    assert format_seconds(seconds) == words


def test_a_look_for_checkpoints_says_what_moved_and_nothing_where_none_is_new(
    tmp_path: Path,
) -> None:
    """By the ledger; why one could not be probed, by Prefect."""
    file = write_audit(tmp_path, tmp_path, name="tiny")
    before = datetime.now().astimezone()
    assert describe_probes(file, Completed(), began=before, took=1.0) is None
    moved = {"sentinel": "a", "kind": "margin", "change": 2.0, "limit": 1.0, "moved": True}
    with Ledger.at(load_config(file).state) as ledger:
        for item, asked in (("c", [moved]), ("d", [])):
            record_probe(
                ledger,
                item,
                name="tiny",
                checkpoint=item * 64,
                model="m" * 64,
                sentinels="s" * 64,
                release=None,
                asked=asked,
            )
    line = describe_probes(file, Failed(message="OperationError: no"), began=before, took=1.0)
    assert line is not None
    assert "2 checkpoints probed, 1 moved: cccccccccccc; probe: failed: OperationError: no" in line
