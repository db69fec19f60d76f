"""What the chain says of an audit: digests of all that it found, and what that holds for.

    results          of its rows that passed, by ascending id: the id's 32 bytes, and "f" or "c",
                     flagged or clean
    rejections       by id: the id, the settings' digest, the expectation and the reason
    flags            by id: the id, and all that is said of the row
    alerts           by key: the message, and the ids of the rows that it is about; of those that
                     the audit composed
    summary          what summary.json says, without the ids of its MLflow run
    run directory    SHA-256 of its SHA256SUMS

Whoever has the rows can compute the digests again: numbers that only this ledger has are in none of
them. That a later version of this library must compute the same is a promise.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, CursorResult, Select, select

from poisonwatch import __version__
from poisonwatch.attestation.signer import Signer
from poisonwatch.attestation.statement import hash_text, write_canonical
from poisonwatch.failures import Attempts
from poisonwatch.ledger.outbox import LATER_ALERTS
from poisonwatch.ledger.records import (
    ADOPTED,
    AUDIT,
    CHAIN_START,
    ChainHead,
    Record,
    append_record,
    find_record,
    sign_record,
)
from poisonwatch.ledger.tables import (
    alerts,
    audits,
    decisions,
    flags,
    notified_rows,
    rejections,
    results,
    rows,
    versions,
)

RUN_DIRECTORY = "run directory"  # the subject that the ledger alone cannot compute
ADOPTED_AUDIT = "audit "  # begins the item of an audit that is older than the chain
EARLIER_DECISIONS = "decisions"  # the item of the decisions that are
ADOPTED_NOTE = "recorded before there was a chain; unsigned history"
# What an account in MLflow adds to the summary once it is given.
ADDED_LATER = ("mlflow_experiment_id", "mlflow_run_id")
ROWS_PER_READ = 10_000
_OUTCOMES = {0: b"c", 1: b"f"}


class AuditAccount(NamedTuple):
    """What a record says of an audit."""

    subjects: dict[str, str]
    predicate: dict[str, Any]


def append_audit_record(
    connection: Connection,
    audit: int,
    seal: str | None,
    signer: Signer | None,
    attempts: Attempts,
) -> ChainHead:
    """Append what an audit found, in the transaction that commits it. `seal` is the SHA-256 of its
    run directory's SHA256SUMS.

    A signature that fails costs no verdict: the record stays unsigned, and `attempts` tells.
    """
    account = describe_audit(connection, audit)
    if seal is not None:
        account.subjects[RUN_DIRECTORY] = seal
    audit_id = account.predicate["audit_id"]
    head = append_record(connection, AUDIT, audit_id, *account, signer=None)
    if signer is not None:
        with attempts.part("the audit's record", "not signed"), connection.begin_nested():
            sign_record(connection, head.number, signer)
    return head


def find_audit_record(connection: Connection, audit_id: str) -> Record | None:
    """The record of an audit; where it is older than the chain, of how it was then. Raises
    InputError where it is no statement.
    """
    made = find_record(connection, AUDIT, audit_id)
    return made or find_record(connection, ADOPTED, f"{ADOPTED_AUDIT}{audit_id}")


def describe_audit(connection: Connection, audit: int) -> AuditAccount:
    """What the ledger holds of a committed audit, as its record says it; without its run
    directory.
    """
    columns = audits.c.audit_id, audits.c.name, audits.c.started_at, audits.c.finished_at
    query = (
        select(*columns, audits.c.run_dir, audits.c.flow_run, audits.c.summary)
        .add_columns(versions.c.model, versions.c.sentinels, versions.c.reading)
        .add_columns(versions.c.settings)
        .join(versions, versions.c.version == audits.c.version)
        .where(audits.c.audit == audit)
    )
    found = connection.execute(query).one()
    subjects, counts = _digest_results(connection, audit)
    rejected, subjects["rejections"] = _digest_lines(_read_rejections(connection, audit))
    _, subjects["flags"] = _digest_lines(_read_flags(connection, audit))
    _, subjects["alerts"] = _digest_lines(_read_alerts(connection, audit))
    subjects["summary"] = digest_summary(found.summary)
    predicate = {
        "audit_id": found.audit_id,
        "name": found.name,
        "version": {
            "model": found.model,
            "sentinels": found.sentinels,
            "reading": found.reading,
            "settings": found.settings,
        },
        "counts": {**counts, "rejected": rejected},
        "poisonwatch": __version__,
        "started_at": found.started_at,
        "committed_at": found.finished_at,
        "run_dir": Path(found.run_dir).name,
        "flow_run": found.flow_run,
        "decisions": read_decisions_head(connection)._asdict(),
    }
    return AuditAccount(subjects, predicate)


def read_decisions_head(connection: Connection) -> ChainHead:
    """The number and hash of the last decision."""
    last = select(decisions.c.number, decisions.c.hash).order_by(decisions.c.number.desc()).limit(1)
    found = connection.execute(last).one_or_none()
    if found is None:
        return ChainHead(0, CHAIN_START)
    return ChainHead(found.number, found.hash)


def digest_summary(summary: str | None) -> str:
    """The digest of a summary as the ledger keeps it."""
    stored = json.loads(summary or "{}")
    kept = {key: value for key, value in stored.items() if key not in ADDED_LATER}
    return hash_text(write_canonical(kept))


def _digest_results(connection: Connection, audit: int) -> tuple[dict[str, str], dict[str, int]]:
    query = (
        select(rows.c.id, results.c.flagged)
        .join(rows, rows.c.row == results.c.row)
        .where(results.c.audit == audit)
        .order_by(rows.c.id)
    )
    hasher = hashlib.sha256()
    counts = {b"c": 0, b"f": 0, b"?": 0}
    for some in _stream(connection, query).partitions():
        for id, flagged in some:
            outcome = _OUTCOMES.get(flagged, b"?")
            counts[outcome] += 1
            hasher.update(bytes(id) + outcome)
    counted = {"clean": counts[b"c"], "flagged": counts[b"f"]}
    return {"results": hasher.hexdigest()}, counted


def _read_rejections(connection: Connection, audit: int) -> Iterator[list[Any]]:
    query = (
        select(rows.c.id, rejections.c.checks, rejections.c.expectation, rejections.c.reason)
        .join(rows, rows.c.row == rejections.c.row)
        .where(rejections.c.audit == audit)
        .order_by(rows.c.id, rejections.c.checks)
    )
    for id, *said in _stream(connection, query):
        yield [bytes(id).hex(), *said]


def _read_flags(connection: Connection, audit: int) -> Iterator[list[Any]]:
    said = flags.c.panel, flags.c.sentinel, flags.c.severity, flags.c.score, flags.c.q
    query = (
        select(rows.c.id, *said, flags.c.record, flags.c.group)
        .join(rows, rows.c.row == flags.c.row)
        .where(flags.c.audit == audit)
        .order_by(rows.c.id)
    )
    for id, *rest in _stream(connection, query):
        yield [bytes(id).hex(), *rest]


def _read_alerts(connection: Connection, audit: int) -> Iterator[list[Any]]:
    said = alerts.c.key, alerts.c.kind, alerts.c.severity, alerts.c.title, alerts.c.body
    composed = (alerts.c.audit == audit) & alerts.c.kind.not_in(LATER_ALERTS)
    query = select(alerts.c.alert, *said, alerts.c.created_at).where(composed)
    for alert, *rest in connection.execute(query.order_by(alerts.c.key)).all():
        about = (
            select(rows.c.id)
            .join(notified_rows, notified_rows.c.row == rows.c.row)
            .where(notified_rows.c.alert == alert)
            .order_by(rows.c.id)
        )
        yield [*rest, [bytes(id).hex() for id in connection.execute(about).scalars()]]


def _digest_lines(lines: Iterator[list[Any]]) -> tuple[int, str]:
    """How many lines there are, and the digest of all, each as JSON with a line end."""
    hasher, count = hashlib.sha256(), 0
    for line in lines:
        hasher.update(write_canonical(line).encode("ascii") + b"\n")
        count += 1
    return count, hasher.hexdigest()


def _stream(connection: Connection, query: Select[Any]) -> CursorResult[Any]:
    """The result of a query, some rows at a time: there may be millions."""
    return connection.execute(query.execution_options(yield_per=ROWS_PER_READ))
