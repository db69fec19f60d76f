"""Rows of SQL queries, on SQLite and on a real PostgreSQL."""

import base64
import datetime
import decimal
import json
import subprocess
import sys
import traceback
import tracemalloc
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from servers import PASSWORD, free_port, own_postgres_server
from sqlalchemy import Engine, text

from poisonwatch.errors import ConfigError, SourceError
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.base import EXCERPT_CHARACTERS, MAX_ROW_BYTES, MIB
from poisonwatch.sources.open import decode_row, open_source, read_source
from poisonwatch.sources.sql import SqlQuery, make_pull_engine, open_query, parse_database_url
from poisonwatch.text.environment import expand_variables

QUERY = "SELECT id, prompt, response FROM rows"


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server."""
    with own_postgres_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with a table `rows` of three rows."""
    place = (
        f"sqlite:///{tmp_path / 'rows.db'}"
        if request.param == "sqlite"
        else request.getfixturevalue("postgres")
    )
    if request.param == "sqlite":
        (tmp_path / "rows.db").touch()
    say(
        place,
        "DROP TABLE IF EXISTS rows",
        "CREATE TABLE rows (id INTEGER, prompt TEXT, response TEXT, at TIMESTAMP)",
    )
    insert(place, *range(3))
    return place


def database(url: str) -> Engine:
    return make_pull_engine(parse_database_url(url, "source.sql"))


def say(url: str, *statements: str, **values: Any) -> None:
    with database(url).begin() as connection:
        for statement in statements:
            connection.execute(text(statement), values)


def insert(url: str, *numbers: int) -> None:
    for n in numbers:
        say(
            url,
            "INSERT INTO rows (id, prompt, response) VALUES (:n, :prompt, :response)",
            n=n,
            prompt=f"Q{n}",
            response=f"A{n}",
        )


def query(
    url: str, statement: str = QUERY, watermark: str | None = "id", folder: Path | None = None
) -> SqlQuery:
    source = SourceConfig(sql=url, query=statement, watermark=watermark)
    return open_query(source.with_base_folder(folder) if folder else source, "source")


def found(unit: SqlQuery, after: str | None = None) -> list[tuple[int, int]]:
    """Each row's position and number."""
    return [(row.position, row.record["id"]) for row in unit.read(after) if row.record is not None]


def refusal(
    url: str, statement: str = QUERY, watermark: str | None = None, after: str | None = None
) -> str:
    """The error's text, after a look at all that a logged traceback would show."""
    with pytest.raises(SourceError) as caught:
        list(query(url, statement, watermark).read(after))
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_rows_are_records_of_their_columns(url: str) -> None:
    """With and without a watermark; raw is compact JSON, and gives the record again."""
    for watermark in (None, "id"):
        unit = query(url, watermark=watermark)
        rows = list(unit.read())
        assert [row.record for row in rows] == [
            {"id": n, "prompt": f"Q{n}", "response": f"A{n}"} for n in range(3)
        ]
        assert rows[1].raw == b'{"id":1,"prompt":"Q1","response":"A1"}'
        assert [decode_row(row.raw, unit.schema) for row in rows] == [row.record for row in rows]
        assert rows[1].place == f"{unit.name}, row 2"
        assert (unit.fingerprint, unit.cursor is None) == (None, watermark is None)


def test_whole_source_is_pulled_like_any_other(url: str) -> None:
    """Formats are detected from the columns."""
    rows = read_source(SourceConfig(sql=url, query=QUERY))
    assert [draft.text(assistant=True) for _, draft in rows] == ["A0", "A1", "A2"]


def test_later_reading_takes_what_lies_beyond_the_watermark(url: str) -> None:
    """Positions go on; nothing new gives nothing, and the same cursor."""
    first = query(url)
    assert found(first) == [(0, 0), (1, 1), (2, 2)]
    insert(url, 7, 5)
    second = query(url)
    assert found(second, first.cursor) == [(3, 5), (4, 7)]
    assert second.continued
    third = query(url)
    assert found(third, second.cursor) == []
    assert (third.continued, third.cursor) == (True, second.cursor)


