"""Transactions on a PostgreSQL server that ends sessions, restarts, and gives no answer: done once,
or not at all.
"""

import threading
from collections.abc import Iterator

import pytest
from ledgers import ONE
from postgres_faults import end_sessions, new_database, restart, wire_to
from servers import own_postgres_server
from sqlalchemy import Connection, func, insert, select, text, update

from poisonwatch.errors import OperationError
from poisonwatch.ledger.ledger import Ledger, find_or_add_version
from poisonwatch.ledger.tables import commits, shapes, versions
from poisonwatch.ledger.transactions import MOST_LOST, LostTransactionError, retried


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    # Of its own: it is restarted.
    with own_postgres_server() as url:
        yield url


@pytest.fixture
def url(server: str) -> Iterator[str]:
    with new_database(server) as url:
        yield url


def add_shape(connection: Connection, digest: str) -> None:
    connection.execute(insert(shapes).values(digest=digest, format="null"))


@retried
def add(ledger: Ledger, digests: list[str]) -> None:
    """A new shape each time that it is begun, by the last of these digests that is left."""
    with ledger.write() as connection:
        add_shape(connection, digests.pop())


def list_shapes(ledger: Ledger) -> list[str]:
    with ledger.read() as connection:
        return list(connection.execute(select(shapes.c.digest).order_by(shapes.c.digest)).scalars())


def test_what_is_read_is_read_again_where_its_session_ends(url: str) -> None:
    """At the second of two questions: both are asked anew, of one state."""
    ends = [end_sessions]
    with Ledger.at(url) as ledger:

        def ask() -> list[int]:
            with ledger.read() as connection:
                count = select(func.count()).select_from(shapes)
                first = connection.execute(count).scalar_one()
                if ends:
                    ends.pop()(url)
                return [first, connection.execute(count).scalar_one()]

        assert ledger.retry(ask) == [0, 0]
    assert not ends


def test_what_is_written_is_written_once_where_its_session_ends(url: str) -> None:
    """In mid-transaction: nothing of the first try is kept."""
    with Ledger.at(url) as ledger:
        left = ["second", "first"]

        def write() -> None:
            with ledger.write() as connection:
                add_shape(connection, left.pop())
                if left:
                    assert end_sessions(url) == 1

        ledger.retry(write)
        assert list_shapes(ledger) == ["second"]


def test_a_connection_that_ended_while_nobody_used_it_is_replaced(url: str) -> None:
    """Without a second try."""
    with Ledger.at(url) as ledger:
        assert list_shapes(ledger) == []
        assert end_sessions(url) == 1
        assert list_shapes(ledger) == []


@pytest.mark.parametrize(("cut", "kept"), [("before", "again"), ("after", "once")])
def test_a_commit_without_an_answer_is_done_once(cut: str, kept: str, url: str) -> None:
    """The server never got it: it is done again. It did, and its answer was lost: it is not."""
    with wire_to(url) as wire, Ledger.at(wire.address) as ledger:
        wire.cut = cut  # type: ignore[assignment]
        add(ledger, ["again", "once"])
        assert wire.cuts == [cut]
        assert list_shapes(ledger) == [kept]


def test_a_restart_of_the_server_is_waited_for(url: str) -> None:
    """Whatever it interrupts is done again, and once."""
    with Ledger.at(url) as ledger:
        restarting = threading.Thread(target=restart, args=(url,))
        restarting.start()
        added: list[str] = []

        def write() -> None:
            with ledger.write() as connection:
                add_shape(connection, f"{len(added):05}")

        while restarting.is_alive():
            ledger.retry(write)
            added.append("")
        restarting.join()
        assert list_shapes(ledger) == [f"{i:05}" for i in range(len(added))]


def test_two_transactions_in_each_others_way_both_come_to_their_end(url: str) -> None:
    """PostgreSQL gives up one of them: it begins anew."""
    meet = threading.Barrier(2)
    tries = {0: 0, 1: 0}

    def change(own: int) -> None:
        with ledger.write() as connection:
            for i in (own, 1 - own):
                named = shapes.c.digest == f"shape {i}"
                connection.execute(update(shapes).where(named).values(format=f'"{own}"'))
                if i == own and tries[own] == 0 and tries[1 - own] == 0:
                    meet.wait(60)
            tries[own] += 1

    with Ledger.at(url) as ledger:
        with ledger.write() as connection:
            for i in (0, 1):
                add_shape(connection, f"shape {i}")
        other = threading.Thread(target=ledger.retry, args=(lambda: change(1),))
        other.start()
        ledger.retry(lambda: change(0))
        other.join()
        with ledger.read() as connection:
            assert len(set(connection.execute(select(shapes.c.format)).scalars())) == 1


def test_a_server_that_ends_every_session_is_no_endless_loop(url: str) -> None:
    """After some tries it is an error of one line, without the password."""
    tries: list[int] = []
    with Ledger.at(url) as ledger:

        def ask() -> None:
            tries.append(1)
            with ledger.read() as connection:
                end_sessions(url)
                connection.execute(select(1))

        with pytest.raises(LostTransactionError, match="cannot be used") as raised:
            ledger.retry(ask)
    assert len(tries) == MOST_LOST + 1
    assert "hunter2" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_error_of_a_statement_is_not_tried_again(url: str) -> None:
    """Nor is its statement shown."""
    tries: list[int] = []

    def ask(ledger: Ledger) -> None:
        tries.append(1)
        with ledger.read() as connection:
            connection.execute(text("SELECT 1 / 0"))

    with pytest.raises(OperationError, match="failed") as raised, Ledger.at(url) as ledger:
        retried(ask)(ledger)
    assert len(tries) == 1
    assert "SELECT" not in str(raised.value)


def test_marks_of_commits_are_forgotten(url: str) -> None:
    """After two days, by the next that takes a lock."""
    with Ledger.at(url) as ledger:
        add(ledger, ["one"])
        with ledger.write() as connection:
            connection.execute(update(commits).values(committed_at="2026-01-01T00:00:00+00:00"))
        with ledger.lock("tiny"), ledger.read() as connection:
            # The one of the update, of the lock itself, and none of before.
            assert connection.execute(select(func.count()).select_from(commits)).scalar_one() <= 2


def test_a_version_is_added_once_by_two_at_once(url: str) -> None:
    """The second one waits, and finds it."""
    found: list[int] = []
    with Ledger.at(url) as ledger:

        def add_version() -> None:
            with ledger.write() as connection:
                found.append(find_or_add_version(connection, ONE))

        with ledger.write() as connection:
            found.append(find_or_add_version(connection, ONE))
            other = threading.Thread(target=add_version)
            other.start()
        other.join()
        with ledger.read() as connection:
            assert connection.execute(select(versions.c.version)).scalars().all() == [found[0]]
    assert found[0] == found[1]
