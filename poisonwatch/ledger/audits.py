"""An audit in the ledger: opened before it works, committed with all that it found.

Between the two nothing is written, so that an audit that dies leaves all its rows to the next one.
What earlier audits found stays: the last one has the last word on a row. All that an audit found is
said in one record of the chain (`audit_records`), in the same transaction.

Audits are numbered in the order of their records: of two that are at work at once, the one that
comes to its results last gets a number that comes last.
"""

import json
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    case,
    delete,
    insert,
    literal,
    select,
    update,
)

from poisonwatch.examples import Example, Rejection
from poisonwatch.failures import Attempts
from poisonwatch.flags import Flag, make_flag_record
from poisonwatch.ledger.audit_records import append_audit_record
from poisonwatch.ledger.batches import LedgerBatch
from poisonwatch.ledger.claims import unclaim
from poisonwatch.ledger.ledger import (
    Ledger,
    Version,
    batched,
    find_or_add_version,
    insert_all,
    now,
)
from poisonwatch.ledger.outbox import AUDIT_KIND, Alert, enqueue, enqueue_alerts
from poisonwatch.ledger.records import ChainHead, lock_chain
from poisonwatch.ledger.tables import audits, deliveries, flags, rejections, results, rows
from poisonwatch.ledger.transactions import retried

ROWS_PER_INSERT = 10_000


@contextmanager
def open_audit(
    ledger: Ledger,
    audit_id: str,
    name: str,
    version: Version,
    run_dir: Path,
    *,
    report_to: Sequence[str] = (),
    flow_run: str | None = None,
) -> Iterator[int]:
    """An audit at work, by its number: finished when the block ends, interrupted where it ends
    badly before `commit_audit`.

    From its start an account of it is to go to the targets in `report_to` (`outbox`). `flow_run` is
    Prefect's id.
    """
    values = {
        "audit_id": audit_id,
        "name": name,
        "state": "running",
        "started_at": now(),
        "run_dir": str(run_dir.resolve()),
        "flow_run": flow_run,
    }
    number = _add_audit(ledger, values, version, report_to)
    try:
        yield number
    except BaseException:
        _mark_interrupted(ledger, audit_id)
        raise
    _mark_finished(ledger, audit_id)


def _insert_audit(
    connection: Connection, values: Mapping[str, Any], report_to: Sequence[str]
) -> int:
    """Insert an audit, whose account goes to the targets in `report_to`: its number."""
    added = insert(audits).values(values).returning(audits.c.audit)
    number = int(connection.execute(added).scalar_one())
    enqueue(connection, AUDIT_KIND, number, audit=number, targets=report_to)
    return number


@retried
def record_nothing_new(
    ledger: Ledger,
    summary: Mapping[str, Any],
    version: Version,
    run_dir: Path,
    report_to: Sequence[str] = (),
    flow_run: str | None = None,
    attempts: Attempts | None = None,
) -> ChainHead:
    """An audit that no row waited for, from its start to its end in one transaction: a line here,
    and its record. Returns where the chain of records ends with it.

    `run_dir` is where its results would have gone. `report_to`, `flow_run` and `attempts` are those
    of `open_audit` and `commit_audit`.
    """
    with ledger.write() as connection:
        lock_chain(connection)
        at = now()
        values = {
            "audit_id": summary["audit_id"],
            "name": summary["name"],
            "version": find_or_add_version(connection, version),
            "state": "finished",
            "started_at": at,
            "finished_at": at,
            "run_dir": str(run_dir.resolve()),
            "flow_run": flow_run,
            "summary": json.dumps(summary),
        }
        number = _insert_audit(connection, values, report_to)
        told = attempts or Attempts()
        return append_audit_record(connection, number, None, ledger.signer, told)


@retried
def _add_audit(
    ledger: Ledger, values: Mapping[str, Any], version: Version, report_to: Sequence[str]
) -> int:
    with ledger.write() as connection:
        number_of_version = find_or_add_version(connection, version)
        return _insert_audit(connection, {**values, "version": number_of_version}, report_to)


@retried
def _mark_interrupted(ledger: Ledger, audit_id: str) -> None:
    # What was committed stays so: whoever locks the ledger next completes it.
    _mark(ledger, (audits.c.audit_id == audit_id) & (audits.c.state == "running"), "interrupted")


@retried
def _mark_finished(ledger: Ledger, audit_id: str) -> None:
    # It may have another number now.
    _mark(ledger, audits.c.audit_id == audit_id, "finished")


def _mark(ledger: Ledger, which: ColumnElement[bool], state: str) -> None:
    values = {"state": state, "finished_at": now()}
    with ledger.write() as connection:
        changed = update(audits).where(which).values(values).returning(audits.c.audit)
        for number in connection.execute(changed).scalars().all():
            unclaim(connection, number)


