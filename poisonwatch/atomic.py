import errno
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from poisonwatch.errors import InputError, OperationError


def get_part_path(folder: Path) -> Path:
    """What a folder is called until it is complete."""
    return folder.with_name(f"{folder.name}.part")


@contextmanager
def open_run_folder(run_dir: Path) -> Iterator[Path]:
    """Yield `<run_dir>.part` to write into; it becomes `run_dir` when the block ends well, and is
    removed when it does not.

    Raises InputError where run_dir exists and is not an empty folder, OperationError where the disk
    is full or read-only.
    """
    if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise InputError(
            f"run directory {run_dir} already exists: choose another --run-dir, or remove it"
        )
    part = get_part_path(run_dir)
    try:
        shutil.rmtree(part, ignore_errors=True)  # what a crashed run left
        part.mkdir(parents=True)
        try:
            yield part
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        if run_dir.exists():
            run_dir.rmdir()
        part.rename(
            run_dir
        )  # should this fail, the complete folder stays: the ledger may already count on it
    except OSError as error:
        if error.errno not in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EROFS,
            errno.EACCES,
            errno.EPERM,
            errno.ENOTDIR,
        ):
            raise
        raise OperationError(
            f"run directory {run_dir} cannot be written: {error.strerror}; free space or choose another --run-dir"
        ) from error


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """JSON Lines in ASCII: hostile text stays inert in any terminal or editor, and lone surrogates
    survive.
    """
    with path.open("w", encoding="ascii") as file:
        for record in records:
            file.write(json.dumps(record) + "\n")


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a JSON Lines file of a run directory."""
    with path.open(encoding="ascii") as file:
        for line in file:
            yield json.loads(line)