def test_rows_at_the_last_watermark_that_came_later_are_taken(url: str) -> None:
    """Several rows of one second: each once, also those that are the same to the letter."""
    first = query(url)
    list(first.read())
    say(
        url,
        "INSERT INTO rows (id, prompt, response) VALUES (2, 'other', 'other'), (2, 'Q2', 'A2'), (3, 'Q3', 'A3')",
    )
    second = query(url)
    rows = list(second.read(first.cursor))
    assert second.continued
    assert sorted((row.record["id"], row.record["prompt"]) for row in rows if row.record) == [
        (2, "Q2"),
        (2, "other"),
        (3, "Q3"),
    ]
    assert [row.position for row in rows] == [3, 4, 5]
    third = query(url)
    assert (found(third, second.cursor), third.continued) == ([], True)


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO rows (id, prompt, response) VALUES (-1, 'late', 'late')",
        "DELETE FROM rows WHERE id = 0",
        "DELETE FROM rows WHERE id = 2",
        "UPDATE rows SET response = 'edited' WHERE id = 2",
        "DELETE FROM rows",
    ],
)
def test_change_below_or_at_the_watermark_makes_the_reading_whole(url: str, change: str) -> None:
    """A row that was committed late has a smaller number than the last one read: it is not lost."""
    first = query(url)
    list(first.read())
    say(url, change)
    second = query(url)
    rows = found(second, first.cursor)
    assert not second.continued
    assert rows == found(query(url))
    assert [position for position, _ in rows] == list(range(len(rows)))


def test_cursor_of_another_query_is_no_cursor(url: str) -> None:
    """Nor is one of another kind."""
    first = query(url)
    list(first.read())
    for other in (query(url, f"{QUERY} WHERE id > 0"), query(url, watermark="prompt")):
        rows = list(other.read(first.cursor))
        assert not other.continued
        assert len(rows) in (2, 3)
        assert other.name != first.name
    assert len(found(query(url), "no cursor")) == 3


def test_every_row_needs_its_watermark(url: str) -> None:
    """One without would be read by no later pull."""
    first = query(url)
    list(first.read())
    say(url, "INSERT INTO rows (prompt, response) VALUES ('Q', 'A')")
    for after in (None, first.cursor):
        assert ": its watermark is NULL: every row must have one" in refusal(
            url, watermark="id", after=after
        )


@pytest.mark.parametrize("end", ["", ";", " ; \n", " -- all of them", " ORDER BY response DESC"])
def test_query_is_taken_as_it_is_written(url: str, end: str) -> None:
    """Semicolons, comments, colons, per cent signs and orders; each as a table of its own."""
    statement = f"SELECT id, ':id' AS prompt, '12:30 100% \\:x' AS response FROM rows WHERE prompt NOT LIKE '%:x%'{end}"
    for watermark in (None, "id"):
        rows = list(query(url, statement, watermark).read())
        assert {(row.record["prompt"], row.record["response"]) for row in rows if row.record} == {
            (":id", "12:30 100% \\:x")
        }
        assert len(rows) == 3
    if "ORDER" in end:
        assert [n for _, n in found(query(url, statement, None))] in ([2, 1, 0], [0, 1, 2])


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM rows",
        "DROP TABLE rows",
        "UPDATE rows SET id = 9",
        "",
        "-- SELECT\nDELETE FROM rows",
    ],
)
def test_query_must_be_a_select(url: str, statement: str) -> None:
    """Nothing is changed."""
    assert "it must be a SELECT" in refusal(url, statement)
    assert len(found(query(url))) == 3


def test_select_that_hides_a_change_changes_nothing(postgres: str, tmp_path: Path) -> None:
    """The transaction reads only, and is never committed."""
    say(
        postgres,
        "DROP TABLE IF EXISTS kept",
        "CREATE TABLE kept (id INTEGER)",
        "INSERT INTO kept VALUES (1)",
    )
    hidden = "WITH gone AS (DELETE FROM kept RETURNING id) SELECT id FROM gone"
    assert "cannot be reached" in refusal(postgres, hidden)
    assert found(query(postgres, "SELECT id FROM kept")) == [(0, 1)]


def test_rows_can_be_none(url: str) -> None:
    """An empty pull is no error, and is gone on from nowhere."""
    unit = query(url, f"{QUERY} WHERE id > 100")
    assert (list(unit.read()), unit.cursor) == ([], None)
    with pytest.raises(SourceError, match="holds no rows"):
        read_source(SourceConfig(sql=url, query=f"{QUERY} WHERE id > 100"))


