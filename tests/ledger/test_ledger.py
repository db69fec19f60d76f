"""Who may work on a ledger, what is recovered, and how it is opened."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ledgers import (
    NAME,
    ONE,
    pull,
    write_two_files,
)
from servers import postgres_server
from sqlalchemy import Connection, event, select, update

from poisonwatch.errors import OperationError, PoisonwatchError
from poisonwatch.ledger.ledger import Ledger, batched, find_or_add_version, reserve_numbers
from poisonwatch.ledger.tables import audits, files, rows


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture
def ledger(url: str, tmp_path: Path) -> Iterator[Ledger]:
    """Nine pulled rows, one of them broken."""
    write_two_files(tmp_path / "data")
    with Ledger.at(url) as opened:
        pull(opened, tmp_path / "data")
        yield opened


def test_what_died_before_its_commit_is_cleared_away(ledger: Ledger, tmp_path: Path) -> None:
    """The next audit removes the half-written run directory."""
    with ledger.write() as connection:
        cover_state(connection, tmp_path, "running")
    (tmp_path / "run.part").mkdir()
    with ledger.lock("tiny"):
        pass
    assert not (tmp_path / "run.part").exists()
    assert states(ledger) == {"dead": "interrupted"}


def test_what_died_after_its_commit_is_completed(ledger: Ledger, tmp_path: Path) -> None:
    """The next audit puts the complete run directory in its place."""
    with ledger.write() as connection:
        cover_state(connection, tmp_path, "committed")
    (tmp_path / "run.part").mkdir()
    (tmp_path / "run.part" / "summary.json").write_text("{}")
    with ledger.lock("tiny"):
        pass
    assert (tmp_path / "run" / "summary.json").exists()
    assert states(ledger) == {"dead": "finished"}


def cover_state(connection: Connection, tmp_path: Path, state: str) -> None:
    version = find_or_add_version(connection, ONE)
    values = {
        "audit_id": "dead",
        "name": NAME,
        "version": version,
        "state": state,
        "started_at": "",
        "run_dir": str(tmp_path / "run"),
    }
    connection.execute(audits.insert().values(values))


def states(ledger: Ledger) -> dict[str, str]:
    with ledger.read() as connection:
        return dict(connection.execute(select(audits.c.audit_id, audits.c.state)).tuples().all())


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://x/y", "SQLite or PostgreSQL"),
        ("nothing", "no SQLAlchemy URL"),
        ("sqlite:////proc/no/where.db", "cannot be used"),
    ],
)
def test_a_ledger_that_cannot_be_opened_is_said_so(url: str, told: str) -> None:
    """A database of another kind, no URL, a path that cannot be written."""
    with pytest.raises(PoisonwatchError, match=told), Ledger.at(url):
        pass


def test_no_password_is_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens; the password stands in the URL, or in the environment."""
    monkeypatch.setenv("LEDGER_PASSWORD", "hunter2secret")
    for url in (
        "postgresql://ann:hunter2secret@127.0.0.1:9/x",
        "postgresql://ann:${LEDGER_PASSWORD}@127.0.0.1:9/x",
    ):
        with pytest.raises(OperationError) as raised, Ledger.at(url):
            pass
        assert "hunter2secret" not in str(raised.value)


def test_items_come_in_batches() -> None:
    """n at a time, the rest last."""
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]]


def check_reserved_numbers(ledger: Ledger, data: Path) -> None:
    with ledger.write() as connection:
        first = list(reserve_numbers(connection, rows.c.row, 3))
        assert len(set(first)) == 3
    write_two_files(data)
    pull(ledger, data)
    with ledger.write() as connection:
        taken = set(connection.execute(select(rows.c.row)).scalars())
        later = list(reserve_numbers(connection, rows.c.row, 2))
    assert later == sorted(later)
    assert later[0] == max(taken) + 1


def test_reserved_numbers_are_those_that_rows_would_get(tmp_path: Path) -> None:
    """In order, and none that is taken."""
    with Ledger.at(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        check_reserved_numbers(ledger, tmp_path / "data")


def test_numbers_are_reserved_on_postgresql(tmp_path: Path) -> None:
    """From the table's own sequence."""
    with postgres_server() as url, Ledger.at(url) as ledger:
        check_reserved_numbers(ledger, tmp_path / "data")


def change(ledger: Ledger) -> None:
    with ledger.write() as connection:
        connection.execute(update(files).values(mark="other"))


@pytest.mark.parametrize("replaced", [False, True])
def test_a_ledger_that_is_gone_takes_no_commit(
    replaced: bool, ledger: Ledger, url: str, tmp_path: Path
) -> None:
    """Deleted in mid-run, or another in its place: SQLite would write on into a file that nobody
    finds.
    """
    for path in tmp_path.glob("ledger.db*"):
        path.unlink()
    if replaced:
        with Ledger.at(url):
            pass
    with pytest.raises(OperationError, match="was deleted or replaced while it was open"):
        change(ledger)
    if replaced:
        with Ledger.existing(url) as there, there.read() as connection:
            assert connection.execute(select(rows)).all() == []


def test_a_ledger_that_goes_while_it_commits_is_an_error(ledger: Ledger, tmp_path: Path) -> None:
    """Never is it said that something was recorded."""

    @event.listens_for(ledger.engine, "commit")
    def remove(_: Connection) -> None:
        (tmp_path / "ledger.db").unlink()

    with pytest.raises(OperationError, match="was deleted or replaced"):
        change(ledger)


@pytest.mark.parametrize("name", ["ledger.db", "file:{}/ledger.db?uri=true", "with space.db"])
def test_a_ledger_that_stays_is_taken_for_itself(name: str, tmp_path: Path) -> None:
    """However its URL names it; one in memory has no file."""
    place = f"{tmp_path}/{name}"
    if name.startswith("file:"):
        place = name.format(tmp_path)
    for url in (f"sqlite:///{place}", "sqlite://"):
        with Ledger.at(url) as ledger:
            ledger.set_audit_state(1, "finished")


def test_a_ledger_may_lie_in_a_folder_of_any_name(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are as good as others."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    with Ledger.at(f"sqlite:///{folder / 'ledger.db'}") as ledger:
        ledger.set_audit_state(1, "finished")
    assert (folder / "ledger.db").is_file()


def test_decisions_wait_for_the_disk_and_pulls_do_not(ledger: Ledger) -> None:
    """2 is FULL, 1 NORMAL; the one does not stay for the other on a connection that both use."""
    found = []
    for repeatable in (False, True, False):
        with ledger.write(repeatable) as connection:
            found.append(connection.exec_driver_sql("PRAGMA synchronous").scalar_one())
    assert found == [2, 1, 2]


def test_a_new_ledger_is_for_its_owner_alone(tmp_path: Path) -> None:
    """With its log and its lock: they hold rows, too."""
    before = os.umask(0o022)
    try:
        with (
            Ledger.at(f"sqlite:///{tmp_path / 'new' / 'ledger.db'}") as ledger,
            ledger.lock("tiny"),
        ):
            change(ledger)
            made = [tmp_path / "new", *sorted((tmp_path / "new").iterdir())]
            rights = {path.name: f"{path.stat().st_mode & 0o777:o}" for path in made}
    finally:
        os.umask(before)
    assert rights.pop("new") == "700"
    assert {"ledger.db", "ledger.db-wal", "ledger.db.lock"} <= rights.keys()
    assert set(rights.values()) == {"600"}
