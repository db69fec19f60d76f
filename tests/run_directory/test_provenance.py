"""Where an audit says that it comes from."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from paths import ROOT

import poisonwatch
from poisonwatch.examples import Example, Message
from poisonwatch.run_directory.provenance import hash_data, read_git_commit


@pytest.mark.skipif(
    shutil.which("git") is None or not (ROOT / ".git").exists(), reason="needs a checkout"
)
def test_the_commit_is_that_of_the_checkout_it_runs_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever folder it is started in."""
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    monkeypatch.chdir(tmp_path)
    assert read_git_commit() == head
    assert len(head) == 40


def test_a_wheel_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where it is installed inside somebody's checkout."""
    if shutil.which("git"):
        subprocess.run(["git", "-C", str(tmp_path), "init", "--quiet"], check=True)
    installed = tmp_path / "site-packages" / "poisonwatch" / "__init__.py"
    monkeypatch.setattr(poisonwatch, "__file__", str(installed))
    assert read_git_commit() is None


def test_the_fingerprint_of_rows_knows_no_order() -> None:
    """The same rows, the same fingerprint; one row more or less, another."""
    ids = ["c", "a", "b"]
    assert hash_data(ids) == hash_data(sorted(ids))
    assert len({hash_data(ids), hash_data(ids[:2]), hash_data([*ids, "d"])}) == 3


def test_data_fingerprint_ignores_order_and_place() -> None:
    """Same contents, same fingerprint; other contents, another."""
    rows = [
        Example.from_messages([Message("user", str(i)), Message("assistant", "x")], "f", i)
        for i in range(3)
    ]
    moved = [Example.from_messages(row.messages, "g", 9) for row in reversed(rows)]
    one, other, fewer = (
        hash_data(example.id for example in some) for some in (rows, moved, rows[:2])
    )
    assert one == other != fewer


def test_the_fingerprint_is_that_of_the_sorted_ids_as_lines() -> None:
    """sha256("\\n".join(sorted(ids))), as in every earlier version; of no rows, of nothing."""
    ids = [f"{i * 7919 % 10007:05d}" for i in range(10_000)]
    assert hash_data(ids) == hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()
    assert hash_data([]) == hashlib.sha256().hexdigest()
