"""Files and folders that are whole or not there at all, and JSON Lines."""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from poisonwatch.errors import InputError, OperationError
from poisonwatch.permissions import make_private_folder, restrict_file, restrict_folder

# What the user can mend: every other error of the system is shown as it comes.
DISK_ERRORS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
}
# What a file system says that cannot be told to write a folder, or a file, to its disk now.
_NOTHING_TO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EISDIR, errno.EACCES}


def get_part_path(path: Path) -> Path:
    """What a file or folder is called until it is complete."""
    return path.with_name(f"{path.name}.part")


def sync_file(path: Path) -> None:
    """Return once what was written to a file is on the disk, and survives that the power goes."""
    # O_RDONLY is enough: what other handles wrote to the file is written, too.
    _sync(path, os.O_RDONLY)


def sync_folder(path: Path) -> None:
    """Return once the names in a folder are on the disk: of what was made in it, renamed, or
    removed.
    """
    _sync(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))


def sync_tree(folder: Path) -> None:
    """Return once a folder is on the disk with all that is in it. Its files and folders are for
    their owner alone from then on (`permissions`).
    """
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(place, name)
            if path.is_symlink() or not path.is_file():
                continue
            restrict_file(path)
            sync_file(path)
        restrict_folder(Path(place))
        sync_folder(Path(place))


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Not every file system can: then there is nothing to wait for. A disk that fails is told.
        if error.errno not in _NOTHING_TO_SYNC:
            raise
    finally:
        os.close(descriptor)


@contextmanager
def replace_file(path: Path, *, unique: bool = False) -> Iterator[Path]:
    """Yield `<path>.part` to write into; it takes the place of `path` when the block ends well, and
    is removed when it does not.

    `unique` puts the process's id in the name: for files that several processes may write at once.
    """
    part = get_part_path(path)
    if unique:
        part = get_part_path(path.with_name(f"{path.name}.{os.getpid()}"))
    try:
        yield part
        part.replace(path)
    except BaseException:
        # A disk that fails may not let go of the file either: the first error is the one to show.
        with suppress(OSError):
            part.unlink()
        raise


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; nothing where there is neither."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def refuse_unfit_name(run_dir: Path) -> None:
    """Raises InputError where a run directory has a name that no ledger can hold."""
    try:
        str(run_dir).encode()
    except UnicodeEncodeError:
        raise InputError(
            f"run directory {run_dir} has a name that is not UTF-8, which the ledger cannot hold: "
            "choose another --run-dir"
        ) from None


@contextmanager
def open_run_folder(run_dir: Path) -> Iterator[Path]:
    """Yield `<run_dir>.part` to write into; it becomes `run_dir` when the block ends well, and is
    removed when it does not. It is on the disk then, and for its owner alone.

    Raises InputError where run_dir exists and is not an empty folder, OperationError where the disk
    is full or read-only.
    """
    if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise InputError(
            f"run directory {run_dir} already exists: choose another --run-dir, or remove it"
        )
    part = get_part_path(run_dir)
    try:
        # A crashed run may have left one.
        shutil.rmtree(part, ignore_errors=True)
        make_private_folder(part)
        try:
            yield part
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        if run_dir.exists():
            run_dir.rmdir()
        # Should any of this fail, the complete folder stays: the ledger may already count on it.
        sync_tree(part)
        part.rename(run_dir)
        sync_folder(run_dir.parent)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise OperationError(
            f"run directory {run_dir} cannot be written: {error.strerror}; "
            "free space or choose another --run-dir"
        ) from error


@contextmanager
def open_scratch_folder() -> Iterator[Path]:
    """Yield a folder for files that are gone when the block ends, however it does."""
    with tempfile.TemporaryDirectory(prefix="poisonwatch-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def write_together(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yield a folder to write files and folders of these names into: they take their places below
    `folder` when the block ends well, in this order, and are gone when it does not. What is in
    their places is replaced.
    """
    make_private_folder(folder)
    # beside their places, since a rename does not lead from disk to disk
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as scratch:
        yield Path(scratch)
        for name in names:
            target = folder / name
            # a file is replaced by a rename, which a folder in its place would refuse
            if target.is_dir():
                remove(target)
            (Path(scratch) / name).replace(target)


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records as JSON Lines in ASCII: hostile text stays inert in any terminal or editor, and
    lone surrogates survive.
    """
    with path.open("w", encoding="ascii") as file:
        for record in records:
            file.write(json.dumps(record) + "\n")


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a JSON Lines file of a run directory."""
    with path.open(encoding="ascii") as file:
        for line in file:
            yield json.loads(line)
