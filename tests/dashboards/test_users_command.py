"""`poisonwatch users`: who may come in."""

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from audits import write_audit

from poisonwatch.dashboards.users import read_users, verify_password
from poisonwatch.flows.cli.app import main

PASSWORD = "a: /@#?correct horse ü"


@pytest.fixture
def audit_file(tmp_path: Path, tiny_folder: Path) -> Path:
    return write_audit(tmp_path, tiny_folder)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["users", *arguments])
    code = ended.value.code
    assert isinstance(code, int)
    return code


def type_password(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_from_adding_somebody_to_removing_them(
    audit_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command says what it did, and never a password or its hash."""
    path, file = audit_file.parent / ".poisonwatch-users.json", str(audit_file)
    assert run("list", file) == 0
    assert not path.exists()
    type_password(monkeypatch, PASSWORD)
    assert run("add", file, "Ann", "--role", "viewer", "--password-stdin") == 0
    assert run("add", file, "bob@example.org", "--role", "admin", "--no-password") == 0
    users = read_users(path)
    assert [(user.name, user.role) for user in users.values()] == [
        ("Ann", "viewer"),
        ("bob@example.org", "admin"),
    ]
    assert verify_password(users["ann"], PASSWORD)
    assert users["bob@example.org"].password is None
    assert run("role", file, "ann", "reviewer") == 0
    type_password(monkeypatch, "a second one of ann")
    assert run("password", file, "ANN", "--password-stdin") == 0
    changed = read_users(path)["ann"]
    assert (changed.role, verify_password(changed, "a second one of ann")) == ("reviewer", True)
    assert changed.id != users["ann"].id
    assert run("list", file) == 0
    shown = capsys.readouterr()
    assert "Ann  reviewer  password" in shown.out
    assert "bob@example.org  admin  no password" in shown.out
    assert run("remove", file, "Ann") == 0
    assert list(read_users(path)) == ["bob@example.org"]
    for secret in (PASSWORD, "a second one of ann", "argon2"):
        assert secret not in shown.out + shown.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("add", "{file}", "ANN", "--no-password"), "a user already"),
        (("add", "{file}", "x" * 61, "--no-password"), "1 to 60"),
        (("add", "{file}", "eve (unverified)", "--no-password"), "unverified"),
        (("add", "{file}", "bob"), "--password-stdin"),
        (("add", "{file}", "bob", "--password-stdin"), "at least 8"),
        (("remove", "{file}", "bob"), "users list"),
        (("role", "{file}", "bob", "admin"), "users list"),
        (("password", "{file}", "bob", "--password-stdin"), "users list"),
        (("list", "{file}.none"), "does not exist"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_changes_nothing(
    audit_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    """Exit code 2."""
    path = audit_file.parent / ".poisonwatch-users.json"
    assert run("add", str(audit_file), "ann", "--no-password") == 0
    before = path.read_bytes()
    type_password(monkeypatch, "short")
    capsys.readouterr()
    assert run(*(part.format(file=audit_file) for part in arguments)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert words in said
    assert path.read_bytes() == before


def test_the_audit_file_may_name_another_file(
    audit_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Relative to itself: several audits may share it."""
    (audit_file.parent / "people").mkdir()
    audit_file.write_text(audit_file.read_text() + "\ndashboard_users: people/users.json\n")
    assert run("add", str(audit_file), "ann", "--no-password") == 0
    assert json.loads((audit_file.parent / "people" / "users.json").read_text())["format"] == 1


def test_a_folder_that_cannot_be_written_is_one_line(
    audit_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As any other mistake."""
    audit_file.write_text(audit_file.read_text() + "\ndashboard_users: audit.yaml/users.json\n")
    assert run("add", str(audit_file), "ann", "--no-password") == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(("typed", "code"), [((PASSWORD,) * 2, 0), ((PASSWORD, "another one"), 2)])
def test_a_password_is_typed_twice_and_never_shown(
    audit_file: Path, typed: tuple[str, ...], code: int
) -> None:
    """On a real terminal; what is written costs as much to guess as it should."""
    ours, its = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "poisonwatch.flows.cli",
        "users",
        "add",
        str(audit_file),
        "ann",
    ]
    with subprocess.Popen(
        command, stdin=its, stdout=its, stderr=its, start_new_session=True
    ) as process:
        os.close(its)
        shown = b""
        for asked, line in zip((b"Password: ", b"Once more: "), typed, strict=True):
            while asked not in shown:
                shown += os.read(ours, 1000)
            os.write(ours, f"{line}\n".encode())
        try:
            while more := os.read(ours, 1000):
                shown += more
        except OSError:  # the terminal is closed
            pass
        assert process.wait() == code
    os.close(ours)
    assert all(line.encode() not in shown for line in typed)
    path = audit_file.parent / ".poisonwatch-users.json"
    assert path.exists() is (code == 0)
    if code == 0:  # RFC 9106: 64 MiB, three passes, four lanes
        assert "$argon2id$v=19$m=65536,t=3,p=4$" in path.read_text()
