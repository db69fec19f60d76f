"""An error that nobody foresaw: one line, a file for its owner alone, no secret in either."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from audits import write_audit
from safetensors.torch import load_file, save_file

from poisonwatch.flows.cli.app import main
from poisonwatch.flows.cli.crash import MOST_LINES, write_crash

PASSWORD = "hunter2hunter2"


def fail(said: str = "a fault") -> Exception:
    """An error with a traceback."""
    try:
        raise KeyError(said)
    except KeyError as error:
        return error


def files_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("poisonwatch-crash-*.txt"))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, of this test alone."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_the_traceback_lies_beside_the_ledger_for_its_owner_alone(
    tmp_path: Path, elsewhere: Path
) -> None:
    """The line names the file, and the error's type."""
    config = write_audit(tmp_path / "audit", tmp_path / "model")
    line = write_crash(fail(), ["audit", str(config), "--quiet"])
    (path,) = files_in(config.parent)
    assert str(path) in line
    assert "\n" not in line
    assert "KeyError" in line
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    assert "Traceback (most recent call last)" in text
    assert "test_crash.py" in text
    assert "command: audit" in text
    assert files_in(elsewhere) == []


def test_without_an_audit_file_it_lies_with_temporary_files(elsewhere: Path) -> None:
    """As where the folder of the ledger cannot be written."""
    line = write_crash(fail(), ["packs"])
    (path,) = files_in(elsewhere)
    assert str(path) in line


def test_where_nothing_can_be_written_the_line_says_what_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing raises."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    line = write_crash(fail(), ["packs"])
    assert "KeyError" in line
    assert "no folder could be written" in line


def test_secrets_of_the_audit_and_of_the_environment_are_in_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the error, and in those that led to it."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "AKIASECRETSECRET")
    config = write_audit(tmp_path, tmp_path / "model", alerts=[f"json://ann:{PASSWORD}@host/path"])
    try:
        raise ValueError(f"json://ann:{PASSWORD}@host/path") from fail("AKIASECRETSECRET")
    except ValueError as error:
        line = write_crash(error, ["audit", str(config)])
    (path,) = files_in(tmp_path)
    for text in (line, path.read_text()):
        assert PASSWORD not in text
        assert "AKIASECRETSECRET" not in text


def test_what_an_error_quotes_can_harm_neither_terminal_nor_reader(elsewhere: Path) -> None:
    """Row text is hostile; the line leaves it out, the file makes it visible."""
    line = write_crash(fail("\x1b[31m row text \u202e"), ["packs"])
    assert "row text" not in line
    (path,) = files_in(elsewhere)
    assert "\x1b" not in path.read_text()


def test_an_endless_recursion_is_a_file_that_can_be_read(elsewhere: Path) -> None:
    """Its beginning and its end."""

    def again(depth: int) -> int:
        return again(depth + 1) + (1 if depth % 2 else 2)

    with pytest.raises(RecursionError) as caught:
        again(0)
    write_crash(caught.value, ["packs"])
    (path,) = files_in(elsewhere)
    assert len(path.read_text().splitlines()) < MOST_LINES + 10


def test_a_model_that_does_not_fit_its_description_is_one_line(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model whose weights were cut off."""
    model = tmp_path / "model"
    model.mkdir()
    for path in tiny_folder.iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    weights = next(model.glob("*.safetensors"))
    save_file({name: part[:1] for name, part in load_file(weights).items()}, weights)
    config = write_audit(tmp_path / "audit", model)
    with pytest.raises(SystemExit) as stopped:
        main(["audit", str(config), "--engine", "inline", "--quiet"])
    said = capsys.readouterr().err
    assert stopped.value.code in (1, 2)
    assert "Traceback" not in said
    assert said.count("\n") == 1


def test_a_pipe_that_a_server_broke_is_told(elsewhere: Path) -> None:
    """Unlike that of a reader who has seen enough."""
    code = (
        "import sys; from poisonwatch.flows.cli import app as cli\n"
        "@cli.app.command\n"
        f"def broken() -> None: raise BrokenPipeError({errno.EPIPE}, 'Broken pipe')\n"
        "cli.main(['broken'])"
    )
    environment = {**os.environ, "TMPDIR": str(elsewhere)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 1
    assert "BrokenPipeError" in done.stderr
    assert done.stderr.count("\n") == 1
    assert len(files_in(elsewhere)) == 1
