"""A prune that is killed, at any write, is completed by the next."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from killing import kill_before_each_write
from ledgers import NAME
from prunable import leave, leave_drill
from servers import postgres_server
from slow_tests import slow
from tampering import tamper, verify

from poisonwatch.config_file import load_config
from poisonwatch.flows.prune import prune
from poisonwatch.flows.reporter import Reporter
from poisonwatch.ledger import locks
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.prunings import PRUNED
from poisonwatch.ledger.records import read_records
from poisonwatch.run_directory.discovery import get_later_path
from poisonwatch.run_directory.layout import OPERATORS_FILE

Kept = tuple[Path, Callable[[], None]]
KEEP = {"days": 0, "audits": 2, "operators": 1, "drills": 1}
LATER = {name: get_later_path(Path(name)).name for name in "abc"}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=slow)])
def kept(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Kept]:
    """An audit file, and what lays its ledger back as it was where that is not beside it."""
    if request.param == "sqlite":
        yield make_site(tmp_path / "site", "sqlite:///ledger.db"), lambda: None
        return
    # seconds that a lock which nobody gave back is waited for: none, since its owner is dead
    monkeypatch.setattr(locks, "GRACE_S", 0.0)
    with postgres_server() as url:
        file = make_site(tmp_path / "site", url)
        with Ledger.at(url) as ledger:

            def lay_back() -> None:
                # what a prune writes there is its records, and nothing else
                tamper(ledger, f"DELETE FROM records WHERE kind = '{PRUNED}'")

            yield file, lay_back


def make_site(folder: Path, state: str) -> Path:
    """Three audits, each looked into later, and two drills: of the oldest audit all is to go, of
    the next its operators, and the older drill. Returns the audit file.
    """
    folder.mkdir()
    settings = {
        "name": NAME,
        "source": "data",
        "sentinels": "s.yaml",
        "state": state,
        "tracking": None,
        "keep": KEEP,
    }
    (folder / "audit.yaml").write_text(yaml.safe_dump(settings))
    with Ledger.at(load_config(folder / "audit.yaml").state) as ledger:
        for name in "abc":
            get_later_path(leave(ledger, folder, name)).write_text("{}")
    for number in (1, 2):
        leave_drill(folder, str(number), f"2025-01-0{number}T00:00:00+00:00")
    return folder / "audit.yaml"


def prune_whole(file: Path) -> None:
    outcome = prune(load_config(file), Reporter(quiet=True), remove=True)
    assert outcome.failures == []


def check_what_stays(site: Path, number: int) -> None:
    """Whatever was killed, and whenever: of the last audit all, of the next all but operators."""
    left = {path.name for path in (site / "runs").iterdir()}
    assert {"b", "c", LATER["b"], LATER["c"], "drill-2"} <= left, number
    assert (site / "runs" / "c" / OPERATORS_FILE).is_file(), number


def check_done(file: Path, number: int) -> None:
    """All that was to go is gone, and on record once; what is left is as it was recorded."""
    check_what_stays(file.parent, number)
    runs = file.parent / "runs"
    assert len(list(runs.iterdir())) == 5, (number, list(runs.iterdir()))
    assert not (runs / "b" / OPERATORS_FILE).exists(), number
    with Ledger.existing(load_config(file).state) as ledger:
        found = verify(ledger)
        counts = (found.audits, found.run_dirs, found.pruned, found.away)
        assert (found.differences, *counts) == ([], 3, 2, 1, 0), number
        with ledger.read() as connection:
            recorded = [record.item for record in read_records(connection, PRUNED)]
        assert sorted(map(str, recorded)) == ["operators b", "run directory a"], number


def test_a_prune_that_is_killed_loses_nothing_and_is_completed_by_the_next(kept: Kept) -> None:
    """Before any of its writes; what was discovered of an audit later goes with it."""
    file, lay_back = kept
    killed = 0
    for number in kill_before_each_write(file.parent, lambda: prune_whole(file), lay_back):
        killed += 1
        check_what_stays(file.parent, number)
        prune_whole(file)
        check_done(file, number)
    check_done(file, killed)
    assert killed >= 15
