"""Files of SQLite, and the addresses that name them.

In `sqlite:///PATH` a question mark ends the path. One that stands in the path itself needs SQLite's
own form, `sqlite:///file:PATH?uri=true`, with the path quoted as in a URL.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

MEMORY = ":memory:"
_URI = "file:"


def place_sqlite_file(address: str, folder: str) -> str:
    """The address `sqlite:///PATH` of a relative path, as one of that path below `folder`."""
    scheme, _, path = address.partition(":///")
    if path.startswith(_URI):
        return f"{scheme}:///{_URI}{quote(os.fsencode(folder))}/{path.removeprefix(_URI)}"
    if "?" not in folder:
        return f"{scheme}:///{folder}/{path}"
    name, _, options = path.partition("?")
    options = "&".join(filter(None, (options, "uri=true")))
    # Names of variables are expanded later.
    quoted = f"{quote(os.fsencode(folder))}/{quote(os.fsencode(name), safe='/${}')}"
    return f"{scheme}:///{_URI}{quoted}?{options}"


def say_what_is_ambiguous(database: str | None, is_uri: bool) -> str:
    """What is to be written otherwise in an address by which SQLite opens another file than
    `find_sqlite_file` finds; nothing where they are one. `is_uri`: whether it says `uri=true`.
    """
    if not (database or "").startswith(_URI):
        return ""
    if not is_uri:
        return "begins its path with file: and lacks ?uri=true: add that, or leave file: out"
    if "#" in (database or ""):
        return "has # in a path behind file:, which ends it there: write %23"
    return ""


def find_sqlite_file(database: str | None) -> Path | None:
    """The file that an address of SQLite names, by what stands in it behind `sqlite:///`, options
    left out or not; None of a database in memory.
    """
    place = database or MEMORY
    if place.startswith(_URI):
        # A name need not be UTF-8: its bytes are those that SQLite opens.
        quoted = place.removeprefix(_URI).partition("?")[0]
        place = unquote(quoted, errors="surrogateescape")
        # file://HOST/PATH: HOST is empty, or this machine.
        if place.startswith("//"):
            place = f"/{place[2:].partition('/')[2]}"
    if place in ("", MEMORY):
        return None
    return Path(place)


def is_made(path: Path) -> bool:
    """Whether something is where a file of SQLite should be, be it one that cannot be used. A file
    of no bytes is none: its maker was killed, or its disk full.
    """
    try:
        return path.exists() and (not path.is_file() or path.stat().st_size > 0)
    except OSError:
        # A name that is too long, a folder that may not be looked into: opening it says so.
        return True


def list_log_parts(file: Path) -> tuple[Path, Path]:
    """Where SQLite keeps the log of a file, and the log's index, which processes share."""
    return file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """Which file a path leads to: two files of one name differ in it."""

    path: Path
    device: int = 0
    inode: int = 0


def identify_file(path: Path) -> FileIdentity:
    """The file's identity; of zeros where there is none."""
    try:
        found = path.stat()
    except OSError:
        return FileIdentity(path)
    return FileIdentity(path, found.st_dev, found.st_ino)
