"""Files and run directories: complete, or not there at all."""

import errno
import json
import os
from pathlib import Path

import pytest

from poisonwatch.atomic import (
    open_run_folder,
    read_jsonl,
    refuse_unfit_name,
    remove,
    replace_file,
    sync_file,
    sync_folder,
    sync_tree,
    write_jsonl,
    write_together,
)
from poisonwatch.errors import InputError, OperationError


def test_a_file_is_replaced_only_when_it_is_complete(tmp_path: Path) -> None:
    """Until the block ends the old file stands; afterwards only the new one."""
    path = tmp_path / "file.json"
    path.write_text("old")
    with replace_file(path) as part:
        assert part == tmp_path / "file.json.part"
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    """FILE.part goes, FILE stays; also where nothing was written."""
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replace_file(path) as part:
        part.write_text(str(1 / part.write_text("")))
    with pytest.raises(FileNotFoundError), replace_file(path):
        pass
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_removed_is_gone(tmp_path: Path) -> None:
    """A file, a folder with what is in it, and what never was."""
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "folder" / "inner" / "file").write_text("x")
    (tmp_path / "file").write_text("x")
    for name in ("folder", "file", "nothing"):
        remove(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_processes_that_write_one_file_do_not_share_a_part(tmp_path: Path) -> None:
    """`unique` puts the process's id in the name."""
    with replace_file(tmp_path / "file", unique=True) as part:
        assert part.name == f"file.{os.getpid()}.part"
        part.write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_run_directory_appears_only_when_complete(tmp_path: Path) -> None:
    """While the block runs there is only DIR.part; afterwards only DIR."""
    with open_run_folder(tmp_path / "run") as part:
        (part / "file").write_text("x")
        assert not (tmp_path / "run").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (tmp_path / "run" / "file").read_text() == "x"


def test_a_failed_run_leaves_nothing(tmp_path: Path) -> None:
    """Neither DIR nor DIR.part."""
    with pytest.raises(ZeroDivisionError), open_run_folder(tmp_path / "run") as part:
        (part / "file").write_text(str(1 / 0))
    assert list(tmp_path.iterdir()) == []


def test_what_a_crashed_run_left_is_no_obstacle(tmp_path: Path) -> None:
    """A stale DIR.part is replaced."""
    (tmp_path / "run.part").mkdir()
    (tmp_path / "run.part" / "stale").write_text("x")
    with open_run_folder(tmp_path / "run"):
        pass
    assert list((tmp_path / "run").iterdir()) == []


def test_an_existing_run_is_never_overwritten(tmp_path: Path) -> None:
    """A non-empty DIR is refused with what to do; an empty one is used."""
    (tmp_path / "empty").mkdir()
    with open_run_folder(tmp_path / "empty") as part:
        (part / "file").write_text("x")
    with (
        pytest.raises(InputError, match="already exists: choose another --run-dir"),
        open_run_folder(tmp_path / "empty"),
    ):
        pass


def test_a_full_disk_is_said_in_one_line(tmp_path: Path) -> None:
    """ENOSPC, here from a device that is always full, becomes an OperationError; nothing is left."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with (
        pytest.raises(OperationError, match="No space left on device; free space"),
        open_run_folder(tmp_path / "run"),
    ):
        Path("/dev/full").write_text("x" * 10_000)
    assert list(tmp_path.iterdir()) == []


def test_other_system_errors_pass_through(tmp_path: Path) -> None:
    """Only what the user can mend is explained away."""
    with pytest.raises(OSError, match="boom"), open_run_folder(tmp_path / "run"):
        raise OSError(errno.EIO, "boom")


def test_lines_survive_any_text(tmp_path: Path) -> None:
    """Lone surrogates and line separators come back as they were, from an ASCII file of one line a
    record.
    """
    texts = ["\ud800", "a\u2028b", "\x1b[31mred", "\U0001f600", "</script>"]
    write_jsonl(tmp_path / "lines.jsonl", ({"text": text} for text in texts))
    lines = (tmp_path / "lines.jsonl").read_text(encoding="ascii").splitlines()
    assert [record["text"] for record in read_jsonl(tmp_path / "lines.jsonl")] == texts
    assert [json.loads(line)["text"] for line in lines] == texts


def test_a_tree_is_on_the_disk_with_all_that_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file and folder is waited for, folders after what is in them, and closed to others."""
    waited: list[int] = []
    wait = os.fsync

    def note_and_wait(descriptor: int) -> None:
        waited.append(os.fstat(descriptor).st_ino)
        wait(descriptor)

    run = tmp_path / "run"
    (run / "plots").mkdir(parents=True)
    (run / "plots" / "a.svg").write_text("x")
    (run / "summary.json").write_text("x")
    (run / "elsewhere").symlink_to(tmp_path / "nothing")
    os.mkfifo(run / "pipe")
    monkeypatch.setattr(os, "fsync", note_and_wait)
    sync_tree(run)
    order = [run / "plots" / "a.svg", run / "plots", run / "summary.json", run]
    assert waited == [path.stat().st_ino for path in order]
    assert {path.stat().st_mode & 0o077 for path in order} == {0}


def test_a_run_directory_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with open_run_folder(tmp_path / "runs" / "run") as part:
            (part / "flags.jsonl").write_text("x")
    finally:
        os.umask(before)
    made = [tmp_path / "runs", tmp_path / "runs" / "run", tmp_path / "runs" / "run" / "flags.jsonl"]
    assert [f"{path.stat().st_mode & 0o777:o}" for path in made] == ["700", "700", "600"]


def test_a_run_directory_that_no_ledger_can_name_is_refused(tmp_path: Path) -> None:
    refuse_unfit_name(tmp_path / "caf\u00e9")
    with pytest.raises(InputError, match="not UTF-8, which the ledger cannot hold: choose another"):
        refuse_unfit_name(tmp_path / os.fsdecode(b"caf\xe9"))


def test_what_cannot_wait_for_a_disk_is_no_error(tmp_path: Path) -> None:
    """A pipe has none; what is missing is told."""
    sync_folder(Path("/proc"))
    with pytest.raises(FileNotFoundError):
        sync_file(tmp_path / "nothing")


def test_what_is_written_together_comes_whole_or_not_at_all(tmp_path: Path) -> None:
    """Files and folders take the place of what was there; after a failure all is as before."""

    def write(text: str) -> None:
        with write_together(tmp_path / "a", ("rows", "audit.yaml")) as scratch:
            (scratch / "rows").mkdir()
            (scratch / "rows" / text).write_text(text)
            (scratch / "audit.yaml").write_text(text)
            if text == "fails":
                raise ValueError(text)

    def list_all() -> list[str]:
        return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))

    write("one")
    assert list_all() == ["a", "a/audit.yaml", "a/rows", "a/rows/one"]
    with pytest.raises(ValueError, match="fails"):
        write("fails")
    assert list_all() == ["a", "a/audit.yaml", "a/rows", "a/rows/one"]
    write("two")
    assert list_all() == ["a", "a/audit.yaml", "a/rows", "a/rows/two"]
    assert (tmp_path / "a" / "audit.yaml").read_text() == "two"
