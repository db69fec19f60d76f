"""Audits against their records: all that each found is digested again.

Whatever is not what the chain of records says of it is a difference; so is an audit without a
record, or a record whose audit is gone. A ledger that somebody wrote anything into must not stop
this: what cannot be read is a difference, too.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, exists, func, select
from sqlalchemy.exc import SQLAlchemyError

from poisonwatch.errors import InputError
from poisonwatch.ledger.audit_records import (
    ADOPTED_AUDIT,
    RUN_DIRECTORY,
    describe_audit,
    find_audit_record,
)
from poisonwatch.ledger.chain_tables import records
from poisonwatch.ledger.differences import Difference
from poisonwatch.ledger.history import COMMITTED_STATES
from poisonwatch.ledger.records import ADOPTED, ADOPTED_VERSION, AUDIT, Record, read_records
from poisonwatch.ledger.tables import alerts, audits, flags, rejections, results
from poisonwatch.progress import Progress, silent

SHOWN_DIGITS = 16  # of a digest
# What a record says of an audit that the ledger can be asked for again.
SAID = ("audit_id", "name", "counts", "started_at", "run_dir", "flow_run")
# What reading stored values may raise where they are none that this library wrote.
UNREADABLE = (
    InputError,
    SQLAlchemyError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


def check_audits(
    connection: Connection, first: int = 0, progress: Progress = silent
) -> Iterator[Difference]:
    """The differences of all audits from the number `first` on."""
    listed = select(audits.c.audit, audits.c.audit_id, audits.c.state, audits.c.finished_at)
    known = connection.execute(listed.order_by(audits.c.audit)).all()
    yield from _check_lost({audit.audit_id for audit in known}, connection)
    adopted = _list_adopted_versions(connection)
    committed = [audit for audit in known if audit.state in COMMITTED_STATES]
    wanted = [audit for audit in committed if audit.audit >= first]
    for some in progress(_one_by_one(wanted), "check audits", len(wanted), len):
        for audit in some:
            try:
                yield from _check_audit(connection, audit, adopted)
            except UNREADABLE as error:
                yield Difference(
                    f"audit {audit.audit_id}", "what can be read", type(error).__name__
                )
    yield from _check_order([audit.audit_id for audit in committed], connection)
    yield from _check_uncommitted(connection, {audit.audit for audit in committed})


def _one_by_one(items: list[Row[Any]]) -> Iterator[list[Row[Any]]]:
    for item in items:
        yield [item]


def _check_lost(known: set[str], connection: Connection) -> Iterator[Difference]:
    """Records whose audits are not there any more."""
    kinds = records.c.kind.in_((AUDIT, ADOPTED))
    query = select(records.c.kind, records.c.item).where(kinds).order_by(records.c.number)
    met = set()
    for kind, item in connection.execute(query).tuples():
        audit_id = item or ""
        if kind == ADOPTED:
            if not audit_id.startswith(ADOPTED_AUDIT):
                continue
            audit_id = audit_id.removeprefix(ADOPTED_AUDIT)
        if audit_id not in known:
            yield Difference(f"audit {audit_id}", "an audit of the ledger", "its record alone")
        if audit_id in met:
            yield Difference(f"audit {audit_id}", "one record", "more than one")
        met.add(audit_id)


def _check_order(known: list[str], connection: Connection) -> Iterator[Difference]:
    """Audits are numbered in the order of their records: the last has the last word on a row."""
    kinds = records.c.kind.in_((AUDIT, ADOPTED))
    query = select(records.c.item).where(kinds).order_by(records.c.number)
    at: dict[str, int] = {}
    for i, item in enumerate(connection.execute(query).scalars()):
        at.setdefault((item or "").removeprefix(ADOPTED_AUDIT), i)
    recorded = [audit_id for audit_id in known if audit_id in at]
    for before, after in pairwise(recorded):
        if at[before] > at[after]:
            yield Difference(f"audit {after}: place among audits", f"before {before}", "after it")


def _list_adopted_versions(connection: Connection) -> list[Mapping[str, Any]]:
    """The versions that results which do not say all that they hold for were taken for."""
    found = []
    for record in _read_adopted(connection):
        if (record.item or "").startswith(ADOPTED_VERSION):
            found.append(record.statement.predicate["version"])
    return found


def _read_adopted(connection: Connection) -> Iterator[Record]:
    try:
        yield from read_records(connection, ADOPTED)
    except InputError:
        # The chain's own check names it.
        return


def _check_audit(
    connection: Connection, audit: Row[Any], adopted: list[Mapping[str, Any]]
) -> Iterator[Difference]:
    name = f"audit {audit.audit_id}"
    record = find_audit_record(connection, audit.audit_id)
    if record is None:
        yield Difference(name, "a record of the chain", "none")
        return
    found = describe_audit(connection, audit.audit)
    recorded = record.statement
    for subject, digest in found.subjects.items():
        said = recorded.subjects.get(subject, "nothing")
        if said != digest:
            yield Difference(f"{name}: {subject}", said[:SHOWN_DIGITS], digest[:SHOWN_DIGITS])
    extra = recorded.subjects.keys() - found.subjects.keys() - {RUN_DIRECTORY}
    for subject in sorted(extra):
        yield Difference(f"{name}: {subject}", "nothing", "a digest in its record")
    for key in SAID:
        said, is_now = recorded.predicate[key], found.predicate[key]
        if said != is_now:
            yield Difference(f"{name}: {key}", str(said), str(is_now))
    if not _is_version(recorded.predicate["version"], found.predicate["version"], adopted):
        yield Difference(f"{name}: version", "the one of its record", "another")
    # It is committed, and finished later: a time before its record is another's.
    if (audit.finished_at or "") < recorded.predicate["committed_at"]:
        committed_at = recorded.predicate["committed_at"]
        yield Difference(f"{name}: finished_at", f"not before {committed_at}", audit.finished_at)
    yield from _check_versions(connection, audit, name)
    if record.kind == AUDIT:
        yield from _check_flags(connection, audit.audit, name)


def _is_version(
    said: Mapping[str, Any], found: Mapping[str, Any], adopted: list[Mapping[str, Any]]
) -> bool:
    """Whether a version is the recorded one, or the one that this was taken for since."""
    if said == found:
        return True
    same = all(said[field] in (None, found[field]) for field in said)
    return same and found in adopted


def _check_versions(connection: Connection, audit: Row[Any], name: str) -> Iterator[Difference]:
    """Results of an audit hold for its version."""
    version = select(audits.c.version).where(audits.c.audit == audit.audit).scalar_subquery()
    others = select(func.count()).where(
        results.c.audit == audit.audit, results.c.version != version
    )
    count = connection.execute(others).scalar_one()
    if count:
        yield Difference(f"{name}: version of results", "the audit's", f"{count} of others")


def _check_flags(connection: Connection, audit: int, name: str) -> Iterator[Difference]:
    """Flags and flagged rows are the same."""
    is_flagged = (results.c.audit == flags.c.audit) & (results.c.row == flags.c.row)
    has_flag = exists().where(is_flagged)
    unflagged = select(func.count()).where(flags.c.audit == audit, ~_flagged(is_flagged))
    silent_ones = select(func.count()).where(
        results.c.audit == audit, results.c.flagged == 1, ~has_flag.correlate(results)
    )
    for what, query in (
        ("flags of rows that it did not flag", unflagged),
        ("flagged rows without a flag", silent_ones),
    ):
        count = connection.execute(query).scalar_one()
        if count:
            yield Difference(f"{name}: {what}", "0", str(count))


def _flagged(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(condition, results.c.flagged == 1).correlate(flags)


def _check_uncommitted(connection: Connection, committed: set[int]) -> Iterator[Difference]:
    """Nothing is of an audit that never came to its results."""
    tables: tuple[Table, ...] = (results, rejections, flags, alerts)
    for table in tables:
        found = connection.execute(select(table.c.audit).distinct()).scalars()
        for audit in sorted(set(found) - committed):
            yield Difference(
                f"{table.name} of audit {audit}", "none: it came to no results", "some"
            )
