"""One audit of a name at a time; those of other names beside it; a lock that is lost."""

import fcntl
import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from held_ledgers import hold
from ledgers import NAME
from postgres_faults import connect, end_sessions
from servers import postgres_server
from sqlalchemy import select, text

from poisonwatch.errors import OperationError
from poisonwatch.ledger import locks
from poisonwatch.ledger.audits import open_audit
from poisonwatch.ledger.ledger import Ledger, Version
from poisonwatch.ledger.tables import audits

WAIT_S = 60
ONE = Version("m" * 64, "s" * 64)


@pytest.fixture
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


def start_holding(url: str, name: str) -> tuple[Any, Event]:
    """A process that holds the lock on a name, and the event that has it end."""
    context = multiprocessing.get_context("spawn")
    inside, leave = context.Event(), context.Event()
    process = context.Process(target=hold, args=(url, inside, leave, name))
    process.start()
    assert inside.wait(WAIT_S)
    return process, leave


def test_names_do_not_wait_for_each_other(url: str) -> None:
    """Nor is anybody told to."""
    process, leave = start_holding(url, "other")
    told: list[str] = []
    with Ledger.at(url) as ledger, ledger.lock(NAME, lambda: told.append("waiting")):
        assert process.is_alive()
    leave.set()
    process.join(WAIT_S)
    assert told == []


def test_a_second_audit_of_a_name_waits(url: str) -> None:
    """It is told so once, and goes in when the first is done."""
    process, leave = start_holding(url, NAME)
    told: list[str] = []

    def tell() -> None:
        told.append("waiting")
        leave.set()

    with Ledger.at(url) as ledger, ledger.lock(NAME, tell):
        pass
    process.join(WAIT_S)
    assert told == ["waiting"]


def test_the_lock_of_a_killed_process_is_free(url: str) -> None:
    """kill -9 while it holds the lock, of this name and of another."""
    killed = [start_holding(url, name)[0] for name in (NAME, "other")]
    with Ledger.at(url) as ledger:
        for name in (NAME, "other"):
            with ledger.write() as connection:
                connection.execute(audits.insert().values(**_describe(connection, name)))
        for process in killed:
            process.kill()
            process.join(WAIT_S)
        with ledger.lock(NAME), ledger.read() as connection:
            # What the other name's audit left is cleared away, too: nobody is at work on it.
            states = connection.execute(select(audits.c.name, audits.c.state)).tuples().all()
    assert dict(states) == {NAME: "interrupted", "other": "interrupted"}


def _describe(connection: Any, name: str) -> dict[str, Any]:
    from poisonwatch.ledger.versions import find_or_add_version

    return {
        "audit_id": name,
        "name": name,
        "version": find_or_add_version(connection, ONE),
        "state": "running",
        "started_at": "",
        "run_dir": "/nowhere/run",
    }


def test_whoever_is_at_work_is_not_recovered(url: str, tmp_path: Path) -> None:
    """An audit of another name that is alive stays so, with its half-written run directory."""
    with Ledger.at(url) as ledger, Ledger.at(url) as beside:
        (tmp_path / "run.part").mkdir()
        at_work = open_audit(ledger, "alive", "other", ONE, tmp_path / "run")
        with ledger.lock("other"), at_work:
            with beside.lock(NAME), beside.read() as connection:
                assert connection.execute(select(audits.c.state)).scalars().all() == ["running"]
            assert (tmp_path / "run.part").exists()


def test_an_earlier_version_and_this_one_keep_each_other_out(tmp_path: Path) -> None:
    """It locked the whole ledger by this file."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    with Ledger.at(url) as ledger, (tmp_path / "ledger.db.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        lock = ledger.lock(NAME, lambda: fcntl.flock(file, fcntl.LOCK_UN))
        with lock, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_an_earlier_version_and_this_one_keep_each_other_out_on_postgresql(postgres: str) -> None:
    """By this advisory lock of its session."""
    take = text(f"SELECT pg_try_advisory_lock({locks.LEDGER_LOCK_NUMBER})")
    give_back = text(f"SELECT pg_advisory_unlock({locks.LEDGER_LOCK_NUMBER})")
    with Ledger.at(postgres) as ledger, connect(postgres) as earlier:
        assert earlier.execute(take).scalar_one()
        with ledger.lock(NAME, lambda: earlier.execute(give_back)):
            assert not earlier.execute(take).scalar_one()


def count_locks(url: str) -> int:
    """Sessions that hold the lock on a name."""
    query = text(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' "
        "AND granted AND database = (SELECT oid FROM pg_database "
        "WHERE datname = current_database())"
    )
    with connect(url) as connection:
        return int(connection.execute(query).scalar_one())


def test_a_lock_whose_session_ends_is_taken_anew(postgres: str) -> None:
    """While its process is at work; another of the name still waits."""
    told: list[str] = []
    entered: list[bool] = []

    def wait_for_it() -> None:
        with Ledger.at(postgres) as ledger, ledger.lock(NAME, lambda: told.append("waiting")):
            entered.append(True)

    with Ledger.at(postgres) as ledger:
        other = Thread(target=wait_for_it)
        with ledger.lock(NAME):
            assert end_sessions(postgres) >= 1
            other.start()
            deadline = time.monotonic() + WAIT_S
            while not told or count_locks(postgres) != 1:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            with ledger.write():
                assert not entered
        other.join(WAIT_S)
    assert entered == [True]
    assert told == ["waiting"]


def test_whoever_lost_the_lock_to_another_writes_nothing(url: str) -> None:
    """However it came about: the last who took it has the last word."""
    with Ledger.at(url) as ledger, Ledger.at(url) as other, ledger.lock(NAME):
        with ledger.write() as connection:
            locks.take_token(connection, NAME)
        with pytest.raises(OperationError, match="another audit called tiny"), ledger.write():
            pytest.fail("it wrote")
        with other.write():
            pass


def test_a_free_lock_is_taken_at_once(postgres: str) -> None:
    """One that was given back needs no second look."""
    told: list[str] = []
    with Ledger.at(postgres) as ledger:
        for _ in range(3):
            with ledger.lock(NAME, lambda: told.append("waiting")):
                assert count_locks(postgres) == 1
    assert told == []
    assert count_locks(postgres) == 0


def test_the_server_looks_after_a_client_that_is_silent(postgres: str) -> None:
    """Within about a minute, by the transaction's own settings."""
    with Ledger.at(postgres) as ledger, ledger.write() as connection:
        found = connection.execute(text("SHOW tcp_keepalives_idle")).scalar_one()
    assert found == "30"


def test_schemas_of_one_database_are_ledgers_of_their_own(postgres: str) -> None:
    """Audits of one name in two of them do not wait for each other."""
    with connect(postgres) as connection:
        for schema in ("one", "two"):
            connection.execute(text(f"CREATE SCHEMA {schema}"))
    one, two = (f"{postgres}?options=-csearch_path%3D{schema}" for schema in ("one", "two"))
    with Ledger.at(one) as ledger, Ledger.at(two) as other, ledger.lock(NAME):
        lock = other.lock(NAME, lambda: pytest.fail("it waits"))
        with lock:
            assert count_locks(postgres) == 2
