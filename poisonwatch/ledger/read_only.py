"""A ledger for who writes nothing into it: it may lie where nothing can be written, as a backup or
another machine's disk does.

SQLite keeps a log beside its file, and with it the memory that its processes share. Where neither
can be made, and none is there, the file is all there is, and is read as one that never changes
(`immutable`); where somebody changes it all the same, what was read counts for nothing.

Where the file has another name, or is mounted by itself, its log may lie elsewhere: it is not read
like this then, and the gate takes it in no way, nor any ledger like this. What it clears is trained
on, and a log that it did not see may hold the decision that forbids it. A ledger whose log is
known to be missing nobody opens (`file_faults`).
"""

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from poisonwatch.errors import OperationError, PoisonwatchError
from poisonwatch.ledger.addresses import parse_ledger_url
from poisonwatch.ledger.database import LOCK_WAIT_S
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.text.secrets import conceal
from poisonwatch.text.sqlite_files import find_sqlite_file, list_log_parts

# What is mounted where, on Linux.
MOUNTS = Path("/proc/self/mountinfo")
# That a file is opened again which others open and close: how often, and after how long.
MOST_TRIES = 5
PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class _Sight:
    """What was there of a ledger's file: its `version`, and whether it was all there was of it."""

    version: tuple[int, ...]
    is_alone: bool


@contextmanager
def open_to_read(url: str, wait_s: float = LOCK_WAIT_S) -> Iterator[Ledger]:
    """Open a ledger that is there already, also where its file or the folder around it cannot be
    written. Raises what `Ledger.existing` does, and OperationError where a part of it is missing,
    or such a file changed while it was read.
    """
    file = _find_read_only_file(url)
    if file is None:
        with Ledger.existing(url, wait_s) as ledger:
            yield ledger
        return
    with ExitStack() as opened:
        ledger, seen = _open_read_only(url, file, wait_s, opened)
        try:
            yield ledger
        except (PoisonwatchError, SQLAlchemyError):
            # A file that changes meanwhile looks damaged, or tampered with.
            _require_unchanged(url, file, seen)
            raise
        _require_unchanged(url, file, seen)


def _open_read_only(
    url: str, file: Path, wait_s: float, opened: ExitStack
) -> tuple[Ledger, _Sight]:
    """The ledger of a file that is only read, until `opened` is closed, and what was there of it.
    Raises OperationError where it cannot be opened, also not by being tried again.
    """
    give_up, tries = time.monotonic() + wait_s, 0
    while True:
        seen, tries = _look_at(file), tries + 1
        address = _make_address(url, file, seen.is_alone)
        try:
            return opened.enter_context(Ledger.existing(url, wait_s, address=address)), seen
        except OperationError:
            # Others may have it open elsewhere: their log and its index come and go one by one.
            if tries == MOST_TRIES or time.monotonic() >= give_up:
                _require_parts(url, file)
                raise
        time.sleep(PAUSE_S)


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


def _require_parts(url: str, file: Path) -> None:
    """Raises OperationError where a file that is only read cannot be opened for what is missing
    beside it.
    """
    require_one_name(url)
    log, index = list_log_parts(file)
    if log.exists() and not index.exists():
        raise OperationError(
            f"the ledger at {conceal(url, url)} has a log, {log.name}, whose index, {index.name}, "
            "is missing and cannot be made there: copy ledger and log into a folder that can be "
            "written, and name that in `state`"
        )


def _require_unchanged(url: str, file: Path, seen: _Sight) -> None:
    """Raises OperationError where a file was read as one that never changes, and did."""
    if seen.is_alone and _look_at(file) != seen:
        raise OperationError(
            f"the ledger at {conceal(url, url)} was changed by somebody else while it was read: "
            "run again"
        ) from None


def _look_at(file: Path) -> _Sight:
    try:
        found = file.stat()
        is_alone = _is_alone(file)
    except FileNotFoundError:
        return _Sight((), is_alone=False)
    # The time of its change of state cannot be put back.
    times = found.st_mtime_ns, found.st_ctime_ns
    return _Sight((found.st_dev, found.st_ino, found.st_size, *times), is_alone)


def _find_read_only_file(url: str) -> Path | None:
    file = _find_file(url)
    if file is None or (_can_write(file) and _can_write(file.parent)):
        return None
    return file


def _find_file(url: str) -> Path | None:
    """The file of SQLite itself, behind whatever links; None where there is none."""
    address = parse_ledger_url(url)
    if address.get_backend_name() != "sqlite":
        return None
    path = find_sqlite_file(address.database)
    try:
        return path.resolve() if path is not None and path.is_file() else None
    except OSError:
        # A name that is too long, say: opening it says so.
        return None


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
    """Whether the file alone was mounted there, as containers do, or from there elsewhere; also
    where nobody can say.
    """
    if not MOUNTS.exists():
        return sys.platform == "linux"
    name, mounts = os.fsencode(file), _list_mounts()
    around = [mount for mount in mounts if mount.holds(name)]
    # The file lies in the nearest; of those at one place the last covers the others.
    sources = [mount.locate(name) for mount in sorted(around, key=_measure_depth)[-1:]]
    return any(each.place == name or (each.device, each.root) in sources for each in mounts)


@dataclass(frozen=True, slots=True)
class _Mount:
    """What of a file system, by its device, is seen at which place."""

    device: bytes
    root: bytes
    place: bytes

    def holds(self, name: bytes) -> bool:
        return name.startswith(self.place.rstrip(b"/") + b"/")

    def locate(self, name: bytes) -> tuple[bytes, bytes]:
        """The device of a file that it holds, and the file's path in the whole file system."""
        below = name[len(self.place.rstrip(b"/")) :]
        return self.device, self.root.rstrip(b"/") + below


def _measure_depth(mount: _Mount) -> int:
    return len(mount.place)


def _list_mounts() -> list[_Mount]:
    # A name may hold any byte but a newline, and bytes of which Python's own lines would end.
    lines = (line.split(b" ") for line in MOUNTS.read_bytes().split(b"\n") if line)
    return [_Mount(parts[2], _unescape(parts[3]), _unescape(parts[4])) for parts in lines]


def _unescape(place: bytes) -> bytes:
    """A path of the list of mounts, where a space stands as \\040."""
    return re.sub(rb"\\([0-3][0-7]{2})", lambda found: bytes([int(found[1], 8)]), place)


def _has_log(file: Path) -> bool:
    """Whether SQLite's log, or its index, lies beside a ledger: whoever has it open made them, or
    died.
    """
    log, index = list_log_parts(file)
    # Either may go at any moment.
    with suppress(FileNotFoundError):
        if log.stat().st_size > 0:
            return True
    return index.exists()


def _make_address(url: str, file: Path, is_alone: bool) -> URL:
    """The address of a ledger's file as one that is only read."""
    address = parse_ledger_url(url)
    options = {**address.query, "mode": "ro", "uri": "true"}
    if is_alone:
        options["immutable"] = "1"
    return address.set(database=f"file:{quote(os.fsencode(file))}", query=options)
