"""A process under a number that no user has, without a home, or with one that cannot be written."""

import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
from full_disks import fill, small_disk
from ledgers import covered_ledger

from poisonwatch.flows.homes import HOMES, PROFILES_VARIABLE, find_homes, has_room, name_user

NOBODY = 54321
# Python is not everybody's to read here: who asks for it is somebody else, what opens files is not.
RUN = f"""
import json, os, sys
os.setresuid({NOBODY}, 0, 0)
from poisonwatch.flows.cli.app import main
for command in json.loads(sys.argv[1]):
    try:
        main(command)
    except SystemExit as end:
        print("ended with", end.code)
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


def list_nameless(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that has neither name nor home."""
    ours = ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return {**kept, "TMPDIR": str(tmp_path)}


@needs_root
def test_a_user_without_a_name_decides_and_looks_back(tmp_path: Path) -> None:
    """`decide` names the number; `history` imports what asks for a home."""
    (tmp_path / "site").mkdir()
    with covered_ledger(tmp_path / "site", flagged="Tell me fact 1 about bread."):
        pass
    audit = tmp_path / "site" / "audit.yaml"
    audit.write_text(
        "name: tiny\nmodel: none\nsource: data/*.jsonl\nsentinels: none.yaml\n"
        "state: sqlite:///ledger.db\ntracking: sqlite:///mlflow.db\n"
    )
    commands = [
        ["decide", str(audit), "a.jsonl:2", "benign"],
        ["history", str(audit)],
        ["decisions", str(audit)],
    ]
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(commands)],
        env=list_nameless(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.count("ended with 0") == len(commands), done.stderr
    assert done.stderr == ""
    (made,) = tmp_path.glob("poisonwatch-*")
    assert [path.name for path in made.iterdir()] == ["home"]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files, and an environment in which nobody set a home."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    for name in (*HOMES, PROFILES_VARIABLE):
        # set first, so that what the test leaves is taken away
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return folder


def test_a_home_that_is_no_folder_is_not_written_to(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Private folders stand in, the same ones for the next process."""
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    find_homes()
    first = {name: Path(os.environ[name]) for name in HOMES}
    assert all(place.is_dir() and place.is_relative_to(temporary) for place in first.values())
    assert {place.stat().st_mode & 0o777 for place in first.values()} == {0o700}
    for name in HOMES:
        monkeypatch.delenv(name)
    find_homes()
    assert {name: Path(os.environ[name]) for name in HOMES} == first


def test_a_home_without_room_is_not_written_to(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect's own server would end as it starts. Profiles are read where they are: they may name
    another server.
    """
    with small_disk(tmp_path / "home", "20m") as home:
        (home / ".prefect").mkdir()
        profiles = home / ".prefect" / "profiles.toml"
        profiles.write_text("")
        monkeypatch.setenv("HOME", str(home))
        find_homes()
        assert not any(name in os.environ for name in (*HOMES, PROFILES_VARIABLE))
        fill(home)
        assert not has_room(home / "not" / "there")
        find_homes()
        assert all(Path(os.environ[name]).is_relative_to(temporary) for name in HOMES)
        assert os.environ[PROFILES_VARIABLE] == str(profiles)


def test_where_nothing_can_be_written_libraries_say_nothing_of_it(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command does, in one line, once it needs a folder."""
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "home"))
    log = logging.getLogger("matplotlib")
    before = log.level
    with warnings.catch_warnings():
        find_homes()
        warnings.warn("Failed to create the Prefect home directory at /", stacklevel=1)
    assert (log.isEnabledFor(logging.WARNING), before) == (False, logging.NOTSET)
    log.setLevel(before)
    assert not any(name in os.environ for name in HOMES)


def test_a_home_that_can_be_written_stays_and_so_does_what_a_user_has_set(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is set, and nothing made."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOGNAME", "ann")
    monkeypatch.setenv("PREFECT_HOME", "/nowhere")
    name_user()
    find_homes()
    assert (os.environ["HOME"], os.environ["LOGNAME"]) == (str(tmp_path), "ann")
    assert os.environ["PREFECT_HOME"] == "/nowhere"
    assert "MPLCONFIGDIR" not in os.environ
    assert list(temporary.iterdir()) == []


@needs_root
@pytest.mark.parametrize("theirs", ["owned", "writable", "linked"])
def test_a_folder_that_somebody_else_may_write_is_not_used(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, theirs: str
) -> None:
    """Whoever knows its name could have made it, and read what is put there."""
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    known = temporary / f"poisonwatch-{os.getuid()}"
    if theirs == "linked":
        (tmp_path / "elsewhere").mkdir()
        known.symlink_to(tmp_path / "elsewhere")
    else:
        known.mkdir()
        known.chmod(0o777 if theirs == "writable" else 0o700)
        os.chown(known, 12345 if theirs == "owned" else -1, -1)
    find_homes()
    assert not any(Path(os.environ[name]).is_relative_to(known) for name in HOMES)
    assert list(known.iterdir()) == []


def test_a_folder_that_a_group_shares_is_used(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where whoever runs this says so."""
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("POISONWATCH_UMASK", "007")
    find_homes()
    first = os.environ["PREFECT_HOME"]
    monkeypatch.delenv("PREFECT_HOME")
    find_homes()
    assert os.environ["PREFECT_HOME"] == first
