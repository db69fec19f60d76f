"""The register of hostile files: what each kind is called, and the function that writes it."""

from collections.abc import Callable
from pathlib import Path

MIB = 2**20
ROW = b'{"prompt": "Hi?", "response": "Yes."}\n'

# Kinds, each by the function that writes it into a folder and returns its path.
HostileFile = Callable[[Path], Path]
KINDS: dict[str, HostileFile] = {}


def add_bytes(kind: str, name: str, *pieces: bytes | tuple[bytes, int]) -> None:
    """A kind that is a file of these bytes, some of them so many times."""

    def write(folder: Path) -> Path:
        path = folder / name
        with path.open("wb") as file:
            for piece in pieces:
                content, count = piece if isinstance(piece, tuple) else (piece, 1)
                # never all of them in memory: a child's would seem to have been taken before
                while count:
                    some = min(count, max(1, MIB // len(content)))
                    file.write(content * some)
                    count -= some
        return path

    KINDS[kind] = write


def hostile(function: HostileFile) -> HostileFile:
    """A kind called as its function."""
    KINDS[function.__name__.replace("_", " ")] = function
    return function


def write_file(path: Path, content: bytes) -> Path:
    """Write the bytes; the path."""
    path.write_bytes(content)
    return path
