"""Whose tables a database has: a ledger's of this version, an earlier or a newer one, or others'."""

import multiprocessing
import time
from pathlib import Path

import pytest
from held_ledgers import open_at_once
from older_ledgers import make_older_ledger
from postgres_faults import connect
from servers import mlflow_store, postgres_server
from sqlalchemy import inspect, select, text

from poisonwatch.errors import ConfigError
from poisonwatch.ledger.database import VERSION_TABLE, choose_options
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.tables import audits
from poisonwatch.sources.sql import parse_database_url

WAIT_S = 60
FIRST = "0001"


def run_sql(url: str, *statements: str) -> None:
    with connect(url) as connection:
        for statement in statements:
            connection.execute(text(statement))


def list_versions(url: str) -> dict[str, list[str]]:
    """What each version table of a database holds."""
    found = {}
    with connect(url) as connection:
        for table in (VERSION_TABLE, "alembic_version"):
            if inspect(connection).has_table(table):
                held = connection.execute(text(f"SELECT version_num FROM {table}"))
                found[table] = list(held.scalars())
    return found


def find_newest(url: str) -> str:
    return list_versions(url)[VERSION_TABLE][0]


@pytest.mark.parametrize("revision", [FIRST, "0008"])
def test_a_version_moves_to_a_table_of_its_own(revision: str, url: str) -> None:
    """Earlier versions shared one with whoever else is in the database, who may have it now."""
    make_older_ledger(url, revision, [])
    assert list_versions(url) == {"alembic_version": [revision]}
    for _ in range(2):
        with Ledger.at(url):
            pass
        assert list_versions(url).keys() == {VERSION_TABLE}
    assert find_newest(url) > "0008"


def test_a_ledger_lives_beside_the_tables_of_others(url: str) -> None:
    """Whatever migration theirs are of: even one that is called as ours is."""
    run_sql(
        url,
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)",
        f"INSERT INTO alembic_version VALUES ('{FIRST}')",
        "CREATE TABLE theirs (one INTEGER)",
    )
    for _ in range(2):
        with Ledger.at(url):
            pass
    assert list_versions(url)["alembic_version"] == [FIRST]
    assert find_newest(url) > "0008"


def test_a_ledger_lives_in_the_file_of_an_mlflow_store(tmp_path: Path) -> None:
    """A real one; each goes on beside the other."""
    from mlflow import MlflowClient

    store = mlflow_store(tmp_path)
    before = list_versions(store)
    with Ledger.at(store):
        pass
    client = MlflowClient(tracking_uri=store)
    client.create_experiment("tiny")
    assert list_versions(store)["alembic_version"] == before["alembic_version"]
    with Ledger.existing(store):
        pass


def test_a_ledger_of_a_newer_version_is_named(url: str) -> None:
    """In one line, which says what to do; nothing is changed, and no password shown."""
    with Ledger.at(url):
        pass
    run_sql(url, f"UPDATE {VERSION_TABLE} SET version_num = '0999'")
    with pytest.raises(ConfigError, match="newer version of Poisonwatch") as raised, Ledger.at(url):
        pass
    assert "0999" in str(raised.value)
    assert "hunter2" not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 2


def test_tables_of_others_are_not_taken_for_a_ledger(url: str) -> None:
    """Where one is called as ours is, the database cannot be shared."""
    run_sql(url, "CREATE TABLE files (one INTEGER)")
    with pytest.raises(ConfigError, match=r"none of a ledger's \(files\)"), Ledger.at(url):
        pass
    assert list_versions(url) == {}


def test_two_that_open_a_new_ledger_at_once_both_do(url: str) -> None:
    """One makes the tables, the other waits for it."""
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    processes = [context.Process(target=open_at_once, args=(url, start)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(WAIT_S)
    assert [process.exitcode for process in processes] == [0, 0]


def test_a_url_has_the_last_word_on_how_a_server_is_connected_to() -> None:
    """What it does not say, Poisonwatch does: no connection waits for ever."""
    plain = choose_options(parse_database_url("postgresql://ann@127.0.0.1/x", "state"))
    assert plain["connect_timeout"] == 10
    assert plain["keepalives_idle"] == 30
    url = "postgresql://ann@127.0.0.1/x?connect_timeout=3&application_name=mine"
    options = choose_options(parse_database_url(url, "state"))
    assert plain.keys() - options.keys() == {"connect_timeout", "application_name"}


def test_what_was_compiled_for_a_ledger_serves_the_next(tmp_path: Path) -> None:
    """Each has an engine of its own, in one process, and asks what all of them ask."""
    query = select(audits.c.audit, audits.c.audit_id).order_by(audits.c.run_dir, audits.c.state)
    found = []
    for name in ("first", "second"):
        with Ledger.at(f"sqlite:///{tmp_path / name}.db") as ledger, ledger.read() as connection:
            found.append(connection.execute(query).context.cache_hit.name)
    assert found == ["CACHE_MISS", "CACHE_HIT"]


def test_a_session_says_whose_it_is() -> None:
    """To whoever looks at the server."""
    with postgres_server() as url, Ledger.at(url) as ledger, ledger.read() as connection:
        assert connection.execute(text("SHOW application_name")).scalar_one() == "poisonwatch"


def test_no_connection_is_kept_while_nobody_asks() -> None:
    """A server that has few, or ends idle ones, has them all for others."""
    query = text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE application_name = 'poisonwatch' AND datname = current_database()"
    )
    with postgres_server() as url, Ledger.at(url) as ledger, connect(url) as other:
        with ledger.read():
            pass
        ledger.disconnect()
        # The server takes a moment to know.
        deadline = time.monotonic() + WAIT_S
        while other.execute(query).scalar_one() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert other.execute(query).scalar_one() == 0