@retried
def commit_audit(
    ledger: Ledger,
    number: int,
    batch: LedgerBatch,
    *,
    examples: Sequence[Example],
    rejected: Sequence[Rejection],
    flagged: Sequence[Flag],
    checks: str,
    summary: Mapping[str, Any],
    unmeasured: Sequence[Rejection] = (),
    measurement: str = "",
    alerts: Sequence[Alert] = (),
    groups: Mapping[str, int] | None = None,
    seal: str | None = None,
    attempts: Attempts | None = None,
) -> ChainHead:
    """Write what an audit found, with its alerts and its record, in one transaction: from here on
    its rows are audited. Returns where the chain of records ends with it.

    `examples` are the rows that were audited, `rejected` those that failed validation, of whose
    settings `checks` is the hash, and `unmeasured` those that what has the hash `measurement` could
    not measure. `groups` has the lines of evidence.jsonl, from 1, that flagged rows belong to, by
    example id. `seal` is the SHA-256 of the run directory's SHA256SUMS; `attempts` is told of a
    signature that fails.
    """
    hits: dict[int, Flag] = {}
    flagged_numbers: dict[str, int] = {}
    for flag in flagged:
        row = batch.find_number(flag.example.source, flag.example.position)
        hits[row] = flag
        flagged_numbers[flag.example.id] = row
    refused: dict[int, tuple[str, Rejection]] = {}
    for key, rejections_of in ((checks, rejected), (measurement, unmeasured)):
        for rejection in rejections_of:
            row = batch.find_number(rejection.source, rejection.position)
            refused[row] = key, rejection
    passed: array[int] = array("q")
    for example in examples:
        row = batch.find_number(example.source, example.position)
        passed.append(row)
        # Then it is one place more of a row that passed.
        refused.pop(row, None)
    with ledger.write() as connection:
        lock_chain(connection)
        unclaim(connection, number)
        number = _number_last(connection, number)
        of_audit = audits.c.audit == number
        version = connection.execute(select(audits.c.version).where(of_audit)).scalar_one()
        with _list_audited(connection, passed, refused, hits):
            _insert_results(connection, number, version)
            _insert_rejections(connection, number, refused)
            _insert_flags(connection, number, hits, groups or {})
            for status in ("flagged", "rejected", "clean"):
                _set_status(connection, status)
        done = {"state": "committed", "finished_at": now(), "summary": json.dumps(summary)}
        connection.execute(update(audits).where(of_audit).values(done))
        enqueue_alerts(connection, number, alerts, flagged_numbers, created_at=now())
        told = attempts or Attempts()
        return append_audit_record(connection, number, seal, ledger.signer, told)


def _number_last(connection: Connection, number: int) -> int:
    """The number of an audit that comes to its results: a new one where a later one has come to
    them before it. Who has the last word on a row is the order of records, and the verification
    holds numbers to it.
    """
    later = select(audits.c.audit).where(
        audits.c.audit > number, audits.c.state.in_(("committed", "finished"))
    )
    if connection.execute(later.limit(1)).first() is None:
        return number
    old = audits.c.audit == number
    values = dict(connection.execute(select(audits).where(old)).one()._mapping)
    del values["audit"]
    # Of two lines none may have the id of the other.
    connection.execute(update(audits).where(old).values(audit_id=f"{number} is numbered anew"))
    added = insert(audits).values(values).returning(audits.c.audit)
    last = int(connection.execute(added).scalar_one())
    # Nothing else speaks of it yet.
    account = (deliveries.c.kind == AUDIT_KIND) & (deliveries.c.item == number)
    connection.execute(update(deliveries).where(account).values(item=last, audit=last))
    connection.execute(delete(audits).where(old))
    return last


# The rows that are being committed, by what came of them: one statement speaks of a million rows by
# it, where lists of numbers in statements would be thousands.
_audited = Table(
    "audited",
    MetaData(),
    Column("row", Integer, nullable=False),
    Column("status", String(10), nullable=False),
    prefixes=["TEMPORARY"],
)


@contextmanager
def _list_audited(
    connection: Connection,
    passed: Iterable[int],
    refused: Collection[int],
    hits: Collection[int],
) -> Iterator[None]:
    """The table `_audited` within the transaction: rows that `passed` an audit, which are clean
    where they are no `hits`, and those that it refused.
    """
    _audited.create(connection)
    statuses = chain(
        ((row, "flagged" if row in hits else "clean") for row in passed),
        ((row, "rejected") for row in refused),
    )
    for some in batched(statuses, ROWS_PER_INSERT):
        insert_all(connection, _audited, [{"row": row, "status": status} for row, status in some])
    yield
    _audited.drop(connection)


def _select_audited(*statuses: str) -> Select[tuple[int]]:
    return select(_audited.c.row).where(_audited.c.status.in_(statuses))


def _insert_results(connection: Connection, audit: int, version: int) -> None:
    flagged = case((_audited.c.status == "flagged", 1), else_=0)
    passed = (
        select(_audited.c.row, literal(version), literal(audit), flagged)
        .where(_audited.c.status.in_(("clean", "flagged")))
        # In the order of the key, to which a table without row numbers adds cheaply.
        .order_by(_audited.c.row)
    )
    columns = ["row", "version", "audit", "flagged"]
    connection.execute(insert(results).from_select(columns, passed))


def _insert_rejections(
    connection: Connection, audit: int, refused: Mapping[int, tuple[str, Rejection]]
) -> None:
    values = []
    for row, (settings, rejection) in refused.items():
        key = {"row": row, "checks": settings, "audit": audit}
        why = {"expectation": rejection.expectation, "reason": rejection.reason}
        values.append(key | why)
    insert_all(connection, rejections, values)


def _insert_flags(
    connection: Connection, audit: int, hits: Mapping[int, Flag], groups: Mapping[str, int]
) -> None:
    values = []
    for row, flag in hits.items():
        value = {
            "audit": audit,
            "row": row,
            "panel": flag.panel,
            "sentinel": flag.sentinel.id,
            "severity": flag.severity,
            "score": flag.score,
            "q": flag.q_value,
            "record": json.dumps(make_flag_record(flag)),
            "group": groups.get(flag.example.id),
        }
        values.append(value)
    insert_all(connection, flags, values)


def _set_status(connection: Connection, status: str) -> None:
    """A clean row that was released stays released; what a person decided stands."""
    may_change = rows.c.decided.is_(None) & ((rows.c.status != "released") | (status != "clean"))
    # Whoever has the status already is not written again: a row is written with all its bytes.
    here = rows.c.row.in_(_select_audited(status)) & may_change & (rows.c.status != status)
    connection.execute(update(rows).where(here).values(status=status))
