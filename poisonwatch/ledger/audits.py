"""An audit in the ledger: opened before it works, committed with all that it found.

Between the two nothing is written, so that an audit that dies leaves all its rows to the next one.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from poisonwatch.examples import Example, Rejection
from poisonwatch.flags import Flag, make_flag_record
from poisonwatch.ledger.batches import LedgerBatch
from poisonwatch.ledger.ledger import (
    VALUES_PER_STATEMENT,
    Ledger,
    Version,
    batched,
    find_or_add_version,
    insert_all,
    now,
)
from poisonwatch.ledger.outbox import AUDIT_KIND, Alert, enqueue, enqueue_alerts
from poisonwatch.ledger.tables import audits, flags, rejections, results, rows


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
    with ledger.write() as connection:
        values = {
            "audit_id": audit_id,
            "name": name,
            "version": find_or_add_version(connection, version),
            "state": "running",
            "started_at": now(),
            "run_dir": str(run_dir.resolve()),
            "flow_run": flow_run,
        }
        added = insert(audits).values(values).returning(audits.c.audit)
        number = int(connection.execute(added).scalar_one())
        enqueue(connection, AUDIT_KIND, number, audit=number, targets=report_to)
    try:
        yield number
    except BaseException:
        _mark_interrupted(ledger, number)
        raise
    ledger.set_audit_state(number, "finished")


def _mark_interrupted(ledger: Ledger, number: int) -> None:
    # What was committed stays so: whoever locks the ledger next completes it.
    running = (audits.c.audit == number) & (audits.c.state == "running")
    values = {"state": "interrupted", "finished_at": now()}
    with ledger.write() as connection:
        connection.execute(update(audits).where(running).values(values))


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
    alerts: Sequence[Alert] = (),
    groups: Mapping[str, int] | None = None,
) -> None:
    """Write what an audit found, with its alerts, in one transaction: from here on its rows are
    audited.

    `examples` are the rows that passed validation, `checks` is the hash of its settings. `groups`
    has the lines of evidence.jsonl, from 1, that flagged rows belong to, by example id.
    """
    row_at: dict[tuple[str, int], int] = {}
    for row, row_number in zip(batch.rows.raw, batch.numbers, strict=True):
        row_at[row.source, row.position] = row_number
    row_numbers = {example.id: row_at[example.source, example.position] for example in examples}
    passed = set(row_numbers.values())
    refused: dict[int, Rejection] = {}
    for rejection in rejected:
        row_number = row_at[rejection.source, rejection.position]
        # Else it is one place more of a row that passed.
        if row_number not in passed:
            refused[row_number] = rejection
    hits = {row_numbers[flag.example.id]: flag for flag in flagged}
    with ledger.write() as connection:
        of_audit = audits.c.audit == number
        version = connection.execute(select(audits.c.version).where(of_audit)).scalar_one()
        _delete_earlier(connection, set(batch.numbers), version, checks)
        _insert_results(connection, number, version, passed, hits)
        _insert_rejections(connection, number, checks, refused)
        _insert_flags(connection, number, hits, groups or {})
        _set_status(connection, hits, "flagged")
        _set_status(connection, refused, "rejected")
        _set_status(connection, passed - set(hits), "clean")
        done = {"state": "committed", "finished_at": now(), "summary": json.dumps(summary)}
        connection.execute(update(audits).where(of_audit).values(done))
        enqueue_alerts(connection, number, alerts, row_numbers, created_at=now())


def _delete_earlier(
    connection: Connection, numbers: Iterable[int], version: int, checks: str
) -> None:
    """An audit that takes rows again under the same version has the last word on them."""
    for some in batched(sorted(numbers), VALUES_PER_STATEMENT):
        same_version = results.c.row.in_(some) & (results.c.version == version)
        connection.execute(delete(results).where(same_version))
        same_checks = rejections.c.row.in_(some) & (rejections.c.checks == checks)
        connection.execute(delete(rejections).where(same_checks))


def _insert_results(
    connection: Connection, audit: int, version: int, passed: Iterable[int], hits: Collection[int]
) -> None:
    values = []
    for row in passed:
        result = {"row": row, "version": version, "audit": audit, "flagged": int(row in hits)}
        values.append(result)
    insert_all(connection, results, values)


def _insert_rejections(
    connection: Connection, audit: int, checks: str, refused: Mapping[int, Rejection]
) -> None:
    values = []
    for row, rejection in refused.items():
        key = {"row": row, "checks": checks, "audit": audit}
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


def _set_status(connection: Connection, numbers: Iterable[int], status: str) -> None:
    """A clean row that was released stays released; what a person decided stands."""
    may_change = rows.c.decided.is_(None) & ((rows.c.status != "released") | (status != "clean"))
    for some in batched(sorted(numbers), VALUES_PER_STATEMENT):
        here = rows.c.row.in_(some) & may_change
        connection.execute(update(rows).where(here).values(status=status))
