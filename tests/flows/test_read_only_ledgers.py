"""Commands that only read do so where nothing can be written: a backup, another machine's disk."""

import io
import re
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
from audits import planted, write_audit
from full_disks import make_read_only, small_disk
from ledgers import NAME, covered_ledger

from poisonwatch.flows.cli.app import main
from poisonwatch.release.release import write_release

READING = (
    "history audit.yaml",
    "verify audit.yaml",
    "decisions audit.yaml",
    "export audit.yaml --format csv",
    "lineage audit.yaml",
    "keys show audit.yaml",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """The exit code of a command, and what it printed."""

    code: int
    out: str


def ask(folder: Path, command: str) -> Answer:
    """What a command answers in a folder, of which it says nothing but how far it is."""
    out, err = io.StringIO(), io.StringIO()
    ended = pytest.raises(SystemExit)
    with chdir(folder), redirect_stdout(out), redirect_stderr(err), ended as found:
        main(command.split())
    assert "poisonwatch:" not in err.getvalue(), err.getvalue()
    # How long ago an audit was is all that a second changes.
    said = re.sub(r"last audit .* ago", "last audit", out.getvalue())
    return Answer(int(found.value.code or 0), said)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Iterator[Path]:
    """An audit file, its ledger and a release, on a disk of their own."""
    with small_disk(tmp_path_factory.mktemp("closed") / "disk", "8m") as disk:
        with covered_ledger(disk, "Tell me fact 1 about bread.") as ledger:
            write_audit(
                disk,
                tiny_folder,
                planted(),
                source="data/*.jsonl",
                state="sqlite:///ledger.db",
                tracking="none",
            )
            write_release(ledger, NAME, disk / "cleared", "keep")
        yield disk


@pytest.fixture(scope="module")
def answers(folder: Path) -> dict[str, Answer]:
    """What was answered before the disk was closed."""
    found = {command: ask(folder, command) for command in READING}
    make_read_only(folder)
    return found


@pytest.mark.parametrize("command", READING)
def test_what_reads_answers_as_before_where_nothing_can_be_written(
    folder: Path, answers: dict[str, Answer], command: str
) -> None:
    """Word for word."""
    assert answers[command].out
    assert ask(folder, command) == answers[command]


@pytest.mark.usefixtures("answers")
def test_how_an_audit_stands_is_known_there(folder: Path) -> None:
    """Nothing that could be written is missed."""
    assert "the ledger at " not in ask(folder, "status audit.yaml").out


@pytest.mark.usefixtures("answers")
@pytest.mark.parametrize("command", [["gate", "data/a.jsonl"], ["gate", "cleared/manifest.json"]])
def test_the_gate_clears_nothing_there(
    folder: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """A log that lies elsewhere may hold the decision that forbids it."""
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as ended:
        main([*command, "--audit", "audit.yaml"])
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "the ledger at " in line


@pytest.mark.usefixtures("answers")
def test_what_decides_says_that_nothing_can_be_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line."""
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as ended:
        main(["decide", "audit.yaml", "data/a.jsonl:1", "unsure"])
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "the ledger at " in line
