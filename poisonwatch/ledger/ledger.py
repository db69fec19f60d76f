"""The ledger: every row ever seen, what became of it, and what each audit found.

One audit at a time works on a ledger. What it will audit is what the ledger says no audit has
covered under the same model and sentinels; what it found is written in one transaction. Between
these two nothing is written, so that an audit that dies leaves all its rows to the next one:

    running      an audit is at work, or died
    committed    its results are in the ledger; its run directory is complete, but may still be called `<run_dir>.part`
    finished     all is in place
    interrupted  it died before it was committed
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Row, Select, delete, exists, func, insert, or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from poisonwatch.atomic import get_part_path
from poisonwatch.errors import InputError, OperationError
from poisonwatch.examples import Example, RawRow, Rejection
from poisonwatch.flags import Flag, make_flag_record
from poisonwatch.ledger.batches import LedgerBatch
from poisonwatch.ledger.outbox import AUDIT_KIND, Alert, enqueue, enqueue_alerts
from poisonwatch.ledger.tables import (
    LOCK_WAIT_S,
    audits,
    connect_database,
    files,
    flags,
    places,
    rejections,
    results,
    rows,
    shapes,
    versions,
)
from poisonwatch.sources.formats import Draft, Format
from poisonwatch.sources.open import SourceRows, decode_row
from poisonwatch.sources.sql import parse_database_url
from poisonwatch.text.display import get_first_line
from poisonwatch.text.environment import conceal

T = TypeVar("T")
LEDGER_LOCK_NUMBER = 0x706F69736F6E  # PostgreSQL's advisory lock of this name
LOCK_POLL_S = 1.0
VALUES_PER_STATEMENT = 500  # values in one statement
MIX_AUDITS = 10  # whose rows tell what a source usually holds


def now() -> str:
    """The time as it is written in the ledger."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def batched(items: Iterable[T], n: int) -> Iterator[list[T]]:
    """The items, n at a time."""
    rest = iter(items)
    while some := list(islice(rest, n)):
        yield some


@dataclass(frozen=True, slots=True)
class Version:
    """What a result holds for: SHA-256 of the model and of the sentinels."""

    model: str
    sentinels: str


