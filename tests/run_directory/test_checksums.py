"""A run directory says what was written into it, and what of that is there no more."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from poisonwatch.errors import RunError
from poisonwatch.run_directory import checksums
from poisonwatch.run_directory.checksums import (
    CHECKSUMS_FILE,
    FileDifference,
    compute_seal,
    find_change,
    list_differences,
    read_checksums,
    require_unchanged,
    require_unchanged_run,
    require_unchanged_settings,
    write_checksums,
)

NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # SHA-256 of no bytes
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of b"abc" (FIPS 180)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A sealed run directory of three files."""
    folder = tmp_path / "run"
    (folder / "plots").mkdir(parents=True)
    (folder / "empty").write_bytes(b"")
    (folder / "scores.parquet").write_bytes(b"abc")
    (folder / "plots" / "00-shop.png").write_bytes(b"abc")
    write_checksums(folder)
    return folder


def test_sha256sum_checks_what_was_written(run_dir: Path) -> None:
    """In its own format, over files of folders, too, and not over itself."""
    assert (run_dir / CHECKSUMS_FILE).read_text() == (
        f"{NOTHING}  empty\n{ABC}  plots/00-shop.png\n{ABC}  scores.parquet\n"
    )
    subprocess.run(
        ["sha256sum", "--check", "--strict", CHECKSUMS_FILE],
        cwd=run_dir,
        check=True,
        capture_output=True,
    )


def test_what_was_not_touched_does_not_differ(run_dir: Path) -> None:
    """Nor does a copy of it: its seal is the same."""
    seal = compute_seal(run_dir)
    assert list_differences(run_dir, seal) == []
    require_unchanged_run(run_dir, seal)
    assert find_change(run_dir, seal) is None
    copy = run_dir.parent / "copy"
    shutil.copytree(run_dir, copy)
    assert compute_seal(copy) == seal
    assert list_differences(copy, seal) == []


def test_each_file_that_is_changed_gone_or_added_is_named(run_dir: Path) -> None:
    """With what it should be and what it is."""
    (run_dir / "scores.parquet").write_bytes(b"")
    (run_dir / "plots" / "00-shop.png").unlink()
    (run_dir / "evidence.jsonl").write_bytes(b"abc")
    assert list_differences(run_dir) == [
        FileDifference("evidence.jsonl", expected=None, found=ABC),
        FileDifference("plots/00-shop.png", expected=ABC, found=None),
        FileDifference("scores.parquet", expected=ABC, found=NOTHING),
    ]


def test_a_file_that_was_read_before_is_read_anew_once_it_changed(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its size is the same and its time is set back."""
    # What was read is kept at once.
    monkeypatch.setattr(checksums, "SETTLED_NS", -(10**12))
    path = run_dir / "scores.parquet"
    past = path.stat()
    require_unchanged(run_dir, "scores.parquet")
    path.write_bytes(b"abd")
    # Until the clock of the file system goes on, which is what SETTLED_NS waits for.
    while path.stat().st_ctime_ns == past.st_ctime_ns:
        os.utime(path, ns=(past.st_atime_ns, past.st_mtime_ns))
    os.utime(path, ns=(past.st_atime_ns, past.st_mtime_ns))
    with pytest.raises(RunError, match=r"scores\.parquet of .*run is not what the audit wrote"):
        require_unchanged(run_dir, "scores.parquet")
    # The others are as they were.
    require_unchanged(run_dir, "empty", "plots/00-shop.png", "no such file")


def test_a_file_that_the_audit_did_not_write_is_refused(run_dir: Path) -> None:
    """Evidence that failed to be written cannot be supplied later."""
    (run_dir / "evidence.jsonl").write_bytes(b"{}")
    with pytest.raises(RunError, match=r"evidence.jsonl"):
        require_unchanged(run_dir, "evidence.jsonl")


def test_a_file_that_is_changed_together_with_its_checksum_breaks_the_seal(run_dir: Path) -> None:
    """Whoever knows the seal sees it; without it, the run directory is whole."""
    seal = compute_seal(run_dir)
    (run_dir / "scores.parquet").write_bytes(b"")
    assert write_checksums(run_dir) != seal
    assert list_differences(run_dir) == []
    (difference,) = list_differences(run_dir, seal)
    assert (difference.name, difference.expected) == (CHECKSUMS_FILE, seal)
    with pytest.raises(RunError, match="record of the audit"):
        require_unchanged(run_dir, "empty", seal=seal)


def test_checksums_that_are_gone_are_missed_where_the_seal_is_known(run_dir: Path) -> None:
    """Without it, the run directory is one of an earlier version, and is read as it is."""
    seal = compute_seal(run_dir)
    (run_dir / CHECKSUMS_FILE).unlink()
    assert compute_seal(run_dir) is None
    assert list_differences(run_dir) == []
    require_unchanged(run_dir, "scores.parquet")
    assert find_change(run_dir) is None
    assert list_differences(run_dir, seal) == [
        FileDifference(CHECKSUMS_FILE, expected=seal, found=None)
    ]
    assert "SHA256SUMS" in (find_change(run_dir, seal) or "")


@pytest.mark.parametrize(
    "text",
    [
        "no checksum\n",
        f"{ABC}  scores.parquet",
        f"{ABC}  ../outside\n",
        f"{ABC}  /etc/passwd\n",
        f"{ABC.upper()}  scores.parquet\n",
        "é\n",
        f"{ABC}  x\n" * 20_000,
    ],
    ids=["words", "cut off", "outside", "absolute", "upper case", "not ASCII", "too long"],
)
def test_checksums_in_another_form_are_one_error(run_dir: Path, text: str) -> None:
    """Nobody reads what they name."""
    (run_dir / CHECKSUMS_FILE).write_text(text, encoding="utf-8")
    for check in (read_checksums, list_differences, require_unchanged_run):
        with pytest.raises(RunError, match=r"SHA256SUMS of .*run is not what the audit wrote"):
            check(run_dir)


def test_what_is_no_file_is_gone(run_dir: Path) -> None:
    """A pipe that nobody writes to would be read for ever."""
    (run_dir / "scores.parquet").unlink()
    os.mkfifo(run_dir / "scores.parquet")
    assert list_differences(run_dir) == [FileDifference("scores.parquet", expected=ABC, found=None)]


def test_settings_of_a_run_are_held_to_it_and_those_of_people_are_not(tmp_path: Path) -> None:
    """An audit file may lie beside the checksums of a data set."""
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    (tmp_path / CHECKSUMS_FILE).write_text(f"{ABC}  rows.jsonl\n")
    require_unchanged_settings(tmp_path / "config.yaml")
    (tmp_path / "summary.json").write_text("{}\n")
    write_checksums(tmp_path)
    require_unchanged_settings(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    with pytest.raises(RunError, match=r"config.yaml"):
        require_unchanged_settings(tmp_path / "config.yaml")
