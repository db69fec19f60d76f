"""Releases of made-up rows, and what is in their files."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ledgers import NAME, cover, pull, sqlite_ledger

from poisonwatch.ledger.ledger import Ledger
from poisonwatch.release.release import (
    write_release,
)


def manifest(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return read


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@contextmanager
def released(folder: Path, content: bytes, **settings: Any) -> Iterator[tuple[Ledger, Path]]:
    """A source of this one file, all clean, and the folder of its release."""
    (folder / "data").mkdir()
    (folder / "data" / "a.jsonl").write_bytes(content)
    with sqlite_ledger(folder) as ledger:
        pull(ledger, folder / "data")
        cover(ledger, folder / "run")
        write_release(ledger, NAME, folder / "out", **settings)
        yield ledger, folder / "out"


def dump_lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)
