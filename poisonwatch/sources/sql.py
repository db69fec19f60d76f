"""Rows of a SQL query, streamed. With a watermark column, a later reading takes only the rows
beyond its last value.

A row is a JSON object of its columns; what JSON has no type for becomes text (bytes: base64).
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
from pathlib import Path
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

from poisonwatch.config import SourceConfig
from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.sources.base import (
    BATCH_ROWS,
    Reading,
    SourceFile,
    dump_compact,
    limit_size,
    make_json_row,
    parse_cursor,
    translate_errors,
)
from poisonwatch.text.display import excerpt
from poisonwatch.text.environment import conceal, expand_variables

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

    def reach(self, value: Any, digest: str, name: str) -> None:
        """A row with this watermark is the last one now."""
        if value is None:
            raise SourceError(
                f"{name}: its watermark is NULL: every row must have one, or a later pull would never see it"
            )
        kind, written = (
            type(value).__name__,
            value.isoformat() if isinstance(value, date) else str(value),
        )
        if kind not in WATERMARK_PARSERS:
            known = ", ".join(sorted(WATERMARK_PARSERS))
            raise SourceError(
                f"{name}: the watermark is of the type {kind}: choose a column of numbers, times or texts ({known})"
            )
        if (kind, written) != (self.type, self.value):
            self.type, self.value, self.last = kind, written, []
        self.last.append(digest)
        self.rows += 1


class SqlQuery(SourceFile):
    """A query on a database. Nothing tells cheaply whether its rows changed: it is always run."""

    def __init__(self, source: SourceConfig, url: URL, name: str, key: str) -> None:
        super().__init__(name, None)
        self._source = source
        self._url = url
        self._key = key
        self._column = ""
        self._query = (
            (source.query or "").strip().rstrip(";").replace(":", "\\:")
        )  # or :name would be a parameter
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
                columns = self._columns(result)
            if self._source.watermark is not None and self._source.watermark not in columns:
                raise SourceError(
                    f"{self.name} has no column {self._source.watermark} (`{self._key}.watermark`); it has {', '.join(columns)}"
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
                    self._columns(result)
                    yield from (
                        self._row(position, _dump_row(row)) for position, row in enumerate(result)
                    )
                return
            mark = self._verify_cursor(connection, after)
            reading.continued = mark is not None
            mark = mark or _QueryCursor(self._digest)
            yield from self._read_beyond(connection, mark)
            reading.mark = json.dumps(asdict(mark)) if mark.rows else None

    def _verify_cursor(self, connection: Connection, after: str | None) -> _QueryCursor | None:
        """The mark of an earlier reading of this query, if the rows below its value are as many,
        and those at it the same or more.
        """
        mark = parse_cursor(_QueryCursor, after)
        if mark is None or mark.query != self._digest or mark.type not in WATERMARK_PARSERS:
            return None
        outside = f"{self._column} < :last OR {self._column} IS NULL"
        with self._run(connection, f"SELECT count(*) {self._from} WHERE {outside}", mark) as result:
            if result.scalar_one() != mark.rows - len(mark.last):
                return None
        with self._run(
            connection, f"SELECT * {self._from} WHERE {self._column} = :last", mark
        ) as result:
            missing = Counter(mark.last)
            missing.subtract(_hash_row(_dump_row(row)) for row in result)
        return mark if max(missing.values(), default=0) <= 0 else None

    def _read_beyond(self, connection: Connection, mark: _QueryCursor) -> Iterator[RawRow]:
        """The rows at and beyond the mark's value that it does not cover; it moves along."""
        covered = Counter(mark.last)
        where = f"WHERE {self._column} >= :last" if mark.rows else ""
        ordered = f"SELECT * {self._from} {where} ORDER BY {self._column}"
        with self._run(connection, ordered, mark if mark.rows else None) as result:
            for row in result:
                raw = _dump_row(row)
                digest = _hash_row(raw)
                if covered[digest] > 0:
                    covered[digest] -= 1
                    continue
                position = mark.rows
                mark.reach(
                    row._mapping[self._source.watermark or ""],
                    digest,
                    f"{self.name}, row {position + 1}",
                )
                yield self._row(position, raw)

    def _columns(self, result: CursorResult[Any]) -> list[str]:
        columns = list(result.keys())
        twice = next((column for column in columns if columns.count(column) > 1), None)
        if twice is not None:
            raise SourceError(
                f"{self.name} has two columns called {twice}: name them apart with AS (`{self._key}.query`)"
            )
        return columns

    def _row(self, position: int, raw: bytes) -> RawRow:
        return limit_size(
            make_json_row(self.name, position, f"{self.name}, row {position + 1}", raw)
        )

    def _run(
        self, connection: Connection, statement: str, mark: _QueryCursor | None = None
    ) -> CursorResult[Any]:
        """Run a statement, in which `:last` stands for the mark's value."""
        return connection.execute(
            text(statement),
            {} if mark is None else {"last": WATERMARK_PARSERS[mark.type](mark.value)},
        )

    @property
    def _from(self) -> str:
        """The query as a table; it may end in a comment."""
        return f"FROM ({self._query}\n) poisonwatch_rows"

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        """A connection that streams, and commits nothing."""
        engine = make_pull_engine(self._url)
        if self._source.watermark:
            self._column = f"poisonwatch_rows.{engine.dialect.identifier_preparer.quote(self._source.watermark)}"
        try:
            with engine.connect() as connection:
                yield connection.execution_options(postgresql_readonly=True, yield_per=BATCH_ROWS)
        finally:
            engine.dispose()

    def _conceal(self, words: str) -> str:
        return conceal(words, self._source.sql)


