"""All rows of the ledger by the words that they say, flagged or not.

The words are an index beside the rows (`row_words`: FTS5 in SQLite, a tsvector in PostgreSQL),
which says nothing that rows do not. Rows are only ever added: those that came since are indexed
before anything is looked up, some at a time, each lot in one transaction; no audit waits for it.

What is looked for is taken for words, whatever it holds: a row must have all of them, and one that
begins with the last.
"""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, func, literal_column, select, text

from poisonwatch.examples import Example, RawRow
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.queries import select_rows_of_file
from poisonwatch.ledger.stored_rows import Readers, load_readers
from poisonwatch.ledger.tables import files, places, rows
from poisonwatch.ledger.transactions import retried
from poisonwatch.sources.open import decode_row
from poisonwatch.text.words import split_words

STATUSES = ("pending", "rejected", "clean", "flagged", "released", "repaired", "poison")
ROWS_PER_LOT = 500
LONGEST_WORD = 200  # characters: PostgreSQL takes no word of more than 2 kB
MOST_WORDS = 20_000  # different words of a row that are indexed
MOST_ASKED = 40  # words of a query

_LAST_INDEXED = {
    "sqlite": "SELECT rowid FROM row_words ORDER BY rowid DESC LIMIT 1",
    "postgresql": 'SELECT max("row") FROM row_words',
}
_ADD = {
    "sqlite": "INSERT INTO row_words (rowid, words) VALUES (:row, :words)",
    "postgresql": 'INSERT INTO row_words ("row", words) '
    "VALUES (:row, array_to_tsvector(CAST(:words AS TEXT[]))) ON CONFLICT DO NOTHING",
}
_MATCH = {
    "sqlite": "rows.row IN (SELECT rowid FROM row_words WHERE row_words MATCH :asked)",
    "postgresql": 'rows."row" IN '
    '(SELECT "row" FROM row_words WHERE words @@ CAST(:asked AS tsquery))',
}


@dataclass(frozen=True, slots=True)
class RowFilter:
    """Which rows: by the words that they say, a file of a source, what became of them."""

    words: str = ""
    source: str = ""
    status: str = ""


@dataclass(frozen=True, slots=True)
class FoundRow:
    """A row of the ledger as it is listed: where it stands first (a file, and its zero-based
    position), and what is read of it; None where it cannot be read.
    """

    example_id: str
    status: str
    source: str
    position: int
    example: Example | None


def index_rows(ledger: Ledger, patience_s: float) -> int:
    """Index rows that are not yet, for about so many seconds: how many are left then."""
    end = time.monotonic() + patience_s
    while True:
        left = _index_lot(ledger)
        if not left or time.monotonic() >= end:
            return left


@retried
def _index_lot(ledger: Ledger) -> int:
    with ledger.read() as connection:
        last = _find_last_indexed(connection)
        newest = connection.execute(select(func.max(rows.c.row))).scalar_one() or 0
    if last >= newest:
        return 0
    with ledger.write(repeatable=True) as connection:
        last = _find_last_indexed(connection)
        lot = select(rows.c.row, rows.c.raw, rows.c.shape, rows.c.problem)
        found = connection.execute(
            lot.where(rows.c.row > last).order_by(rows.c.row).limit(ROWS_PER_LOT)
        ).all()
        readers = load_readers(connection)
        dialect = connection.dialect.name
        values = []
        for row in found:
            words = _list_words(_read_example(row, readers, "", 0))
            said: Any = words if dialect == "postgresql" else " ".join(words)
            values.append({"row": row.row, "words": said})
        if values:
            connection.execute(text(_ADD[dialect]), values)
        counted = select(func.count()).select_from(rows)
        after = found[-1].row if found else last
        return int(connection.execute(counted.where(rows.c.row > after)).scalar_one())


def _find_last_indexed(connection: Connection) -> int:
    return connection.execute(text(_LAST_INDEXED[connection.dialect.name])).scalar() or 0


def _list_words(example: Example | None) -> list[str]:
    """The different words of a row, in any of its turns."""
    if example is None:
        return []
    found: dict[str, None] = {}
    for message in (*example.messages, *example.rejected):
        for word in split_words(message.content):
            found[word[:LONGEST_WORD]] = None
            if len(found) == MOST_WORDS:
                return list(found)
    return list(found)


def _read_example(row: Row[Any], readers: Readers, source: str, position: int) -> Example | None:
    """What is read of a row's own bytes; None where they cannot be read."""
    format, schema = readers.shapes[row.shape]
    if row.problem is not None or format is None:
        return None
    try:
        record = decode_row(row.raw, schema)
    except ValueError:
        return None
    draft = format.read(record)
    return draft.to_example(RawRow(source, position, "", record=record, raw=row.raw))


