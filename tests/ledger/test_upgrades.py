"""What an upgrade would change in a ledger is told without changing it."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ledgers import NAME
from older_ledgers import make_older_ledger
from servers import postgres_server
from sqlalchemy import create_engine, inspect

from poisonwatch.config import AuditConfig
from poisonwatch.errors import ConfigError, InputError
from poisonwatch.ledger.database import VERSION_TABLE, find_newest_revision
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.upgrades import (
    ROOM_FACTOR,
    copy_ledger,
    find_ledger_file,
    list_migrations,
    plan_ledger_upgrade,
)
from poisonwatch.ledger.verdict_settings import describe_verdict_settings
from poisonwatch.sources.sql import parse_database_url

FILES = [
    "INSERT INTO files (file, audit, name, fingerprint, mark, reading, rows, read_at) "
    f"VALUES ({number}, '{name}', 'a{number}.jsonl', 'f', NULL, '{reading}', 5, '')"
    for number, name, reading in (
        (1, NAME, '["auto", {}, null]'),
        (2, NAME, '{"rules": 1}'),
        (3, "another", '["auto", {}, null]'),
    )
]
AUDIT = [
    "INSERT INTO versions (version, model, sentinels) VALUES (1, 'm', 's')",
    "INSERT INTO audits (audit, audit_id, name, version, state, started_at, run_dir) "
    f"VALUES (1, 'one', '{NAME}', 1, 'finished', '', '')",
]


def configure(url: str) -> AuditConfig:
    return AuditConfig.model_validate(
        {"name": NAME, "source": "rows.jsonl", "sentinels": "s.yaml", "state": url}
    )


@pytest.fixture
def config(tmp_path: Path) -> AuditConfig:
    """Of a ledger of revision 0004 with two files of its source."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    make_older_ledger(url, "0004", [*FILES, *AUDIT])
    return configure(url)


@pytest.fixture
def current(tmp_path: Path) -> Iterator[AuditConfig]:
    """Of a ledger of this version."""
    url = f"sqlite:///{tmp_path / 'current.db'}"
    with Ledger.at(url):
        yield configure(url)


def test_migrations_are_those_after_a_revision_in_order() -> None:
    """Each with its words on one line."""
    found = list_migrations("0005")
    revisions = [migration.revision for migration in found]
    assert revisions == sorted(revisions)
    assert (revisions[0], revisions[-1]) == ("0006", find_newest_revision())
    assert all(migration.about and "\n" not in migration.about for migration in found)
    assert list_migrations(find_newest_revision()) == []


def test_what_would_change_is_told_and_nothing_changes(config: AuditConfig) -> None:
    """Files of the audit's own source that other rules read are read anew."""
    file = find_ledger_file(config)
    assert file is not None
    before = file.read_bytes()
    found = plan_ledger_upgrade(config)
    assert (found.revision, found.newest) == ("0004", find_newest_revision())
    assert found.migrations == list_migrations("0004")
    assert (found.files, found.rows) == (2, 10)
    assert (found.written_by, found.at_work, found.is_judged_otherwise) == (None, [], False)
    assert found.size >= len(before)
    assert file.read_bytes() == before


def test_a_ledger_of_this_version_needs_nothing(current: AuditConfig) -> None:
    """No migration, no room, nothing anew."""
    found = plan_ledger_upgrade(current)
    assert (found.migrations, found.files, found.lacks_room) == ([], 0, False)
    assert found.revision == found.newest


def test_a_migration_and_a_copy_need_room(config: AuditConfig) -> None:
    """On a server nobody knows."""
    found = plan_ledger_upgrade(config)
    assert replace(found, free=ROOM_FACTOR * found.size - 1).lacks_room
    assert not replace(found, free=ROOM_FACTOR * found.size).lacks_room
    assert not replace(found, free=None).lacks_room


def test_a_ledger_of_a_newer_version_is_refused_in_words(current: AuditConfig) -> None:
    """As any command refuses it."""
    database = sqlite3.connect(current.state.removeprefix("sqlite:///"))
    with database:
        database.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    database.close()
    with pytest.raises(ConfigError, match=r"newer version .*9999"):
        plan_ledger_upgrade(current)


@pytest.mark.parametrize("is_empty", [False, True])
def test_where_no_ledger_is_none_is_made(tmp_path: Path, is_empty: bool) -> None:
    """Neither is an empty file one."""
    if is_empty:
        (tmp_path / "none.db").touch()
    with pytest.raises(InputError, match="no ledger"):
        plan_ledger_upgrade(configure(f"sqlite:///{tmp_path / 'none.db'}"))
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [0] * is_empty


def test_audits_at_work_are_named(current: AuditConfig) -> None:
    """By the lock that they hold."""
    make = "INSERT INTO versions (version, model, sentinels) VALUES (1, 'm', 's')"
    with Ledger.at(current.state) as ledger:
        with ledger.write() as connection:
            connection.exec_driver_sql(make)
            connection.exec_driver_sql(AUDIT[1])
        with ledger.lock(NAME):
            assert plan_ledger_upgrade(current).at_work == [NAME]
        assert plan_ledger_upgrade(current).at_work == []


def test_other_settings_than_the_last_audits_are_told(current: AuditConfig) -> None:
    """Its rows are audited again."""
    with Ledger.at(current.state) as ledger, ledger.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO versions (version, model, sentinels, settings) VALUES (1, 'm', 's', ?)",
            (describe_verdict_settings(current),),
        )
        connection.exec_driver_sql(AUDIT[1])
    assert not plan_ledger_upgrade(current).is_judged_otherwise
    stricter = {"detection": current.detection.model_copy(update={"false_discovery_rate": 0.42})}
    assert plan_ledger_upgrade(current.model_copy(update=stricter)).is_judged_otherwise


def test_a_copy_is_whole_while_others_write_and_replaces_none(config: AuditConfig) -> None:
    """What is committed is in it, what is not yet is not; it is for its owner alone."""
    file = find_ledger_file(config)
    assert file is not None
    writer = sqlite3.connect(file, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("UPDATE files SET rows = 7 WHERE file = 1")
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE files SET rows = 8 WHERE file = 1")
    first, second = copy_ledger(file, "0004"), copy_ledger(file, "0004")
    writer.close()
    assert (first.name, second.name) == ("ledger.db.before-0004", "ledger.db.before-0004.2")
    assert first.stat().st_mode & 0o077 == 0
    copy = sqlite3.connect(first)
    assert copy.execute("SELECT rows FROM files WHERE file = 1").fetchone() == (7,)
    copy.close()


def test_a_ledger_in_postgresql_is_looked_at_and_not_changed() -> None:
    """Its tables are those of before."""
    with postgres_server() as url:
        make_older_ledger(url, "0004", [*FILES, *AUDIT])
        found = plan_ledger_upgrade(configure(url))
        assert (found.revision, found.files, found.free) == ("0004", 2, None)
        assert found.size > 0
        engine = create_engine(parse_database_url(url, "state"))
        tables = inspect(engine).get_table_names()
        engine.dispose()
        assert "variants" not in tables
        with Ledger.at(url):
            assert plan_ledger_upgrade(configure(url)).migrations == []
