"""Removal is on record first, and what breaks off is completed by the next."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from ledgers import NAME, sqlite_ledger
from prunable import LAST_ONE, leave, leave_line
from tampering import LostSigner, make_signer, verify

from poisonwatch.errors import SigningError
from poisonwatch.keep_config import KeepConfig
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.prunings import OPERATORS, PRUNED, find_pruned
from poisonwatch.ledger.records import read_records
from poisonwatch.pruning import remove
from poisonwatch.pruning.plan import get_pruned_path, plan_pruning
from poisonwatch.run_directory.discovery import get_later_path
from poisonwatch.run_directory.layout import OPERATORS_FILE


@pytest.fixture
def ledger(url: str, tmp_path: Path) -> Iterator[Ledger]:
    """Three audits with run directories, of which one is to stay, and one without new rows."""
    with Ledger.at(url, signer=make_signer()) as opened:
        for name in ("a", "b", "c"):
            leave(opened, tmp_path, name)
        leave_line(opened, tmp_path, "d")
        yield opened


def prune(ledger: Ledger, keep: KeepConfig = LAST_ONE) -> list[str]:
    with ledger.lock(NAME):
        return remove.carry_out(ledger, plan_pruning(ledger, NAME, keep), keep)


def list_folders(folder: Path) -> set[str]:
    return {path.name for path in (folder / "runs").iterdir()}


def list_recorded(ledger: Ledger) -> list[str | None]:
    with ledger.read() as connection:
        return [record.item for record in read_records(connection, PRUNED)]


def test_what_went_is_on_record_and_verify_tells_it_from_what_was_lost(
    ledger: Ledger, tmp_path: Path
) -> None:
    """Its record is signed, and about the run directory's seal; an audit without new rows left
    nothing that could be missed.
    """
    signer = ledger.signer
    assert prune(ledger) == []
    assert list_folders(tmp_path) == {"c"}
    found = verify(ledger, signer)  # type: ignore[arg-type]
    assert (found.is_whole, found.run_dirs, found.pruned, found.away) == (True, 1, 2, 0)
    assert found.signed == found.records
    shutil.rmtree(tmp_path / "runs" / "c")
    found = verify(ledger)
    assert (found.is_whole, found.run_dirs, found.pruned, found.away) == (True, 0, 2, 1)


def test_what_was_discovered_later_goes_with_its_run_directory(
    ledger: Ledger, tmp_path: Path
) -> None:
    """It tells of the same rows, and lies beside it; that of an audit that stays does, too."""
    for name in ("a", "c"):
        get_later_path(tmp_path / "runs" / name).write_text("{}")
    assert prune(ledger) == []
    assert list_folders(tmp_path) == {"c", get_later_path(tmp_path / "runs" / "c").name}


def test_a_prune_that_finds_nothing_records_nothing(ledger: Ledger) -> None:
    prune(ledger)
    recorded = list_recorded(ledger)
    prune(ledger)
    assert list_recorded(ledger) == recorded == ["run directory b", "run directory a"]


def test_operators_that_went_are_no_difference_and_others_are(
    ledger: Ledger, tmp_path: Path
) -> None:
    keep = KeepConfig(days=1, operators=1)
    prune(ledger, keep)
    assert [(tmp_path / "runs" / name / OPERATORS_FILE).is_file() for name in "abc"] == [
        False,
        False,
        True,
    ]
    found = verify(ledger)
    assert (found.is_whole, found.run_dirs) == (True, 3)
    with ledger.read() as connection:
        assert find_pruned(connection, "abcd", OPERATORS).keys() == {"a", "b"}
    (tmp_path / "runs" / "c" / OPERATORS_FILE).unlink()
    assert [found.what for found in verify(ledger).differences] == [
        f"run directory c: {OPERATORS_FILE}"
    ]
    # The rest of it goes later.
    assert prune(ledger) == []
    assert list_folders(tmp_path) == {"c"}


class CrashError(Exception):
    """Where a process would have died."""


def crash_at(line: int) -> Any:
    """A tracer that ends the work in `remove` at its nth line."""
    left = [line]

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != remove.__file__:
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                raise CrashError
        return trace

    return trace


def test_a_prune_that_dies_at_any_line_is_completed_by_the_next(tmp_path: Path) -> None:
    """All that went is on record, each once, and nothing else is missing."""
    origin = tmp_path / "origin"
    origin.mkdir()
    with sqlite_ledger(tmp_path) as ledger:
        for name in ("b", "c"):
            leave(ledger, tmp_path, name)
    shutil.move(tmp_path / "runs", origin / "runs")
    shutil.move(tmp_path / "ledger.db", origin / "ledger.db")
    died, line = True, 0
    while died:
        line += 1
        shutil.copytree(origin / "runs", tmp_path / "runs")
        shutil.copy(origin / "ledger.db", tmp_path / "ledger.db")
        with sqlite_ledger(tmp_path) as ledger:
            before = sys.gettrace()
            sys.settrace(crash_at(line))
            try:
                prune(ledger)
                died = False
            except CrashError:
                pass
            finally:
                sys.settrace(before)
            # Whatever is gone is on record already.
            assert (tmp_path / "runs" / "b").is_dir() or list_recorded(ledger)
            assert prune(ledger) == []
            assert list_folders(tmp_path) == {"c"}
            assert list_recorded(ledger) == ["run directory b"]
        shutil.rmtree(tmp_path / "runs")
        for path in tmp_path.glob("ledger.db*"):
            path.unlink()
    assert line > 15


def test_half_of_a_run_directory_that_was_renamed_away_goes(ledger: Ledger, tmp_path: Path) -> None:
    """Only where it is on record as pruned."""
    prune(ledger)
    for name in ("b", "c"):
        half = get_pruned_path(tmp_path / "runs" / name)
        half.mkdir()
        (half / "report.html").write_text("half")
    assert prune(ledger) == []
    assert list_folders(tmp_path) == {"c", "c.pruned"}


def test_one_that_cannot_be_removed_keeps_none_of_the_others(
    ledger: Ledger, tmp_path: Path
) -> None:
    """A file stands where it would be renamed to."""
    get_pruned_path(tmp_path / "runs" / "b").write_text("in the way")
    (failure,) = prune(ledger)
    assert str(tmp_path / "runs" / "b") in failure
    assert list_folders(tmp_path) == {"b", "b.pruned", "c"}


def test_nothing_goes_that_cannot_be_signed(ledger: Ledger, tmp_path: Path) -> None:
    ledger.signer = LostSigner()
    with pytest.raises(SigningError):
        prune(ledger)
    assert list_folders(tmp_path) == {"a", "b", "c"}
    assert list_recorded(ledger) == []
