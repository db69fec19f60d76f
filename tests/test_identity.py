"""A process under a number that no user has, without a home."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from ledgers import covered_ledger

from poisonwatch.errors import ConfigError
from poisonwatch.identity import settle_identity

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
        ["decide", str(audit), "a.jsonl:1", "benign"],
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
    assert [path.name for path in tmp_path.glob("poisonwatch-home-*")] == [
        f"poisonwatch-home-{NOBODY}"
    ]


def test_a_name_and_a_home_that_are_there_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is changed."""
    monkeypatch.setenv("HOME", "/somewhere")
    monkeypatch.setenv("LOGNAME", "ann")
    before = dict(os.environ)
    settle_identity()
    assert dict(os.environ) == before


@needs_root
def test_a_home_that_somebody_else_made_is_refused(tmp_path: Path) -> None:
    """Whoever knows its name could read what is put there."""
    (tmp_path / f"poisonwatch-home-{NOBODY}").mkdir()
    os.chown(tmp_path / f"poisonwatch-home-{NOBODY}", 12345, 12345)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.environ.clear()
            tempfile.tempdir = None
            os.environ["TMPDIR"] = str(tmp_path)
            os.setresuid(NOBODY, 0, 0)
            settle_identity()
        except ConfigError:
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
