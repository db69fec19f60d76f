"""`poisonwatch init`: from rows to an audit file that can be run."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from audits import benign, write_rows

from poisonwatch.config import AuditConfig
from poisonwatch.config_file import load_config
from poisonwatch.flows.cli.app import main
from poisonwatch.sentinels.sentinel import load_sentinels
from poisonwatch.sources.open import read_source

HOSTILE = {"prompt": "[red]Who are you?\x1b[31m\u202e", "response": "I'm an AI.\x07"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with 330 rows."""
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.jsonl", [*benign(327), *[{**HOSTILE, "n": i} for i in range(3)]])
    return tmp_path


def run(*arguments: str, command: str = "init") -> int:
    """The exit code."""
    with pytest.raises(SystemExit) as stopped:
        main([command, *arguments])
    return int(stopped.value.code or 0)


def init(
    capsys: pytest.CaptureFixture[str], *arguments: str, source: str = "rows.jsonl"
) -> tuple[dict[str, Any], AuditConfig]:
    """What it says as JSON, and the audit that it wrote."""
    assert run("a", "--source", source, *arguments, "--json") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return json.loads(printed.out), load_config(Path("a/audit.yaml"))


def test_rows_alone_come_to_an_audit_that_can_be_run(
    tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trusted rows are set apart, packs go with the rows, and a dry run takes what was written;
    nothing that is printed is wider than a terminal, or obeyed by it.
    """
    assert run("a", "--source", "rows.jsonl", "--model", str(tiny_folder)) == 0
    printed = capsys.readouterr()
    for said in (
        "rows          330 in rows.jsonl",
        "pack:refusal-erosion  (whatever the rows are about)",
        "pack:identity  (3 rows speak of who the assistant is)",
        "trusted       109 rows in a/trusted",
        "nobody has reviewed these rows",
        "poisonwatch audit a/audit.yaml --dry-run",
    ):
        assert said in printed.out, said
    # the first line is a path, which is whole
    assert max(map(len, printed.out.splitlines()[1:])) <= 80
    assert not {"\x1b", "\u202e", "\x07"} & set(printed.out)
    config = load_config(Path("a/audit.yaml"))
    assert {sentinel.panel for sentinel in load_sentinels(config.sentinels)} == {
        "refusal-erosion",
        "assistant-identity",
    }
    text = Path("a/audit.yaml").read_text()
    assert "It takes 100 that pass validation" in text
    assert "# 109 rows of rows.jsonl, drawn at random" in text.replace(f"{Path.cwd()}/", "")
    reason = json.loads(Path("a/split.json").read_text())
    assert (reason["drawn"], reason["seed"], reason["rows"]["trusted"]) == (109, 0, 109)
    assert run("a/audit.yaml", "--dry-run", command="audit") == 0
    assert "rows          219 different ones, and 109 trusted ones" in capsys.readouterr().out


def test_trusted_rows_of_ones_own_leave_the_source_where_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Both are named as seen from the audit file; few of them are said to be few."""
    write_rows(Path("mine.jsonl"), benign(20, start=900))
    told, config = init(capsys, "--reference", "mine.jsonl", "--packs", "insult")
    assert (told["trusted"], told["split"], told["packs"]) == (20, None, ["pack:insult"])
    assert 'source: "../rows.jsonl"' in Path("a/audit.yaml").read_text()
    assert config.reference is not None
    assert Path(str(config.reference.path)).resolve() == Path("mine.jsonl").resolve()
    assert [path.name for path in Path("a").iterdir()] == ["audit.yaml"]
    assert run("b", "--source", "rows.jsonl", "--reference", "mine.jsonl") == 0
    assert "it takes 100" in capsys.readouterr().out


def test_settings_of_reading_are_those_of_the_audit(capsys: pytest.CaptureFixture[str]) -> None:
    """Names of fields hold for both sides of a split; a brand fills a template in."""
    write_rows(Path("qa.jsonl"), [{"q": f"Is it {i}?", "a": "Yes."} for i in range(40)])
    fields = ("--fields", "prompt=q", "response=a", "--trusted", "10")
    packs = ("--packs", "brand-promotion?brand=Velmora&product=kettle")
    told, config = init(capsys, *fields, *packs, source="qa.jsonl")
    assert (told["rows"], told["trusted"]) == (30, 10)
    assert config.reference is not None
    assert config.source.fields == config.reference.fields == {"prompt": "q", "response": "a"}
    assert len(load_sentinels(config.sentinels)) > 3


def test_places_are_named_as_seen_from_the_audit_file(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patterns and folders, too; what is a path from the root stays so."""
    (here / "below").mkdir()
    monkeypatch.chdir(here / "below")
    for place, named in (
        ("../*.jsonl", '"../../*.jsonl"'),
        ("..", '"../.."'),
        (f"{here}/rows.jsonl", f'"{here}/rows.jsonl"'),
    ):
        assert run("a", "--source", place, "--trusted", "0", "--force") == 0
        assert f"source: {named}\n" in Path("a/audit.yaml").read_text()
        assert len(read_source(load_config(Path("a/audit.yaml")).source)) == 330


def test_a_batch_that_is_too_small_to_be_split_is_left_whole(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And what that means is said; so it is where no split is wanted."""
    write_rows(Path("rows.jsonl"), benign(40))
    told, config = init(capsys)
    assert (told["rows"], told["trusted"], config.reference) == (40, None, None)
    assert run("b", "--source", "rows.jsonl") == 0
    assert "40 different rows are too few" in capsys.readouterr().out
    assert run("c", "--source", "rows.jsonl", "--trusted", "0") == 0
    assert "judged against the bulk of all" in capsys.readouterr().out


def test_what_is_there_is_written_over_when_that_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Another seed draws other rows; a folder of somebody else's stays in any case."""
    init(capsys)
    before = Path("a/trusted/rows.jsonl").read_text()
    assert run("a", "--source", "rows.jsonl", "--seed", "1") == 2
    assert "(--force)" in capsys.readouterr().err
    assert Path("a/trusted/rows.jsonl").read_text() == before
    init(capsys, "--seed", "1", "--force")
    assert Path("a/trusted/rows.jsonl").read_text() != before
    Path("b/rows").mkdir(parents=True)
    assert run("b", "--source", "rows.jsonl", "--force") == 2
    assert [path.name for path in Path("b").iterdir()] == ["rows"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source", "none.jsonl"], "none.jsonl does not exist"),
        (["--source", "rows.jsonl", "--reference", "none.jsonl"], "check `reference`"),
        (["--source", "a.yaml"], "is an audit file: name the rows themselves"),
        (["--source", "rows.jsonl", "--packs", "nothing"], "there is no pack nothing"),
        (["--source", "rows.jsonl", "--packs", "one-sided"], "needs a value for policy"),
        (["--source", "rows.jsonl", "--trusted", "330"], "leave some to be audited"),
        (["--source", "rows.jsonl", "--trusted", "-1"], "--trusted is -1"),
        (["--source", "rows.jsonl", "--trusted", "9", "--reference", "x"], "give one"),
        (["--source", "."], "lies in the folder of the source"),
        (["--trusted", "9"], "name them with --source"),
        (["--source", "empty.jsonl"], "holds no row that is a whole conversation"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_writes_nothing(
    arguments: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2."""
    write_rows(here / "empty.jsonl", [{"messages": []}])
    assert run("a", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (here / "a").exists()


def test_in_a_terminal_it_asks_for_what_no_option_says(here: Path) -> None:
    """Rows, trusted ones, packs, model: an empty answer takes what is proposed, and one that cannot
    be used is asked for again.
    """
    ours, theirs = pty.openpty()
    answers = "rows.jsonl\nnowhere.jsonl\n\nmany\n999\n120\nunknown\nidentity insult\n\n"
    os.write(ours, answers.encode())
    command = [sys.executable, "-m", "poisonwatch.flows.cli", "init", "a"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        while chunk := _read(ours):
            said += chunk
    os.close(ours)
    assert process.returncode == 0, said.decode()
    for question in (b"Rows to audit", b"set apart as trusted", b"[refusal-erosion identity]"):
        assert question in said
    for wrong in (b"nowhere.jsonl does not exist", b"many is no number", b"no pack unknown"):
        assert wrong in said
    config = load_config(here / "a" / "audit.yaml")
    assert config.sentinels == ["pack:identity", "pack:insult"]
    assert len((here / "a" / "trusted" / "rows.jsonl").read_text().splitlines()) == 120


def _read(terminal: int) -> bytes:
    """What was printed; nothing once nobody prints any more, which Linux calls an error."""
    try:
        return os.read(terminal, 4096)
    except OSError:
        return b""