class Ledger:
    """An open ledger. Use `Ledger.at(url)` in a `with`."""

    def __init__(self, url: str, wait_s: float = LOCK_WAIT_S) -> None:
        self.url = url
        self.engine = connect_database(url, wait_s)

    @classmethod
    @contextmanager
    def at(cls, url: str, wait_s: float = LOCK_WAIT_S) -> Iterator["Ledger"]:
        """Open the ledger at a SQLAlchemy URL, making it where there is none; `wait_s` and errors
        are those of `connect`.
        """
        ledger = cls(url, wait_s)
        try:
            yield ledger
        except SQLAlchemyError as error:
            said = conceal(get_first_line(getattr(error, "orig", None) or error), url)
            raise OperationError(f"the ledger at {conceal(url)} failed: {said}") from error
        finally:
            ledger.engine.dispose()

    @classmethod
    @contextmanager
    def existing(cls, url: str, wait_s: float = LOCK_WAIT_S) -> Iterator["Ledger"]:
        """Open a ledger that is there already. Raises InputError where its SQLite file is not, and
        what `at` does.
        """
        place = parse_database_url(url, "state")
        if place.get_backend_name() == "sqlite" and not Path(place.database or "").is_file():
            raise InputError(
                f"there is no ledger at {conceal(url)}: no audit has run; run `poisonwatch audit` first"
            )
        with cls.at(url, wait_s) as ledger:
            yield ledger

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one state of the ledger."""
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: all of it or nothing."""
        with self.engine.execution_options(writing=True).begin() as connection:
            yield connection

    @contextmanager
    def alone(self, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Be the only audit on this ledger; `waiting` is told once, if there is another. The lock
        of a process that dies is free.
        """
        lock = self._lock()
        with lock(waiting):
            self._recover()
            yield

    def _lock(self) -> Callable[[Callable[[], None]], Any]:
        return self._lock_postgres if self.engine.dialect.name == "postgresql" else self._lock_file

    @contextmanager
    def _lock_file(self, waiting: Callable[[], None]) -> Iterator[None]:
        if self.engine.url.database in (None, "", ":memory:"):
            yield
            return
        lock = FileLock(f"{self.engine.url.database}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting()
            lock.acquire(poll_interval=LOCK_POLL_S)
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _lock_postgres(self, waiting: Callable[[], None]) -> Iterator[None]:
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if not connection.scalar(select(func.pg_try_advisory_lock(LEDGER_LOCK_NUMBER))):
                waiting()
                connection.execute(select(func.pg_advisory_lock(LEDGER_LOCK_NUMBER)))
            try:
                yield
            finally:
                connection.execute(select(func.pg_advisory_unlock(LEDGER_LOCK_NUMBER)))

    def _recover(self) -> None:
        """Complete, or clear away, what audits left that died: whoever holds the lock knows that
        none is at work.
        """
        with self.read() as connection:
            left = connection.execute(
                select(audits).where(audits.c.state.in_(("running", "committed")))
            ).all()
        for audit in left:
            run_dir = Path(audit.run_dir)
            if audit.state == "running":
                shutil.rmtree(get_part_path(run_dir), ignore_errors=True)
                self._set_state(audit.audit, "interrupted")
            elif get_part_path(run_dir).is_dir() and not run_dir.exists():
                get_part_path(run_dir).rename(run_dir)
                self._set_state(audit.audit, "finished")
            elif run_dir.is_dir():  # else it is on another machine
                self._set_state(audit.audit, "finished")

    def _set_state(self, audit: int, state: str) -> None:
        with self.write() as connection:
            connection.execute(
                update(audits).where(audits.c.audit == audit).values(state=state, finished_at=now())
            )

    @contextmanager
    def audit(
        self,
        audit_id: str,
        name: str,
        version: Version,
        run_dir: Path,
        report_to: Sequence[str] = (),
        flow_run: str | None = None,
    ) -> Iterator[int]:
        """An audit at work, by its number: finished when the block ends, interrupted where it ends
        badly before `commit`.

        From its start an account of it is to go to the targets in `report_to` (ledger/outbox.py).
        """
        number = self._begin(audit_id, name, version, run_dir, report_to, flow_run)
        try:
            yield number
        except BaseException:
            with self.write() as connection:
                running = (audits.c.audit == number) & (audits.c.state == "running")
                connection.execute(
                    update(audits).where(running).values(state="interrupted", finished_at=now())
                )
            raise
        self._set_state(number, "finished")

    def _begin(
        self,
        audit_id: str,
        name: str,
        version: Version,
        run_dir: Path,
        report_to: Sequence[str],
        flow_run: str | None,
    ) -> int:
        with self.write() as connection:
            values = {
                "audit_id": audit_id,
                "name": name,
                "version": self._version(connection, version),
                "state": "running",
                "started_at": now(),
                "run_dir": str(run_dir.resolve()),
                "flow_run": flow_run,
            }
            number = int(
                connection.execute(
                    insert(audits).values(values).returning(audits.c.audit)
                ).scalar_one()
            )
            enqueue(connection, AUDIT_KIND, number, audit=number, targets=report_to)
            return number

    def _version(self, connection: Connection, version: Version) -> int:
        same = (versions.c.model == version.model) & (versions.c.sentinels == version.sentinels)
        found = connection.execute(select(versions.c.version).where(same)).scalar_one_or_none()
        if found is None:
            values = {"model": version.model, "sentinels": version.sentinels}
            found = connection.execute(
                insert(versions).values(values).returning(versions.c.version)
            ).scalar_one()
        return int(found)

    def batch(self, name: str, version: Version, checks: str, window: int) -> LedgerBatch:
        """The rows of an audit's source that are to be audited.

        These are the pending ones, the rejected ones whose validation settings (`checks`) are
        others now, and, of the `window` audited ones that came last, those audited under other
        models or sentinels only. What a person has decided on is not audited again.
        """
        with self.write() as connection:
            number = self._version(connection, version)
            here = exists().where(
                places.c.row == rows.c.row, places.c.file == files.c.file, files.c.audit == name
            )
            undecided = here & rows.c.decided.is_(None)
            refused = exists().where(rejections.c.row == rows.c.row, rejections.c.checks == checks)
            new = select(rows.c.row).where(
                undecided, or_(rows.c.status == "pending", (rows.c.status == "rejected") & ~refused)
            )
            known = rows.c.status.in_(("clean", "flagged", "released"))
            latest = (
                select(rows.c.row)
                .where(undecided, known)
                .order_by(rows.c.row.desc())
                .limit(window)
                .subquery()
            )
            covered = exists().where(results.c.row == latest.c.row, results.c.version == number)
            old = select(latest.c.row).where(~covered)
            wanted = [*connection.execute(new).scalars(), *connection.execute(old).scalars()]
            return self._read(connection, name, sorted(wanted))

    def all_of(self, name: str) -> LedgerBatch:
        """Every row that stands in an audit's source now and that no person decided on: to be
        audited again.
        """
        here = exists().where(
            places.c.row == rows.c.row,
            places.c.file == files.c.file,
            files.c.audit == name,
            files.c.gone_at.is_(None),
        )
        with self.read() as connection:
            return self._read(
                connection,
                name,
                connection.execute(select(rows.c.row).where(here, rows.c.decided.is_(None)))
                .scalars()
                .all(),
            )

    def batch_of(self, audit_id: str) -> LedgerBatch | None:
        """The rows of an earlier audit, as they stand now; None where this ledger has no audit of
        that id.
        """
        with self.read() as connection:
            audit = connection.execute(
                select(audits).where(audits.c.audit_id == audit_id)
            ).one_or_none()
            if audit is None:
                return None
            covered = select(results.c.row).where(results.c.audit == audit.audit)
            refused = select(rejections.c.row).where(rejections.c.audit == audit.audit)
            return self._read(
                connection, audit.name, sorted(connection.execute(covered.union(refused)).scalars())
            )

    def mix(self, name: str) -> dict[str, int]:
        """Rows that passed validation in the last audits of a source, by file."""
        last = (
            select(audits.c.audit)
            .where(audits.c.name == name)
            .order_by(audits.c.audit.desc())
            .limit(MIX_AUDITS)
        )
        counted = (
            select(files.c.name, func.count())
            .select_from(results)
            .join(places, places.c.row == results.c.row)
            .join(files, files.c.file == places.c.file)
            .where(files.c.audit == name, results.c.audit.in_(last))
        )
        with self.read() as connection:
            return dict(connection.execute(counted.group_by(files.c.name)).tuples().all())

    def audited(self, ids: Set[str]) -> set[str]:
        """Which of these example ids some audit has covered, under whatever version and name."""
        found: set[str] = set()
        with self.read() as connection:
            for some in batched(sorted(ids), VALUES_PER_STATEMENT):
                wanted = (
                    rows.c.id.in_([bytes.fromhex(id) for id in some]),
                    exists().where(results.c.row == rows.c.row),
                )
                found |= {
                    bytes(id).hex()
                    for id in connection.execute(select(rows.c.id).where(*wanted)).scalars()
                }
        return found

    def trusted(self, name: str) -> list[Example]:
        """The rows of an audit's source that a person called benign."""
        here = exists().where(
            places.c.row == rows.c.row, places.c.file == files.c.file, files.c.audit == name
        )
        with self.read() as connection:
            benign = (
                connection.execute(select(rows.c.row).where(here, rows.c.decided == "benign"))
                .scalars()
                .all()
            )
            return list(_read_examples(self._read(connection, name, benign).rows).values())

    def examples(self, ids: Sequence[str]) -> dict[str, Example]:
        """The rows with these example ids that the ledger knows and can read, by id."""
        with self.read() as connection:
            numbers = (
                connection.execute(
                    select(rows.c.row).where(rows.c.id.in_([bytes.fromhex(id) for id in ids]))
                )
                .scalars()
                .all()
            )
            return _read_examples(self._read(connection, None, numbers).rows)

    def _read(self, connection: Connection, name: str | None, wanted: Sequence[int]) -> LedgerBatch:
        """The wanted rows as they stand in a source's files, in the order of their places."""
        found: list[Row[Any]] = []
        for some in batched(wanted, VALUES_PER_STATEMENT):
            query: Select[Any] = (
                select(
                    rows.c.row,
                    rows.c.raw,
                    rows.c.problem,
                    rows.c.shape,
                    places.c.position,
                    places.c.place,
                    files.c.name,
                    files.c.gone_at,
                )
                .join_from(places, rows, places.c.row == rows.c.row)
                .join(files, files.c.file == places.c.file)
                .where(rows.c.row.in_(some))
            )
            found += connection.execute(
                query if name is None else query.where(files.c.audit == name)
            ).all()
        standing = {
            row.row for row in found if row.gone_at is None
        }  # a row that moved is no copy of itself
        found = [row for row in found if row.gone_at is None or row.row not in standing]
        found.sort(key=lambda row: (row.name, row.position))
        readers = {
            s.shape: (_parse_format(s.format), s.schema) for s in connection.execute(select(shapes))
        }
        raw, drafts, formats = [], [], {}
        for row in found:
            format, schema = readers[row.shape]
            record = decode_row(row.raw, schema) if row.problem is None else None
            raw.append(
                RawRow(
                    row.name, row.position, f"{row.name}, {row.place}", record, row.problem, row.raw
                )
            )
            drafts.append(
                Draft(problem=row.problem)
                if record is None or format is None
                else format.read(record)
            )
            if format is not None:
                formats[row.name] = format
        return LedgerBatch(SourceRows(raw, drafts, formats), [row.row for row in found])

    def commit(
        self,
        audit: int,
        batch: LedgerBatch,
        examples: Sequence[Example],
        rejected: Sequence[Rejection],
        flagged: Sequence[Flag],
        checks: str,
        summary: dict[str, Any],
        alerts: Sequence[Alert] = (),
        groups: Mapping[str, int] | None = None,
    ) -> None:
        """Write what an audit found, with its alerts, in one transaction: from here on
        its rows are audited.

        `groups` has the lines of evidence.jsonl, from 1, that flagged rows belong to, by example
        id.
        """
        place = {
            (row.source, row.position): number
            for row, number in zip(batch.rows.raw, batch.numbers, strict=True)
        }
        of = {example.id: place[example.source, example.position] for example in examples}
        passed = set(of.values())
        refused = {place[r.source, r.position]: r for r in rejected}
        refused = {
            row: r for row, r in refused.items() if row not in passed
        }  # else it is one place more of a row that passed
        hits = {of[flag.example.id]: flag for flag in flagged}
        with self.write() as connection:
            version = connection.execute(
                select(audits.c.version).where(audits.c.audit == audit)
            ).scalar_one()
            for some in batched(
                sorted(set(batch.numbers)), VALUES_PER_STATEMENT
            ):  # what an audit asked for again has said before
                connection.execute(
                    delete(results).where(results.c.row.in_(some), results.c.version == version)
                )
                connection.execute(
                    delete(rejections).where(
                        rejections.c.row.in_(some), rejections.c.checks == checks
                    )
                )
            _insert(
                connection,
                results,
                [
                    {"row": r, "version": version, "audit": audit, "flagged": int(r in hits)}
                    for r in passed
                ],
            )
            _insert(
                connection,
                rejections,
                [
                    {
                        "row": row,
                        "checks": checks,
                        "audit": audit,
                        "expectation": r.expectation,
                        "reason": r.reason,
                    }
                    for row, r in refused.items()
                ],
            )
            _insert(
                connection,
                flags,
                [
                    _build_flag_values(audit, row, flag, (groups or {}).get(flag.example.id))
                    for row, flag in hits.items()
                ],
            )
            for status, numbers in (
                ("flagged", set(hits)),
                ("rejected", set(refused)),
                ("clean", passed - set(hits)),
            ):
                _set_status(connection, numbers, status)
            done = {"state": "committed", "finished_at": now(), "summary": json.dumps(summary)}
            connection.execute(update(audits).where(audits.c.audit == audit).values(done))
            enqueue_alerts(connection, audit, alerts, of, created_at=now())

    def counts(self, name: str) -> dict[str, int]:
        """Rows by status, of those that stand in an audit's source now."""
        here = exists().where(
            places.c.row == rows.c.row,
            places.c.file == files.c.file,
            files.c.audit == name,
            files.c.gone_at.is_(None),
        )
        with self.read() as connection:
            found = connection.execute(
                select(rows.c.status, func.count()).where(here).group_by(rows.c.status)
            )
            return dict(found.tuples().all())


def _read_examples(found: SourceRows) -> dict[str, Example]:
    """The rows that can be read, each content once, by id."""
    read = (
        draft.example(row, found.formats[row.source])
        for row, draft in found
        if row.record is not None
    )
    return {example.id: example for example in read if example is not None}


def _parse_format(settings: str) -> Format | None:
    stored = json.loads(settings)
    return None if stored is None else Format(**stored)


def _insert(connection: Connection, table: Any, values: Sequence[dict[str, Any]]) -> None:
    if values:
        connection.execute(insert(table), values)


def _set_status(connection: Connection, numbers: Iterable[int], status: str) -> None:
    """A clean row that was released stays released; what a person decided stands."""
    keep = rows.c.decided.is_(None) & ((rows.c.status != "released") | (status != "clean"))
    for some in batched(sorted(numbers), VALUES_PER_STATEMENT):
        connection.execute(update(rows).where(rows.c.row.in_(some), keep).values(status=status))


def _build_flag_values(audit: int, row: int, flag: Flag, group: int | None) -> dict[str, Any]:
    return {
        "audit": audit,
        "row": row,
        "panel": flag.panel,
        "sentinel": flag.sentinel.id,
        "severity": flag.severity,
        "score": flag.score,
        "q": flag.q_value,
        "record": json.dumps(make_flag_record(flag)),
        "group": group,
    }
