"""Files of SQLite, and the addresses that name them.

In `sqlite:///PATH` a question mark ends the path. One that stands in the path itself needs SQLite's
own form, `sqlite:///file:PATH?uri=true`, with the path quoted as in a URL.
"""

from pathlib import Path
from urllib.parse import quote, unquote

MEMORY = ":memory:"
_URI = "file:"


def place_sqlite_file(address: str, folder: str) -> str:
    """The address `sqlite:///PATH` of a relative path, as one of that path below `folder`."""
    scheme, _, path = address.partition(":///")
    if "?" not in folder:
        return f"{scheme}:///{folder}/{path}"
    name, _, options = path.partition("?")
    options = "&".join(filter(None, (options, "uri=true")))
    return f"{scheme}:///{_URI}{quote(folder)}/{name}?{options}"


def find_sqlite_file(database: str | None) -> Path | None:
    """The file that an address of SQLite names, by what stands in it behind `sqlite:///`, options
    left out or not; None of a database in memory.
    """
    place = database or MEMORY
    if place.startswith(_URI):
        place = unquote(place.removeprefix(_URI).partition("?")[0])
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
    return path.exists() and (not path.is_file() or path.stat().st_size > 0)
