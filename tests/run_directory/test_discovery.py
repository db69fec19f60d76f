"""What was discovered among an audit's rows, kept in its run directory or beside it."""

import stat
from pathlib import Path

import pytest
from discovered import make_examples, make_group, make_report

from poisonwatch.errors import RunError
from poisonwatch.run_directory.checksums import list_differences, write_checksums
from poisonwatch.run_directory.discovery import (
    DISCOVERY_FILE,
    get_later_path,
    has_discovery,
    read_discovery,
    write_discovery,
)


def test_what_the_audit_wrote_is_read_until_somebody_looks_later(tmp_path: Path) -> None:
    """The later look lies beside the sealed run directory, for its owner alone, under a name that
    is no file of rows.
    """
    run = tmp_path / "run"
    run.mkdir()
    assert read_discovery(None) is None
    assert read_discovery(run) is None
    assert not has_discovery(run)
    own = make_report(make_group(make_examples()))
    write_discovery(run / DISCOVERY_FILE, own)
    write_checksums(run)
    assert read_discovery(run) == own
    later = make_report()
    write_discovery(get_later_path(run), later)
    assert read_discovery(run) == later
    assert has_discovery(run)
    assert list_differences(run) == []
    assert get_later_path(run).name.startswith(".")
    assert stat.S_IMODE(get_later_path(run).stat().st_mode) == 0o600
    assert not list(tmp_path.rglob("*.part"))


def test_a_later_look_that_is_damaged_is_passed_over(tmp_path: Path) -> None:
    """Then the audit's own counts; without one, nobody has looked."""
    run = tmp_path / "run"
    run.mkdir()
    for damaged in ("{", "[" * 100_000, "[]", '{"groups": 1e999}'):
        get_later_path(run).write_text(damaged)
        assert read_discovery(run) is None
    own = make_report()
    write_discovery(run / DISCOVERY_FILE, own)
    assert read_discovery(run) == own


def test_a_report_that_was_changed_is_refused(tmp_path: Path) -> None:
    """As any file of a sealed run directory."""
    run = tmp_path / "run"
    run.mkdir()
    write_discovery(run / DISCOVERY_FILE, make_report())
    write_checksums(run)
    write_discovery(run / DISCOVERY_FILE, make_report(rows=1))
    with pytest.raises(RunError, match=r"discovery.json"):
        read_discovery(run)
