"""kill -9 before and inside every stage that leaves something behind: the next audit finishes, and no
row is lost or audited twice.
"""

import json
import os
import signal
import sys
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from audits import benign, planted, write_audit
from ledgers import append
from slow_tests import slow
from sqlalchemy import select

from poisonwatch.config_file import load_config
from poisonwatch.flows import audit as audit_flow
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.engine import Engine
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.tables import audits, files, places, results, rows

# Stages that leave something behind. The others do not: a kill within them is one before the next of
# these.
STAGES = (
    "pull",
    "open_run",
    "fit_operators",
    "recover",
    "gather_evidence",
    "record",
    "explain_verdicts",
    "track",
)
POINTS = [
    *(("inside", stage) for stage in STAGES),
    ("after", "commit"),
    ("after", "rename"),
    ("before", "deliver"),
    # What is there before a stage is what the one before it has left: it is inside that one, at
    # its end.
    *(pytest.param("before", stage, marks=slow) for stage in STAGES),
]
# of our own functions within a stage, then it is killed; at its end, where it takes fewer: before
# the next one
CALLS = 25


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def audit_killed_at(config: Path, run_dir: Path, when: str, what: str) -> None:
    """Run an audit in a child process that kills itself at a point; it must have come to it."""
    child = os.fork()
    if child == 0:
        try:
            _arm(run_dir, when, what)
            audit_inline(load_config(config), run_dir)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"the audit did not come to {when} {what}"
    assert os.WTERMSIG(status) == signal.SIGKILL


def _arm(run_dir: Path, when: str, what: str) -> None:
    call, commit, rename = Engine.__call__, audit_flow.commit_audit, Path.rename

    def stage(self: Engine, task: Any, *args: Any) -> Any:
        if task.name != what:
            return call(self, task, *args)
        if when == "inside":
            _die_after(CALLS)
        else:
            die()
        result = call(self, task, *args)
        die()  # it took fewer calls
        return result

    def committed(*args: Any, **settings: Any) -> None:
        commit(*args, **settings)
        if what == "commit":
            die()

    def renamed(self: Path, target: Any) -> Any:
        result = rename(self, target)
        if what == "rename" and Path(target) == run_dir:
            die()
        return result

    Engine.__call__ = stage  # type: ignore[method-assign]
    audit_flow.commit_audit = committed
    Path.rename = renamed  # type: ignore[method-assign]


def _die_after(calls: int) -> None:
    met = 0

    def trace(frame: Any, event: str, _: Any) -> None:
        nonlocal met
        met += "poisonwatch" in frame.f_code.co_filename
        if met >= calls:
            die()

    sys.settrace(trace)


def check_ledger(folder: Path, name: str = "tiny") -> None:
    """Every row of the source has one result; what the ledger says of an audit is what its run
    directory holds.
    """
    with Ledger.at(f"sqlite:///{folder / 'poisonwatch.db'}") as ledger, ledger.read() as connection:
        covered = Counter(connection.execute(select(results.c.row)).scalars())
        known = set(connection.execute(select(rows.c.row)).scalars())
        states = connection.execute(select(audits)).all()
        placed = connection.execute(
            select(files.c.name, places.c.position).join(places, places.c.file == files.c.file)
        ).all()
        of_audit = {
            audit.audit_id: {bytes(id).hex() for id in connection.execute(
                select(rows.c.id).join(results, results.c.row == rows.c.row).where(results.c.audit == audit.audit)).scalars()}
            for audit in states
        }  # fmt: skip
    assert set(covered) == known
    assert set(covered.values()) == {1}
    lines = (folder / "rows.jsonl").read_text().splitlines()
    assert sorted(placed) == [("rows.jsonl", i) for i in range(len(lines))]
    for audit in states:
        assert audit.state in ("finished", "interrupted")
        assert (audit.state == "finished") == Path(audit.run_dir).is_dir()
        assert not Path(f"{audit.run_dir}.part").exists()
        if audit.state == "finished":
            scores = pd.read_parquet(Path(audit.run_dir) / "scores.parquet")
            assert set(scores["example_id"]) == of_audit[audit.audit_id]
            assert (
                json.loads((Path(audit.run_dir) / "summary.json").read_text())["audit_id"]
                == audit.audit_id
            )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """An audit of 12 rows with many flags, so that every stage has work; one new row waits for each
    test.
    """
    folder = tmp_path_factory.mktemp("crashes")
    config = write_audit(
        folder, tiny_folder, rows=benign(9) + planted(), detection={"false_discovery_rate": 0.9}
    )
    audit_inline(load_config(config), folder / "runs" / "first")
    return folder


@pytest.mark.parametrize(("when", "what"), POINTS)
def test_the_next_audit_completes_what_a_killed_one_left(
    folder: Path, when: str, what: str
) -> None:
    """One new row, an audit that dies, and one that does not."""
    # A row of its own: what earlier tests appended is audited.
    number = 1000 + zlib.crc32(f"{when} {what}".encode())
    append(folder / "rows.jsonl", benign(1, start=number))
    audit_killed_at(folder / "audit.yaml", folder / "runs" / f"{when}-{what}-killed", when, what)
    audit_inline(load_config(folder / "audit.yaml"), folder / "runs" / f"{when}-{what}-next")
    check_ledger(folder)


def test_two_audits_at_once_share_the_rows_without_a_row_twice(folder: Path) -> None:
    """Two processes on one ledger and source: one waits, then finds nothing left."""
    append(folder / "rows.jsonl", benign(3, start=2000))
    children = []
    for name in ("one", "other"):
        child = os.fork()
        if child == 0:
            try:
                audit_inline(load_config(folder / "audit.yaml"), folder / "runs" / name)
            finally:
                os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    summaries = [
        json.loads((folder / "runs" / name / "summary.json").read_text())
        for name in ("one", "other")
    ]
    assert sorted(summary["counts"]["new"] for summary in summaries) == [0, 3]
    check_ledger(folder)
