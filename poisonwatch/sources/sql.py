"""Rows of a SQL query, streamed. With a watermark column, a later reading takes only the rows
beyond its last value.

A row is a JSON object of its columns; what JSON has no type for becomes text (bytes: what they say
in UTF-8, or base64 where they are none).
"""

import base64
import hashlib
import importlib.util
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    URL,
    Connection,
    CursorResult,
    Engine,
    NullPool,
    Row,
    create_engine,
    make_url,
    text,
)
from sqlalchemy.exc import ArgumentError
from sqlalchemy.util import asbool

from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.base import (
    BATCH_ROWS,
    RELATIVE_PATHS,
    Reading,
    SourceFile,
    limit_size,
    parse_cursor,
    translate_errors,
)
from poisonwatch.sources.json_row import dump_compact, make_json_row
from poisonwatch.text.addresses import HIDDEN
from poisonwatch.text.display import excerpt
from poisonwatch.text.environment import expand_variables, open_variables, refuse_hidden
from poisonwatch.text.sqlite_files import find_sqlite_file, say_what_is_ambiguous
from poisonwatch.text.statements import find_literals, hide_literals

CONNECT_TIMEOUT_SECONDS = 30  # that a PostgreSQL server may take to answer
DRIVERS = {"psycopg": "postgres", "psycopg2": "postgres"}  # module to our extra
WATERMARK_PARSERS: dict[str, Callable[[str], Any]] = {
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "Decimal": Decimal,
    "UUID": UUID,
    "int": int,
    "float": float,
    "str": str,
}
"""Watermarks by type: how a value is read from its text."""
_SELECT = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*(?:select|with|values|table)\b", re.IGNORECASE | re.DOTALL
)


@dataclass(slots=True)
class _QueryCursor:
    """What was read: `rows` in all, up to a watermark `value` of a `type`; `last` are digests of
    the rows that have this very value.

    `query` is the digest of query and watermark: another query has other rows.
    """

    query: str
    rows: int = 0
    type: str = ""
    value: str = ""
    last: list[str] = field(default_factory=list)

    def advance(self, value: Any, digest: str, name: str) -> None:
        """A row with this watermark is the last one now."""
        if value is None:
            raise SourceError(
                f"{name}: its watermark is NULL: every row must have one, "
                "or a later pull would never see it"
            )
        kind = type(value).__name__
        written = str(value)
        if isinstance(value, date):
            written = value.isoformat()
        if kind not in WATERMARK_PARSERS:
            known = ", ".join(sorted(WATERMARK_PARSERS))
            raise SourceError(
                f"{name}: the watermark is of the type {kind}: "
                f"choose a column of numbers, times or texts ({known})"
            )
        if (kind, written) != (self.type, self.value):
            self.type, self.value, self.last = kind, written, []
        self.last.append(digest)
        self.rows += 1


