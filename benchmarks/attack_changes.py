"""Changes that somebody makes by hand: to each column and row of a ledger, to each file beside it."""

import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Tables that say which version they are of, who is at work, and how somebody likes to look at rows:
# nothing rests on them afterwards. So it is with the index of words, which SQLite has in several.
NO_EVIDENCE = ("poisonwatch_version", "audit_locks", "claimed_rows", "commits", "saved_views")
INDEX = "row_words"
# What a column that holds nothing is set to.
FILLED_IN = {"decided": "benign", "group": 1, "settings": "0" * 64}


@dataclass(frozen=True)
class Change:
    """Something that somebody may do: the part of Poisonwatch that it is done to, what, and how."""

    part: str
    what: str
    make: Callable[[], None]


def open_ledger(path: Path) -> sqlite3.Connection:
    """Raw SQL, without foreign keys, and nothing left in the log of writes."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA foreign_keys = OFF")
    return connection


def run_sql(path: Path, *statements: tuple[str, tuple[Any, ...]]) -> int:
    """Run statements in one transaction; how many rows they changed."""
    connection = open_ledger(path)
    try:
        connection.execute("BEGIN IMMEDIATE")
        changed = 0
        for text, values in statements:
            changed += connection.execute(text, values).rowcount
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return changed
    finally:
        connection.close()


def list_changes(ledger: Path) -> Iterator[Change]:
    """UPDATE of every column, DELETE of one row and of all, INSERT of a row like another: of every
    table that holds any, and evidence.
    """
    connection = open_ledger(ledger)
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    for (table,) in tables.fetchall():
        if not is_evidence(table):
            continue
        columns = connection.execute(f"PRAGMA table_info('{table}')").fetchall()
        names = [column[1] for column in columns]
        keys = [column[1] for column in columns if column[5]]
        row = choose_row(connection, table, names)
        if row is None:
            continue
        part = f"ledger: {table}"
        where = " AND ".join(f'"{name}" = ?' for name in keys)
        key = [row[name] for name in keys]
        for name in names:
            changed = change_value(name, row[name])
            if name in keys and isinstance(changed, int):
                changed = make_other(connection, table, name, row[name])
            text = f'UPDATE "{table}" SET "{name}" = ? WHERE {where}'
            yield Change(part, f"UPDATE {name}", sql(ledger, text, changed, *key))
        text = f'DELETE FROM "{table}" WHERE {where}'
        yield Change(part, "DELETE a row", sql(ledger, text, *key))
        yield Change(part, "DELETE all rows", sql(ledger, f'DELETE FROM "{table}"'))
        copied = make_like(connection, table, row, keys)
        places = ", ".join("?" for _ in names)
        quoted = ", ".join(f'"{name}"' for name in names)
        text = f'INSERT INTO "{table}" ({quoted}) VALUES ({places})'
        yield Change(part, "INSERT a row", sql(ledger, text, *[copied[name] for name in names]))
    connection.close()


def is_evidence(table: str) -> bool:
    """Whether what a table holds is part of what was found and decided."""
    return not table.startswith(("sqlite_", INDEX)) and table not in NO_EVIDENCE


def choose_row(
    connection: sqlite3.Connection, table: str, names: list[str]
) -> dict[str, Any] | None:
    """A row of the table, about a flagged row of the source where it is about one at all."""
    order = "1"
    if "row" in names:
        order = '"row" IN (SELECT "row" FROM flags) DESC'
    query = f'SELECT * FROM "{table}" ORDER BY {order} LIMIT 1'
    found = connection.execute(query).fetchone()
    return None if found is None else dict(zip(names, found, strict=True))


def change_value(name: str, value: Any) -> Any:
    """Another value that could stand there."""
    if name == "status":
        return "released" if value != "released" else "clean"
    if value is None:
        return FILLED_IN.get(name, "made up")
    if name == "envelope":
        return change_signature(value)
    if isinstance(value, bytes):
        return value[:-1] + bytes([value[-1] ^ 1])
    if isinstance(value, int):
        return 1 - value if name == "flagged" else value + 1
    if isinstance(value, float):
        return value / 2 + 1
    return change_text(value)


def change_signature(envelope: str) -> str:
    """An envelope with another character in the middle of its signature: the last one of a text in
    base64 may stand for nothing.
    """
    told = json.loads(envelope)
    made = told["signatures"][0]["sig"]
    middle = len(made) // 2
    other = "A" if made[middle] != "A" else "B"
    told["signatures"][0]["sig"] = made[:middle] + other + made[middle + 1 :]
    return json.dumps(told)


def change_text(value: str) -> str:
    """The text with its last digit another one, or with a letter more; JSON stays JSON."""
    if value.startswith(("[", "{")):
        with suppress(ValueError):
            return json.dumps(change_json(json.loads(value)))
    changed = re.sub(r"\d(?=\D*$)", lambda match: str((int(match[0]) + 1) % 10), value, count=1)
    return changed if changed != value else value + "x"


def make_like(
    connection: sqlite3.Connection, table: str, row: dict[str, Any], keys: list[str]
) -> dict[str, Any]:
    """A row like another, under a key of its own, and other values where these must be unique."""
    copied = dict(row)
    for name in keys[:1] if len(keys) == 1 else keys[-1:]:
        copied[name] = make_other(connection, table, name, row[name])
    for index in connection.execute(f"PRAGMA index_list('{table}')").fetchall():
        if not index[2] or index[3] == "pk":
            continue
        for column in connection.execute(f"PRAGMA index_info('{index[1]}')").fetchall()[-1:]:
            name = column[2]
            copied[name] = make_other(connection, table, name, row[name])
    return copied


def make_other(connection: sqlite3.Connection, table: str, name: str, value: Any) -> Any:
    """A value of a column that no row has."""
    if isinstance(value, int):
        last = connection.execute(f'SELECT max("{name}") FROM "{table}"').fetchone()[0]
        return last + 1
    if isinstance(value, bytes):
        return bytes(byte ^ 0x5A for byte in value)
    return f"{value}"[:-1] + "~"


def sql(ledger: Path, text: str, *values: Any) -> Callable[[], None]:
    """What runs a statement, which must change something."""

    def make() -> None:
        assert run_sql(ledger, (text, values)) > 0, text

    return make


def list_file_changes(folder: Path) -> Iterator[Change]:
    """Each file of run directories and of the release: a byte changed, cut off, removed; another one
    added; and a release's rows.
    """
    for place in ("runs/first", "cleared"):
        part = "run directory" if place.startswith("runs") else "release"
        for path in sorted((folder / place).rglob("*")):
            if not path.is_file():
                continue
            name = str(path.relative_to(folder / place))
            yield Change(part, f"a byte of {name}", lambda path=path: flip_byte(path))
            yield Change(part, f"cut off {name}", lambda path=path: cut_off(path))
            yield Change(part, f"remove {name}", lambda path=path: path.unlink())
        added = folder / place / "more.jsonl"
        yield Change(part, "add a file", lambda path=added: copy_rows(folder, path))
    clean = folder / "cleared" / "clean.jsonl"
    yield Change("release", "a flagged row put in", lambda: append_flagged(folder, clean))
    yield Change("release", "a row twice", lambda: append_first(clean))
    yield Change("release", "rows in another order", lambda: reverse_lines(clean))
    manifest = folder / "cleared" / "manifest.json"
    for name in json.loads(manifest.read_text()):
        yield Change(
            "release", f"manifest: {name}", lambda name=name: change_manifest(manifest, name)
        )
    others = folder / "runs" / "second" / "scores.parquet"
    mine = folder / "runs" / "first" / "scores.parquet"
    if others.exists():
        yield Change("run directory", "scores of another run", lambda: put_over(others, mine))


def flip_byte(path: Path) -> None:
    """Change the byte in the middle, or put one in."""
    content = bytearray(path.read_bytes()) or bytearray(b"\0")
    middle = len(content) // 2
    content[middle] ^= 1
    put(path, bytes(content))


def cut_off(path: Path) -> None:
    """Leave the first half."""
    content = path.read_bytes()
    put(path, content[: len(content) // 2] if content else b"x")


def put(path: Path, content: bytes) -> None:
    """Write, whoever may."""
    path.chmod(0o600)
    path.write_bytes(content)


def put_over(source: Path, target: Path) -> None:
    target.unlink()
    shutil.copy(source, target)


def copy_rows(folder: Path, path: Path) -> None:
    shutil.copy(folder / "rows.jsonl", path)


def append_flagged(folder: Path, clean: Path) -> None:
    """The first row that was flagged and that nobody called benign."""
    first = (folder.parent / "poison.jsonl").read_bytes().partition(b"\n")[0]
    put(clean, clean.read_bytes() + first + b"\n")


def append_first(clean: Path) -> None:
    content = clean.read_bytes()
    put(clean, content + content.partition(b"\n")[0] + b"\n")


def reverse_lines(clean: Path) -> None:
    put(clean, b"".join(reversed(clean.read_bytes().splitlines(keepends=True))))


def change_manifest(manifest: Path, name: str) -> None:
    """Another value of a field, of its first part where it has parts."""
    told = json.loads(manifest.read_text())
    told[name] = change_json(told[name])
    put(manifest, json.dumps(told, indent=2).encode())


def change_json(value: Any) -> Any:
    if isinstance(value, dict) and value:
        first = next(iter(value))
        return {**value, first: change_json(value[first])}
    if isinstance(value, list) and value:
        return [change_json(value[0]), *value[1:]]
    if isinstance(value, bool | dict | list | None):
        return "made up"
    if isinstance(value, int | float):
        return value + 1
    return change_text(str(value))
