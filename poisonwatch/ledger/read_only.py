"""A ledger for who writes nothing into it: it may lie where nothing can be written, as a backup or
another machine's disk does.

SQLite keeps a log beside its file, and with it the memory that its processes share. Where neither
can be made, and none is there, the file is all there is, and is read as one that never changes
(`immutable`); where somebody changes it all the same, what was read counts for nothing.

Where the file has another name, or is mounted by itself, its log may lie elsewhere: it is not read
like this then, and the gate takes it in no way, nor any ledger like this. What it clears is trained
on, and a log that it did not see may hold the decision that forbids it.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from poisonwatch.errors import OperationError
from poisonwatch.ledger.database import LOCK_WAIT_S
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.sources.sql import parse_database_url
from poisonwatch.text.secrets import conceal
from poisonwatch.text.sqlite_files import find_sqlite_file

# What is mounted where, on Linux.
MOUNTS = Path("/proc/self/mountinfo")


@contextmanager
def open_to_read(url: str, wait_s: float = LOCK_WAIT_S) -> Iterator[Ledger]:
    """Open a ledger that is there already, also where its file or the folder around it cannot be
    written. Raises what `Ledger.existing` does, and OperationError where such a file changed while
    it was read.
    """
    file = _find_read_only_file(url)
    if file is None:
        with Ledger.existing(url, wait_s) as ledger:
            yield ledger
        return
    before = _mark_version(file)
    is_alone = _is_alone(file)
    with Ledger.existing(_name_read_only(url, file, is_alone), wait_s) as ledger:
        yield ledger
    if is_alone and (_mark_version(file) != before or not _is_alone(file)):
        raise OperationError(
            f"the ledger at {conceal(url, url)} was changed by somebody else while it was read: "
            "run again"
        )


def require_one_name(url: str) -> None:
    """Raises OperationError where a ledger's file has another name, or is mounted by itself: what
    is written by that name is in a log beside it, and is not seen by this one.
    """
    file = _find_file(url)
    if file is not None and not _has_one_name(file):
        raise OperationError(
            f"the ledger at {conceal(url, url)} has another name, or is mounted by itself: what is "
            "decided there may be missing here; mount its folder, or name the one file that is "
            "written"
        )


def _find_read_only_file(url: str) -> Path | None:
    file = _find_file(url)
    if file is None or (_can_write(file) and _can_write(file.parent)):
        return None
    return file


def _find_file(url: str) -> Path | None:
    """The file of SQLite itself, behind whatever links; None where there is none."""
    address = parse_database_url(url, "state")
    if address.get_backend_name() != "sqlite":
        return None
    path = find_sqlite_file(address.database)
    return path.resolve() if path is not None and path.is_file() else None


def _can_write(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=True)


def _is_alone(file: Path) -> bool:
    """Whether a ledger's file is all there is of it: no log lies beside it, none could be made
    there, and nobody can have it open under another name, with the log beside that.
    """
    return _has_one_name(file) and not _can_write(file.parent) and not _has_log(file)


def _has_one_name(file: Path) -> bool:
    return file.stat().st_nlink == 1 and not _is_mounted(file)


def _is_mounted(file: Path) -> bool:
    """Whether the file alone was mounted there, as containers do; also where nobody can say."""
    if not MOUNTS.exists():
        return sys.platform == "linux"
    places = (
        line.split(" ")[4] for line in MOUNTS.read_text(errors="surrogateescape").splitlines()
    )
    return str(file) in map(_unescape, places)


def _unescape(place: str) -> str:
    """A path of the list of mounts, where a space stands as \\040."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), place)


def _has_log(file: Path) -> bool:
    """Whether SQLite's log, or the memory that is shared, lies beside a ledger: whoever has it open
    made them, or died.
    """
    log, shared = (file.with_name(f"{file.name}-{part}") for part in ("wal", "shm"))
    return shared.exists() or (log.exists() and log.stat().st_size > 0)


def _mark_version(file: Path) -> tuple[int, ...]:
    """What changes with the file; the time of its change of state cannot be put back."""
    found = file.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _name_read_only(url: str, file: Path, is_alone: bool) -> str:
    """The address of a ledger's file as one that is only read."""
    address = parse_database_url(url, "state")
    options = {**address.query, "mode": "ro", "uri": "true"}
    if is_alone:
        options["immutable"] = "1"
    place = f"file:{quote(os.fsencode(file))}"
    return address.set(database=place, query=options).render_as_string(hide_password=False)