class SqlQuery(SourceFile):
    """A query on a database."""

    def __init__(self, source: SourceConfig, url: URL, name: str, key: str) -> None:
        # No fingerprint: nothing tells cheaply whether its rows changed, and it is always run.
        super().__init__(name, None)
        self._source = source
        self._url = url
        self._key = key
        self._column = ""
        query = fill_query(source.query or "", f"{key}.query")
        # SQLAlchemy would take :name for a parameter.
        self._query = query.strip().rstrip(";").replace(":", "\\:")
        self._digest = compute_query_digest(source)

    def check(self) -> None:
        """Run the query for no rows. Raises SourceError where the server, a table or a column is
        not there.
        """
        with (
            translate_errors(f"{self.name} cannot be reached (check `{self._key}`)", self._conceal),
            self._connect() as connection,
        ):
            with self._run(connection, f"SELECT * {self._from} WHERE 1 = 0") as result:
                columns = self._list_columns(result)
            if self._source.watermark is not None and self._source.watermark not in columns:
                raise SourceError(
                    f"{self.name} has no column {self._source.watermark} "
                    f"(`{self._key}.watermark`); it has {', '.join(columns)}"
                )

    def read(self, after: str | None = None) -> Iterator[RawRow]:
        """The rows, ordered by the watermark, or as the query gives them.

        An earlier reading is continued if as many rows lie below its last value as then, and those
        at this value are still there.
        """
        self._reading = reading = Reading()
        with (
            translate_errors(f"{self.name} cannot be read", self._conceal),
            self._connect() as connection,
        ):
            if self._source.watermark is None:
                with self._run(connection, self._query) as result:
                    self._list_columns(result)
                    for position, row in enumerate(result):
                        yield self._make_row(position, _dump_row(row))
                return
            cursor = self._verify_cursor(connection, after)
            reading.continued = cursor is not None
            cursor = cursor or _QueryCursor(self._digest)
            yield from self._read_beyond(connection, cursor)
            if cursor.rows:
                reading.cursor = json.dumps(asdict(cursor))

    def _verify_cursor(self, connection: Connection, after: str | None) -> _QueryCursor | None:
        """The cursor of an earlier reading of this query, if the rows below its value are as many,
        and those at it the same or more.
        """
        cursor = parse_cursor(_QueryCursor, after)
        if cursor is None or cursor.query != self._digest or cursor.type not in WATERMARK_PARSERS:
            return None
        # Counting is cheap where the column has an index; rows below are not read again.
        below = f"{self._column} < :last OR {self._column} IS NULL"
        with self._run(connection, f"SELECT count(*) {self._from} WHERE {below}", cursor) as result:
            if result.scalar_one() != cursor.rows - len(cursor.last):
                return None
        at_value = f"SELECT * {self._from} WHERE {self._column} = :last"
        with self._run(connection, at_value, cursor) as result:
            missing = Counter(cursor.last)
            missing.subtract(_hash_row(_dump_row(row)) for row in result)
        if max(missing.values(), default=0) > 0:
            return None
        return cursor

    def _read_beyond(self, connection: Connection, cursor: _QueryCursor) -> Iterator[RawRow]:
        """The rows at and beyond the cursor's value that it does not cover; it moves along."""
        covered = Counter(cursor.last)
        # From the very value on: rows written in the same second may have come since.
        where = f"WHERE {self._column} >= :last" if cursor.rows else ""
        ordered = f"SELECT * {self._from} {where} ORDER BY {self._column}"
        with self._run(connection, ordered, cursor if cursor.rows else None) as result:
            for row in result:
                raw = _dump_row(row)
                digest = _hash_row(raw)
                if covered[digest] > 0:
                    covered[digest] -= 1
                    continue
                position = cursor.rows
                value = row._mapping[self._source.watermark or ""]
                cursor.advance(value, digest, f"{self.name}, row {position + 1}")
                yield self._make_row(position, raw)

    def _list_columns(self, result: CursorResult[Any]) -> list[str]:
        """The names of a result's columns. Raises SourceError where two have the same."""
        columns = list(result.keys())
        for column in columns:
            if columns.count(column) > 1:
                raise SourceError(
                    f"{self.name} has two columns called {column}: "
                    f"name them apart with AS (`{self._key}.query`)"
                )
        return columns

    def _make_row(self, position: int, raw: bytes) -> RawRow:
        place = f"{self.name}, row {position + 1}"
        return limit_size(make_json_row(self.name, position, place, raw))

    def _run(
        self, connection: Connection, statement: str, cursor: _QueryCursor | None = None
    ) -> CursorResult[Any]:
        """Run a statement, in which `:last` stands for the cursor's value."""
        values = {}
        if cursor is not None:
            values["last"] = WATERMARK_PARSERS[cursor.type](cursor.value)
        return connection.execute(text(statement), values)

    @property
    def _from(self) -> str:
        """The query as a table; it may end in a comment."""
        return f"FROM ({self._query}\n) poisonwatch_rows"

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        """A connection that streams, and commits nothing."""
        engine = make_pull_engine(self._url)
        if self._source.watermark:
            quote = engine.dialect.identifier_preparer.quote
            self._column = f"poisonwatch_rows.{quote(self._source.watermark)}"
        try:
            with engine.connect() as connection:
                # A query may call functions that write: PostgreSQL then refuses.
                yield connection.execution_options(postgresql_readonly=True, yield_per=BATCH_ROWS)
        finally:
            engine.dispose()

    def _conceal(self, words: str) -> str:
        return self._source.secrets.conceal(words)


def fill_query(query: str, key: str) -> str:
    """The query with what its ${NAME}s stand for, each as it stands between single quotes.

    Raises ConfigError where a variable is not set, or a text of the query is missing.
    """
    for start, end in find_literals(query):
        if query[start:end] == HIDDEN:
            refuse_hidden(key)
    return expand_variables(query, key, lambda value: value.replace("'", "''"))


