"""A ledger that begins anew beside earlier audits is told of."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ledgers import sqlite_ledger

from poisonwatch.flows.lost_ledger import describe_lost_ledger
from poisonwatch.ledger.audits import open_audit
from poisonwatch.ledger.ledger import Ledger, Version

SETTINGS = {"name": "shop", "source": "rows.jsonl", "sentinels": "pack:insult"}


def leave_run(runs: Path, day: str, **settings: str) -> Path:
    """What tells a run directory: its settings, and its summary."""
    folder = runs / day
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({**SETTINGS, **settings}))
    (folder / "summary.json").write_text("{}")
    return folder


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with sqlite_ledger(tmp_path) as opened:
        yield opened


def test_a_new_ledger_beside_audits_of_the_name_is_told(ledger: Ledger, tmp_path: Path) -> None:
    """With the last of them, and what to do."""
    runs = tmp_path / "runs"
    for day in ("20260101-a", "20260102-b"):
        leave_run(runs, day)
    leave_run(runs, "20260103-c", name="another")
    said = describe_lost_ledger(ledger, "shop", runs)
    assert said is not None
    assert "holds 2 audits of 'shop', the last of them 20260102-b" in said
    assert "put its backup back" in said


def test_what_is_no_run_directory_says_nothing(ledger: Ledger, tmp_path: Path) -> None:
    """Nor do settings that cannot be read, or a folder that is not there."""
    runs = tmp_path / "runs"
    assert describe_lost_ledger(ledger, "shop", runs) is None
    (leave_run(runs, "a") / "config.yaml").write_text("{")
    (leave_run(runs, "b") / "summary.json").unlink()
    (leave_run(runs, "c") / "config.yaml").unlink()
    assert describe_lost_ledger(ledger, "shop", runs) is None


def test_a_ledger_that_knows_of_an_audit_is_none_that_was_lost(
    ledger: Ledger, tmp_path: Path
) -> None:
    """Whosever audit it is."""
    runs = tmp_path / "runs"
    leave_run(runs, "a")
    with open_audit(ledger, "b", "another", Version("0" * 64, "0"), runs / "b"):
        assert describe_lost_ledger(ledger, "shop", runs) is None