def compute_query_digest(source: SourceConfig) -> str:
    """Tells queries apart: 8 hexadecimal digits."""
    return hashlib.sha256(json.dumps([source.query, source.watermark]).encode()).hexdigest()[:8]


def _hash_row(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:16]


def _dump_row(row: Row[Any]) -> bytes:
    return dump_compact(dict(row._mapping), _convert_to_text)


def _convert_to_text(value: Any) -> str:
    return (
        base64.b64encode(value).decode()
        if isinstance(value, bytes | bytearray | memoryview)
        else str(value)
    )


def open_query(source: SourceConfig, key: str) -> SqlQuery:
    """The query of a source, tried for no rows.

    Raises SourceError, naming the audit file's `key`, where it is no SELECT, a driver is missing,
    the server does not answer or refuses, or a table or column is not there.
    """
    if not _SELECT.match(source.query or ""):
        raise SourceError(
            f"{key}.query begins with {excerpt(source.query or '', 20)!r}: it must be a SELECT, and changes nothing"
        )
    url = parse_database_url(source.sql or "", f"{key}.sql")
    if url.get_backend_name() == "sqlite":
        place = f"sqlite:///{source.get_display_name(url.database or '')}"
        _refuse_missing_file(url, place, key)
    else:
        host = f"{url.host or ''}{f':{url.port}' if url.port else ''}"
        place = (
            f"{url.get_backend_name()}://{conceal(f'{host}/{url.database or str()}', source.sql)}"
        )
    query = SqlQuery(source, url, f"{place}#{compute_query_digest(source)}", key)
    query.check()
    return query


def _refuse_missing_file(url: URL, place: str, key: str) -> None:
    """SQLite makes a database that is not there, and waits for a pipe for ever."""
    path = Path(url.database or "")
    if url.database and not url.database.startswith("file:") and not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise SourceError(
            f"{place} {what}: check `{key}.sql` (relative paths start at the audit file's folder)"
        )


def parse_database_url(setting: str, key: str) -> URL:
    """The SQLAlchemy URL of setting `key`, its ${NAME}s expanded; PostgreSQL through psycopg 3
    where psycopg2 is not installed.

    Raises SourceError where it is none. Its text is not shown: it may hold a password.
    """
    try:
        url = make_url(expand_variables(setting, key))
    except (ArgumentError, ValueError):
        shown = "sqlite:///file.db or postgresql://user:${PASSWORD}@host/database"
        raise SourceError(f"{key} is no SQLAlchemy URL: write it as in {shown}") from None
    if (
        url.drivername in ("postgres", "postgresql")
        and importlib.util.find_spec("psycopg2") is None
    ):
        return url.set(drivername="postgresql+psycopg")
    return url


def make_pull_engine(url: URL) -> Engine:
    """An engine that keeps no connections. Raises SourceError where the database's driver is not
    installed.
    """
    waiting = (
        {"connect_timeout": CONNECT_TIMEOUT_SECONDS}
        if url.get_backend_name() == "postgresql" and "connect_timeout" not in url.query
        else {}
    )
    try:
        return create_engine(url, poolclass=NullPool, connect_args=waiting)
    except ModuleNotFoundError as error:
        extra = DRIVERS.get(error.name or "")
        install = f"poisonwatch[{extra}]" if extra else error.name
        raise SourceError(
            f"{url.drivername} needs the package {error.name}: pip install '{install}'"
        ) from None