def compute_query_digest(source: SourceConfig) -> str:
    """Tells queries apart: 8 hexadecimal digits."""
    return hashlib.sha256(json.dumps([source.query, source.watermark]).encode()).hexdigest()[:8]


def _hash_row(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:16]


def _dump_row(row: Row[Any]) -> bytes:
    return dump_compact(dict(row._mapping), _convert_to_text)


def _convert_to_text(value: Any) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    return str(value)


def open_query(source: SourceConfig, key: str) -> SqlQuery:
    """The query of a source, tried for no rows.

    Raises SourceError, naming the audit file's `key`, where it is no SELECT, a driver is missing,
    the server does not answer or refuses, or a table or column is not there.
    """
    if not _SELECT.match(source.query or ""):
        raise SourceError(
            f"{key}.query begins with {_find_first_word(source.query or '')!r}: "
            "it must be a SELECT, and changes nothing"
        )
    url = parse_database_url(source.sql or "", f"{key}.sql")
    if url.get_backend_name() == "sqlite":
        refuse_two_places(url, f"{key}.sql")
        place = f"sqlite:///{source.get_display_name(url.database or '')}"
        _refuse_missing_file(url, place, key)
    else:
        host = url.host or ""
        if url.port:
            host += f":{url.port}"
        shown = source.secrets.conceal_known(f"{host}/{url.database or ''}")
        place = f"{url.get_backend_name()}://{shown}"
    # Two queries on one database are two units.
    query = SqlQuery(source, url, f"{place}#{compute_query_digest(source)}", key)
    query.check()
    return query


def _find_first_word(query: str) -> str:
    """What kind of statement a query is, without what it says."""
    return excerpt(hide_literals(query), 20).partition(" ")[0]


def _refuse_missing_file(url: URL, place: str, key: str) -> None:
    """SQLite makes a database that is not there, and waits for a pipe for ever."""
    path = find_sqlite_file(url.database)
    # Without a name it is in memory; SQLite's own options may keep it there, too, or not make it.
    if path is not None and "mode" not in url.query and not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise SourceError(f"{place} {what}: check `{key}.sql` {RELATIVE_PATHS}")


def parse_database_url(setting: str, key: str) -> URL:
    """The SQLAlchemy URL of setting `key`, its ${NAME}s expanded; PostgreSQL through psycopg 3
    where psycopg2 is not installed.

    Raises SourceError where it is none. Its text is not shown: it may hold a password.
    """
    try:
        url = make_url(open_variables(setting, key))
    except (ArgumentError, ValueError):
        shown = "sqlite:///file.db or postgresql://user:${PASSWORD}@host/database"
        raise SourceError(f"{key} is no SQLAlchemy URL: write it as in {shown}") from None
    if url.get_backend_name() == "sqlite" and "\0" in str(find_sqlite_file(url.database)):
        raise SourceError(f"{key} names a file with a null character: no file's name holds one")
    if (
        url.drivername in ("postgres", "postgresql")
        and importlib.util.find_spec("psycopg2") is None
    ):
        return url.set(drivername="postgresql+psycopg")
    return url


def refuse_two_places(url: URL, key: str) -> None:
    """Raises SourceError where SQLite opens another file than its address names."""
    try:
        is_uri = asbool(url.query.get("uri", False))
    except ValueError:
        # Neither true nor false: opening it says so.
        return
    said = say_what_is_ambiguous(url.database, is_uri)
    if said:
        raise SourceError(f"{key} {said}")


def make_pull_engine(url: URL) -> Engine:
    """An engine that keeps no connections. Raises SourceError where the database's driver is not
    installed.
    """
    # psycopg waits for ever by default; what the user's URL says goes first.
    options = {}
    if url.get_backend_name() == "postgresql" and "connect_timeout" not in url.query:
        options["connect_timeout"] = CONNECT_TIMEOUT_SECONDS
    try:
        return create_engine(url, poolclass=NullPool, connect_args=options)
    except ModuleNotFoundError as error:
        install = error.name
        if error.name in DRIVERS:
            install = f"poisonwatch[{DRIVERS[error.name]}]"
        raise SourceError(
            f"{url.drivername} needs the package {error.name}: pip install '{install}'"
        ) from None