@retried
def search_rows(
    ledger: Ledger, wanted: RowFilter, page: int = 1, size: int = 50
) -> tuple[list[FoundRow], int]:
    """The `page`th `size` rows of a filter, the newest first, and how many there are in all."""
    with ledger.read() as connection:
        dialect = connection.dialect.name
        conditions = _match(wanted, dialect)
        counted = select(func.count()).select_from(rows).where(*conditions)
        total = connection.execute(counted).scalar_one()
        listed = select(rows.c.row).where(*conditions).order_by(rows.c.row.desc())
        numbers = connection.execute(listed.limit(size).offset((page - 1) * size)).scalars().all()
        return _load_rows(connection, numbers), total


@retried
def list_matching_ids(ledger: Ledger, wanted: RowFilter) -> list[str]:
    """The example ids of all rows of a filter."""
    with ledger.read() as connection:
        query = select(rows.c.id).where(*_match(wanted, connection.dialect.name))
        return [bytes(id).hex() for id in connection.execute(query).scalars()]


@retried
def load_rows(ledger: Ledger, ids: Sequence[str]) -> list[FoundRow]:
    """The rows of these example ids, in this order; those that the ledger does not know are left
    out.
    """
    with ledger.read() as connection:
        query = select(rows.c.id, rows.c.row).where(
            rows.c.id.in_([bytes.fromhex(id) for id in ids])
        )
        number_of = {bytes(id).hex(): row for id, row in connection.execute(query).tuples()}
        return _load_rows(connection, [number_of[id] for id in ids if id in number_of])


@retried
def find_like_words(ledger: Ledger, words: Collection[str], most: int) -> list[FoundRow]:
    """Rows that say any of these words, those that say rare ones first, as the database ranks
    them.
    """
    asked = list(words)[:MOST_ASKED]
    if not asked:
        return []
    with ledger.read() as connection:
        if connection.dialect.name == "postgresql":
            query = text(
                'SELECT "row" FROM row_words WHERE words @@ CAST(:asked AS tsquery) '
                "ORDER BY ts_rank(words, CAST(:asked AS tsquery)) DESC LIMIT :most"
            )
            said = " | ".join(f"'{word}'" for word in asked)
        else:
            query = text(
                "SELECT rowid FROM row_words WHERE row_words MATCH :asked ORDER BY rank LIMIT :most"
            )
            said = " OR ".join(f'"{word}"' for word in asked)
        numbers = connection.execute(query, {"asked": said, "most": most}).scalars().all()
        return _load_rows(connection, numbers)


def _match(wanted: RowFilter, dialect: str) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    words = split_words(wanted.words)[:MOST_ASKED]
    if words:
        words = [word[:LONGEST_WORD] for word in words]
        matched = text(_MATCH[dialect]).bindparams(asked=_write_query(words, dialect))
        conditions.append(matched)  # type: ignore[arg-type]
    elif wanted.words.strip():
        # What holds no word is said by no row.
        conditions.append(literal_column("1") == 0)
    if wanted.source:
        conditions.append(rows.c.row.in_(select_rows_of_file(wanted.source)))
    if wanted.status:
        conditions.append(rows.c.status == wanted.status)
    return conditions


def _write_query(words: Sequence[str], dialect: str) -> str:
    """All of these words, in the database's own form; they hold no quotation marks."""
    if dialect == "postgresql":
        return " & ".join(f"'{word}'" for word in words) + ":*"
    return " ".join(f'"{word}"' for word in words) + " *"


def _load_rows(connection: Connection, numbers: Sequence[int]) -> list[FoundRow]:
    readers = load_readers(connection)
    query: Select[Any] = select(rows).where(rows.c.row.in_(numbers))
    found = {row.row: row for row in connection.execute(query)}
    place_of = _find_places(connection, numbers)
    return list(_list_found(numbers, found, place_of, readers))


def _list_found(
    numbers: Sequence[int],
    found: Mapping[int, Row[Any]],
    place_of: Mapping[int, tuple[str, int]],
    readers: Readers,
) -> Iterator[FoundRow]:
    for number in numbers:
        row = found[number]
        source, position = place_of.get(number, ("", 0))
        example = _read_example(row, readers, source, position)
        yield FoundRow(bytes(row.id).hex(), row.status, source, position, example)


def _find_places(connection: Connection, numbers: Sequence[int]) -> dict[int, tuple[str, int]]:
    """Where each row stands first, in a file that is there or, where it is in none, one that is
    gone.
    """
    query = (
        select(places.c.row, files.c.name, places.c.position)
        .join(files, files.c.file == places.c.file)
        .where(places.c.row.in_(numbers))
        .order_by(files.c.gone_at.is_not(None), files.c.name, places.c.position)
    )
    found: dict[int, tuple[str, int]] = {}
    for row, name, position in connection.execute(query).tuples():
        found.setdefault(row, (name, position))
    return found
