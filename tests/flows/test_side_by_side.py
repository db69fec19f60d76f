"""Audits of two names on one ledger, at the same time, in processes of their own; and audits whose
PostgreSQL ends sessions and restarts: no row is lost or audited twice, and the ledger is whole.
"""

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import sqlalchemy
from audits import benign, planted, write_audit
from ledgers import append
from postgres_faults import connect, end_sessions, new_database, restart
from servers import own_postgres_server
from sqlalchemy import Connection, event, select, text

from poisonwatch.config_file import load_config
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.engine import Engine
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.tables import audits, claimed_rows, results, rows
from poisonwatch.verification.verify import verify_ledger

WAIT_S = 300  # for another process: an end to what would hang
ATTRIBUTION = "fit_operators"


@contextmanager
def before_stage(name: str, do: Callable[[], object]) -> Iterator[None]:
    """Have something happen when an audit comes to a stage."""
    call = Engine.__call__

    def stage(self: Engine, task: Any, *args: Any) -> Any:
        if task.name == name:
            do()
        return call(self, task, *args)

    Engine.__call__ = stage  # type: ignore[method-assign]
    try:
        yield
    finally:
        Engine.__call__ = call  # type: ignore[method-assign]


def start_audit(config: Path, run: str, stage: str, do: Callable[[], object]) -> int:
    """The id of a process that audits, in which something happens when it comes to a stage."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with before_stage(stage, do):
                audit_inline(load_config(config), config.parent / "runs" / run)
            code = 0
        finally:
            os._exit(code)
    return child


def check_whole(url: str, configs: list[Path]) -> None:
    """Every row has one result; nothing differs from what is on record; nobody is at work."""
    with Ledger.at(url) as ledger:
        with ledger.read() as connection:
            covered = Counter(connection.execute(select(results.c.row)).scalars())
            known = set(connection.execute(select(rows.c.row)).scalars())
            claimed = connection.execute(select(claimed_rows)).all()
        for config in configs:
            verified = verify_ledger(ledger, load_config(config).name)
            assert verified.differences == []
    assert set(covered) == known
    assert set(covered.values()) == {1}
    assert claimed == []


def list_states(url: str) -> list[tuple[str, str]]:
    query = select(audits.c.name, audits.c.state).order_by(audits.c.name, audits.c.audit)
    with Ledger.at(url) as ledger, ledger.read() as connection:
        return [(name, state) for name, state in connection.execute(query).tuples()]


def count_new(config: Path, run: str) -> int:
    summary = json.loads((config.parent / "runs" / run / "summary.json").read_text())
    return int(summary["counts"]["new"])


def test_two_names_audit_at_the_same_time_and_one_that_dies_takes_nothing_along(
    url: str, tmp_path: Path, tiny_folder: Path
) -> None:
    """Both are in mid-attribution at once. Contents of both sources are audited by one of them;
    what one that is killed had at hand is audited by the next of its name.
    """
    one, two = (
        write_audit(
            tmp_path / name, tiny_folder, rows=list_rows, name=name, state=url, review=False
        )
        for name, list_rows in (
            ("one", benign(9) + planted()),
            ("two", benign(12, start=4)),
        )
    )
    meet = multiprocessing.get_context("fork").Barrier(2)

    def meet_and_die() -> None:
        meet.wait(WAIT_S)
        os.kill(os.getpid(), signal.SIGKILL)

    living = start_audit(one, "living", ATTRIBUTION, lambda: meet.wait(WAIT_S))
    dying = start_audit(two, "dying", ATTRIBUTION, meet_and_die)
    assert os.waitpid(living, 0)[1] == 0
    assert os.WTERMSIG(os.waitpid(dying, 0)[1]) == signal.SIGKILL
    append(one.parent / "rows.jsonl", benign(3, start=200))
    # Both once more, at once: the second of them has what the killed one left.
    again = [
        start_audit(config, "again", ATTRIBUTION, lambda: meet.wait(WAIT_S))
        for config in (one, two)
    ]
    assert [os.waitpid(child, 0)[1] for child in again] == [0, 0]
    assert list_states(url) == [
        ("one", "finished"),
        ("one", "finished"),
        ("two", "interrupted"),
        ("two", "finished"),
    ]
    counts = [count_new(one, "living"), count_new(one, "again"), count_new(two, "again")]
    # 12 and 12 rows, of which 5 are the same, and 3 more.
    assert sum(counts) == 22
    check_whole(url, [one, two])


@pytest.fixture(scope="module")
def audited(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path
) -> Iterator[tuple[str, Path]]:
    """A ledger on a server that ends what is idle for a second, after a first audit."""
    folder = tmp_path_factory.mktemp("faults")
    timeouts = {"idle_session_timeout": "1s", "idle_in_transaction_session_timeout": "5s"}
    # A server of its own: it is restarted.
    with own_postgres_server() as server, new_database(server, **timeouts) as url:
        config = write_audit(
            folder,
            tiny_folder,
            rows=benign(9) + planted(),
            state=url,
            detection={"false_discovery_rate": 0.9},
        )
        audit_inline(load_config(config), folder / "runs" / "first")
        yield url, config


@contextmanager
def ending_sessions(url: str) -> Iterator[list[int]]:
    """Every session on a database ends now and then: before the 10th statement of this process, 18
    statements later, 26 later, and so on, since a transaction must come to its end. Yields how many
    ended each time.
    """
    ended: list[int] = []
    left = [10]
    at_it = []

    def count(*_: object) -> None:
        if at_it:
            return
        left[0] -= 1
        if left[0] > 0:
            return
        at_it.append(True)
        ended.append(end_sessions(url))
        at_it.clear()
        left[0] = 10 + 8 * len(ended)

    event.listen(sqlalchemy.Engine, "before_cursor_execute", count)
    try:
        yield ended
    finally:
        event.remove(sqlalchemy.Engine, "before_cursor_execute", count)


# A cursor whose session ended under it cannot be closed, which psycopg warns of when it is gone.
@pytest.mark.filterwarnings("ignore:.*ServerCursor.*was deleted while still open:ResourceWarning")
def test_an_audit_outlives_that_its_sessions_end_at_any_moment(
    audited: tuple[str, Path],
) -> None:
    """All of them, the one with its lock too, again and again."""
    url, config = audited
    append(config.parent / "rows.jsonl", benign(4, start=300))
    with ending_sessions(url) as ended:
        outcome = audit_inline(load_config(config), config.parent / "runs" / "ended")
    assert len(ended) >= 5
    assert outcome.summary["counts"]["new"] == 4
    assert outcome.warnings == []
    check_whole(url, [config])


@contextmanager
def losing_every_transaction(url: str) -> Iterator[list[str]]:
    """Every session on a database ends before the first statement of a transaction, once for each
    function that begins one. Yields the functions' names.
    """
    lost: list[str] = []
    begun: dict[Connection, str] = {}
    # Threads of an audit ask the ledger, too, and would end each other's ending.
    ending = threading.Lock()

    def begin(connection: Connection) -> None:
        if (function := find_asker(sys._getframe())) is not None:
            begun[connection] = function

    def lose(connection: Connection, *_: object) -> None:
        function = begun.pop(connection, None)
        if function is None:
            return
        with ending:
            if function not in lost:
                lost.append(function)
                end_sessions(url)

    event.listen(sqlalchemy.Engine, "begin", begin)
    event.listen(sqlalchemy.Engine, "before_cursor_execute", lose)
    try:
        yield lost
    finally:
        event.remove(sqlalchemy.Engine, "begin", begin)
        event.remove(sqlalchemy.Engine, "before_cursor_execute", lose)


def find_asker(frame: FrameType | None) -> str | None:
    """The function that begins a transaction of a ledger, seen from within: the first above
    `Ledger.read` or `Ledger.write`; None where it is none of a ledger, or ends sessions.
    """
    met_ledger = False
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if frame.f_code is end_sessions.__code__:
            return None
        if module == Ledger.__module__:
            met_ledger = True
        elif met_ledger and module != "contextlib":
            return f"{module}.{frame.f_code.co_name}"
        frame = frame.f_back
    return None


@pytest.mark.filterwarnings("ignore:.*ServerCursor.*was deleted while still open:ResourceWarning")
def test_an_audit_outlives_that_each_of_its_transactions_is_lost(
    audited: tuple[str, Path],
) -> None:
    """Whatever asks the ledger asks again: none of it is left to chance."""
    url, config = audited
    append(config.parent / "rows.jsonl", benign(4, start=500))
    with losing_every_transaction(url) as lost:
        outcome = audit_inline(load_config(config), config.parent / "runs" / "lost")
    # That of the intake, of the results, and of what comes after them.
    assert {"poisonwatch.flows.liveness.expects_audits"} < set(lost)
    assert len(lost) >= 20
    assert outcome.summary["counts"]["new"] == 4
    assert outcome.warnings == []
    check_whole(url, [config])


def test_an_audit_outlives_a_restart_of_its_server_and_idle_timeouts(
    audited: tuple[str, Path],
) -> None:
    """While rows are attributed a session that is idle ends, and the server restarts."""
    url, config = audited
    append(config.parent / "rows.jsonl", benign(4, start=400))

    def idle_and_restart() -> None:
        with connect(url) as idle, connect(url) as other:
            pid = idle.execute(text("SELECT pg_backend_pid()")).scalar_one()
            alive = text(f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}")
            deadline = time.monotonic() + WAIT_S
            while other.execute(alive).scalar_one():
                assert time.monotonic() < deadline
                time.sleep(0.1)
        restart(url)

    with before_stage(ATTRIBUTION, idle_and_restart):
        outcome = audit_inline(load_config(config), config.parent / "runs" / "restarted")
    assert outcome.summary["counts"]["new"] == 4
    assert outcome.warnings == []
    check_whole(url, [config])