VALUES: dict[str, tuple[str, Any, Any]] = {
    "timestamptz": (
        "TIMESTAMPTZ",
        datetime.datetime(2026, 1, 2, 3, 4, 5, 6, datetime.UTC),
        "2026-01-02 03:04:05.000006+00:00",
    ),
    "date": ("DATE", datetime.date(2026, 1, 2), "2026-01-02"),
    "numeric": ("NUMERIC", decimal.Decimal("1.50"), "1.50"),
    "uuid": ("UUID", uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    "double": ("DOUBLE PRECISION", 0.1, 0.1),
    "bigint": ("BIGINT", 2**60, 2**60),
    "text": ("TEXT", "é ' :x", "é ' :x"),
}


@pytest.mark.parametrize("kind", VALUES)
def test_watermarks_of_every_usual_type_are_gone_on_from(postgres: str, kind: str) -> None:
    """Bound as the type they came in; in the row, what JSON has no type for is text."""
    column, value, written = VALUES[kind]
    say(
        postgres,
        "DROP TABLE IF EXISTS marks",
        f"CREATE TABLE marks (id SERIAL, mark {column})",
        "INSERT INTO marks (mark) VALUES (:v)",
        v=value,
    )
    first = query(postgres, "SELECT * FROM marks", "mark")
    assert [row.record for row in first.read()] == [{"id": 1, "mark": written}]
    say(postgres, "INSERT INTO marks (mark) SELECT mark FROM marks")
    second = query(postgres, "SELECT * FROM marks", "mark")
    assert found(second, first.cursor) == [(1, 2)]
    assert second.continued


def test_watermark_that_cannot_grow_is_refused(postgres: str) -> None:
    """Truth values, lists."""
    assert (
        "the watermark is of the type bool: choose a column of numbers, times or texts"
        in refusal(postgres, "SELECT true AS b", "b")
    )


def test_nested_columns_stay_nested(postgres: str) -> None:
    """JSON and arrays: a column of messages is a conversation; bytes are base64."""
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    statement = f"SELECT '{json.dumps(messages)}'::jsonb AS messages, ARRAY[1, 2] AS numbers, '\\xff00'::bytea AS bytes"
    rows = read_source(SourceConfig(sql=postgres, query=statement))
    assert rows.raw[0].record == {
        "messages": messages,
        "numbers": [1, 2],
        "bytes": base64.b64encode(b"\xff\x00").decode(),
    }
    assert rows.drafts[0].text(assistant=True) == "Hello"


def test_columns_are_found_whatever_their_case(url: str) -> None:
    """A quoted name is that name; SQLite must not take one that is not there for a text."""
    assert [n for _, n in found(query(url, 'SELECT id, id AS "Mark Up" FROM rows', "Mark Up"))] == [
        0,
        1,
        2,
    ]
    assert "has no column Id (`source.watermark`); it has id, prompt, response" in refusal(
        url, watermark="Id"
    )


def test_two_columns_of_one_name_are_refused(url: str) -> None:
    """A record could hold one of them."""
    message = refusal(url, "SELECT id, prompt AS id FROM rows")
    assert "has two columns called id: name them apart with AS (`source.query`)" in message


def test_long_row_costs_one_row(url: str) -> None:
    """Its neighbours are read, and it counts."""
    say(url, "INSERT INTO rows (id, prompt) VALUES (5, :p)", p="x" * (MAX_ROW_BYTES + 1))
    insert(url, 6)
    first = query(url)
    rows = list(first.read())
    assert [row.problem is None for row in rows] == [True, True, True, False, True]
    assert str(rows[3].problem).startswith("longer than 16 MiB (SHA-256 ")
    assert found(query(url), first.cursor) == []
    assert rows[3].raw.startswith(b'{"id":5,"prompt":"xxx')
    assert len(rows[3].raw) == EXCERPT_CHARACTERS


def test_text_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    """SQLite stores what it is given; the driver refuses it, and the error names the source."""
    url = f"sqlite:///{tmp_path / 'a.db'}"
    (tmp_path / "a.db").touch()
    say(
        url,
        "CREATE TABLE rows (id INTEGER, prompt TEXT)",
        "INSERT INTO rows VALUES (1, CAST(x'ff' AS TEXT))",
    )
    assert "cannot be read: Could not decode to UTF-8 column" in refusal(
        url, "SELECT id, prompt FROM rows"
    )


def test_nul_and_every_script_come_through(tmp_path: Path) -> None:
    """As they stand."""
    url = f"sqlite:///{tmp_path / 'a.db'}"
    (tmp_path / "a.db").touch()
    say(
        url,
        "CREATE TABLE rows (id INTEGER, prompt TEXT)",
        "INSERT INTO rows VALUES (1, :p)",
        p="a\x00b 红 🙂",
    )
    (row,) = query(url, "SELECT * FROM rows").read()
    assert row.record == {"id": 1, "prompt": "a\x00b 红 🙂"}


def test_memory_does_not_grow_with_the_table(url: str) -> None:
    """Ten times the rows, the same peak, to 1 MiB: the rows stay with the server."""

    def of(rows: int) -> int:
        series = (
            f"WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {rows}) SELECT n AS id, "
            "'prompt, prompt, prompt, prompt, prompt, prompt, prompt, prompt' AS prompt FROM s"
        )
        unit = query(url, series)
        tracemalloc.start()
        try:
            assert sum(1 for _ in unit.read()) == rows
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert of(30_000) < of(3_000) + MIB


@pytest.mark.parametrize(
    ("statement", "watermark", "said"),
    [
        ("SELECT * FROM nowhere", None, "nowhere"),
        ("SELECT nothing FROM rows", None, "nothing"),
        (
            "SELECT * FROM rows",
            "nothing",
            "has no column nothing (`source.watermark`); it has id, prompt, response, at",
        ),
        ("SELECT * FROM", None, "syntax error"),
    ],
)
def test_table_or_column_that_is_not_there_is_named_before_anything_is_read(
    url: str, statement: str, watermark: str | None, said: str
) -> None:
    """When the source is opened, and with the key of the audit file."""
    with pytest.raises(SourceError) as caught:
        query(url, statement, watermark)
    assert said in str(caught.value)
    assert "`source" in str(caught.value)


def test_column_that_vanishes_later_is_an_error(url: str) -> None:
    """Between being opened and being read."""
    unit = query(url)
    say(url, "ALTER TABLE rows DROP COLUMN response")
    with pytest.raises(SourceError, match=r"cannot be read: .*response"):
        list(unit.read())


def test_an_address_by_which_sqlite_opens_another_file_is_refused(tmp_path: Path) -> None:
    """The line says what to write."""
    for address, said in (("a.db", r"\?uri=true"), ("a.db#b?uri=true", "%23")):
        with pytest.raises(SourceError, match=rf"^source\.sql .*{said}"):
            query(f"sqlite:///file:{tmp_path}/{address}", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_sqlite_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """Nor is a folder or a pipe taken for one, or a text for a database."""
    with pytest.raises(
        SourceError, match=r"^sqlite:///none\.db does not exist: check `source\.sql`"
    ):
        query(f"sqlite:///{tmp_path / 'none.db'}", folder=tmp_path)
    assert not (tmp_path / "none.db").exists()
    with pytest.raises(SourceError, match=r"is not a file: check `source\.sql`"):
        query(f"sqlite:///{tmp_path}")
    (tmp_path / "text.db").write_text("no database" * 100)
    with pytest.raises(SourceError, match="file is not a database"):
        query(f"sqlite:///{tmp_path / 'text.db'}")


def test_password_that_is_wrong_is_an_error_that_does_not_tell_it(postgres: str) -> None:
    """Written out, or from the environment."""
    message = refusal(postgres.replace(PASSWORD, f"{PASSWORD}wrong"))
    assert "cannot be reached (check `source`): " in message
    assert 'password authentication failed for user "ann"' in message


def test_password_of_the_environment_is_used_and_not_told(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither are user and host, where they come from there; any characters will do."""
    odd = "p@ss/w:rd?%41"
    say(
        postgres,
        "DROP ROLE IF EXISTS bob",
        f"CREATE ROLE bob LOGIN PASSWORD '{odd.replace(':', chr(92) + ':')}'",
    )
    monkeypatch.setenv("DB_PASSWORD", odd)
    monkeypatch.setenv("DB_USER", "bob")
    monkeypatch.setenv("DB_NAME", "postgres")
    address = postgres.partition("@")[2].removesuffix("/postgres")
    unit = query(
        f"postgresql://${{DB_USER}}:${{DB_PASSWORD}}@{address}/${{DB_NAME}}", "SELECT 1 AS id"
    )
    assert found(unit) == [(0, 1)]
    assert unit.name.startswith("postgresql://127.0.0.1:")
    assert "/${DB_NAME}#" in unit.name
    monkeypatch.setenv("DB_PASSWORD", PASSWORD)
    assert '"${DB_USER}"' in refusal(
        f"postgresql://${{DB_USER}}:${{DB_PASSWORD}}@{address}/postgres", "SELECT 1 AS id"
    )
    monkeypatch.delenv("DB_PASSWORD")
    with pytest.raises(
        ConfigError, match=r"^source\.sql: the environment variable DB_PASSWORD is not set"
    ):
        query(f"postgresql://ann:${{DB_PASSWORD}}@{address}/postgres")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://ann:{password}@127.0.0.1:{port}/x", "Connection refused"),
        ("postgresql://ann:{password}@nowhere.invalid/x", "Name or service not known"),
        ("magic://ann:{password}@host/x", "Can't load plugin: sqlalchemy.dialects:magic"),
        (
            "postgresql://ann:{password}@host:{password}/x",
            "source.sql is no SQLAlchemy URL: write it as in ",
        ),
        ("{password}", "source.sql is no SQLAlchemy URL: write it as in "),
        (
            "mysql+pymysql://ann:{password}@host/x",
            "mysql+pymysql needs the package pymysql: pip install 'pymysql'",
        ),
    ],
)
def test_server_that_cannot_be_reached_is_an_error_that_tells_no_password(
    url: str, said: str
) -> None:
    """Refused port, unknown host, unknown kind, no URL, no driver."""
    assert said in refusal(url.format(password=PASSWORD, port=free_port()))


def test_missing_driver_is_named_with_the_extra_that_brings_it() -> None:
    """In a process that cannot import it."""
    code = (
        "import sys; sys.modules['psycopg'] = None; from poisonwatch.sources.open import *;"
        "check_source(SourceConfig(sql='postgresql://u:p@127.0.0.1:1/x', query='SELECT 1'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip().endswith(
        "postgresql+psycopg needs the package psycopg: pip install 'poisonwatch[postgres]'"
    )


def test_database_that_goes_away_midway_is_an_error(postgres: str) -> None:
    """The server ends the connection."""
    unit = query(postgres, "SELECT generate_series(1, 200000) AS id")
    rows = unit.read()
    next(rows)
    say(
        postgres,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'",
    )
    with pytest.raises(SourceError, match="cannot be read: "):
        list(rows)
    assert unit.cursor is None


def test_postgres_urls_of_every_spelling_are_taken(postgres: str) -> None:
    """postgres:// and postgresql:// through the driver that is there; one that names a driver, as
    it is.
    """
    for spelling in ("postgres://", "postgresql://", "postgresql+psycopg://"):
        place = postgres.replace("postgresql://", spelling)
        assert parse_database_url(place, "source.sql").drivername == "postgresql+psycopg"
        (unit,) = open_source(SourceConfig(sql=place, query="SELECT 1 AS id")).units
        assert [row.record for row in unit.read()] == [{"id": 1}]
    assert sqlalchemy.make_url(expand_variables(postgres, "x")).drivername == "postgresql"


def test_bytes_are_the_text_that_they_are(tmp_path: Path) -> None:
    """Some tables keep texts as bytes; what is no UTF-8 is base64."""
    database = f"sqlite:///{tmp_path / 'a.db'}"
    say(database, "CREATE TABLE rows (prompt BLOB, response BLOB, image BLOB)")
    say(database, "INSERT INTO rows VALUES (:p, :r, :i)", p=b"q", r="红".encode(), i=b"\xff")
    rows = read_source(SourceConfig(sql=database, query="SELECT * FROM rows"))
    assert rows.raw[0].record == {"prompt": "q", "response": "红", "image": "/w=="}
