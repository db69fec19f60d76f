"""What to do about a ledger's file that SQLite cannot use, by the code of its error."""

import os
import sqlite3
import time
from pathlib import Path

from poisonwatch.ledger.addresses import parse_ledger_url
from poisonwatch.text.sqlite_files import find_sqlite_file, is_made, list_log_parts

# Less than SQLite needs beside a ledger: 32 KiB that its processes share, and its log.
LEAST_FREE = 256 * 1024
# How often, and how far apart, a log is missed before it is missing.
LOOKS = 3
PAUSE_S = 0.05
DAMAGED = "the file is damaged: put it back from a backup, then `poisonwatch verify` checks it"
WHAT_TO_DO = {
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: "it is no ledger: name another file in `state`; where it was one, put "
    "it back from a backup",
    sqlite3.SQLITE_CANTOPEN: "check the path and its permissions and run again",
    sqlite3.SQLITE_PERM: "check its permissions and run again",
    sqlite3.SQLITE_READONLY: "it and its folder must be writable: see to that and run again",
    sqlite3.SQLITE_BUSY: "another process has it: end that, or wait for it, and run again",
    sqlite3.SQLITE_IOERR: "check its disk and run again",
}


def say_what_to_do(url: str, error: BaseException) -> str:
    """What helps, with a colon before it; nothing where SQLite's driver raised no such error."""
    code = getattr(getattr(error, "orig", None) or error, "sqlite_errorcode", None)
    if code is None:
        return ""
    # The low byte is the kind.
    kind = code & 0xFF
    path = find_sqlite_file(parse_ledger_url(url).database)
    # Where its log or the memory that processes share cannot be made longer it speaks of I/O.
    is_full = kind == sqlite3.SQLITE_IOERR and path is not None and _is_full(path.parent)
    if kind == sqlite3.SQLITE_FULL or is_full:
        return ": its disk is full: free space and run again"
    if kind == sqlite3.SQLITE_CANTOPEN and path is not None and path.is_dir():
        return ": it is a folder: name a file in `state`"
    if kind == sqlite3.SQLITE_READONLY and path is not None:
        return f": {_say_what_is_read_only(path) or WHAT_TO_DO[kind]}"
    return f": {WHAT_TO_DO[kind]}" if kind in WHAT_TO_DO else ""


def _say_what_is_read_only(path: Path) -> str:
    """What to do about the parts of a log that cannot be written while the ledger and its folder
    can, as where another user read it; nothing where it is not these.
    """
    file = path.resolve()
    there = [part for part in list_log_parts(file) if part.exists()]
    fixed = [part for part in there if not _can_write(part)]
    if not fixed or not _can_write(file) or not _can_write(file.parent):
        return ""
    log, _ = list_log_parts(file)
    names = " and ".join(part.name for part in fixed)
    said = f"{names} beside it cannot be written"
    if log in fixed and is_made(log):
        return f"{said}: change its rights, and keep it, which may hold what was decided last"
    # An index that stays without its log would be one whose log is missing.
    gone = " and ".join(part.name for part in (there if log in fixed else fixed))
    return f"{said}: remove {gone} once nobody has the ledger open"


def _can_write(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=True)


def refuse_unfit_file(path: Path) -> None:
    """Raises OSError where a ledger's path leads to no file that SQLite should open: it takes some
    devices, and then speaks of a disk; and it begins a new log where there was one.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError("it is a device, a pipe or a socket, and no file: name a file in `state`")
    if not is_made(path):
        return
    file = path.resolve()
    # Whoever opens or closes it at that moment makes both, or removes both.
    for _ in range(LOOKS):
        if not _lacks_log(file):
            return
        time.sleep(PAUSE_S)
    log, index = list_log_parts(file)
    raise OSError(
        f"its log is missing: {index.name} lies beside it, and {log.name}, which may hold what was "
        "decided last, does not: put that back, or copy the ledger again with all three files"
    )


def _lacks_log(file: Path) -> bool:
    """Whether the index of a log was left behind, as by who copied a ledger that was open."""
    log, index = list_log_parts(file)
    return index.exists() and not log.exists()


def _is_full(folder: Path) -> bool:
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < LEAST_FREE
