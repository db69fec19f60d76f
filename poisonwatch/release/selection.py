"""Which rows a release holds, and which it holds back: every place of the source, by what becomes
of its row.

    in = clean + repaired + quarantined + rejected + dropped
                                                      places of the source whose rows were audited
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    ScalarSelect,
    Subquery,
    Table,
    case,
    exists,
    func,
    select,
)

from poisonwatch.ledger.audit_records import find_audit_record
from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, batched
from poisonwatch.ledger.placed_rows import select_placed_rows
from poisonwatch.ledger.row_states import REPAIRED
from poisonwatch.ledger.tables import (
    audits,
    decisions,
    files,
    flags,
    rejections,
    results,
    rows,
    versions,
)

CLEARED_STATUSES = ("clean", "released")
QUARANTINED_STATUSES = ("flagged", "poison")
# How the settings begin that a file was read with since the bytes of all its places are kept.
KEPT_BYTES_PREFIX = '{"rules":'

Duplicates = Literal["keep", "drop"]


@dataclass(frozen=True, slots=True)
class ReleaseCounts:
    """Places of the source, by what became of their rows; `pending` ones were pulled and not
    audited yet, and are in none of the others.

    `repaired` places are released, their rows changed as a person decided.
    `dropped` places are cleared and left out: copies of an earlier place's bytes. Of all audited
    places, `copies` have the bytes of an earlier one, and `contents` are distinct.
    """

    clean: int = 0
    quarantined: int = 0
    rejected: int = 0
    dropped: int = 0
    pending: int = 0
    copies: int = 0
    contents: int = 0
    repaired: int = 0

    @property
    def released(self) -> int:
        """Places whose rows are given out, as they are or repaired."""
        return self.clean + self.repaired

    @property
    def total(self) -> int:
        """Places whose rows were audited."""
        return self.released + self.quarantined + self.rejected + self.dropped

    def record(self) -> dict[str, int]:
        """As it is in the manifest; `repaired` only where a row is."""
        record = {"in": self.total, **asdict(self)}
        if not self.repaired:
            del record["repaired"]
        return record


def select_places(name: str, duplicates: Duplicates) -> Subquery:
    """Every place of the source now (`select_placed_rows`), in no order, with the `fate` of its
    row: one of the counts.
    """
    at = select_placed_rows(name).order_by(None).subquery()
    is_repaired = at.c.status == REPAIRED
    is_cleared = at.c.status.in_(CLEARED_STATUSES) | is_repaired
    is_dropped = at.c.nth > 1
    if duplicates == "keep":
        # Of copies that were read before all bytes were kept, nobody knows how they differ.
        one_for_all = select(files.c.name).where(
            files.c.audit == name, ~files.c.reading.startswith(KEPT_BYTES_PREFIX)
        )
        is_dropped &= at.c.name.in_(one_for_all)
    fate = case(
        # Bytes that no parser reads are in no release, whatever was decided on them.
        (is_cleared & at.c.problem.is_not(None), "rejected"),
        (is_repaired & _becomes_held_back_row(at), "quarantined"),
        (is_cleared & is_dropped, "dropped"),
        (is_repaired, "repaired"),
        (is_cleared, "clean"),
        (at.c.status.in_(QUARANTINED_STATUSES), "quarantined"),
        else_=at.c.status,
    )
    return select(at, fate.label("fate")).subquery()


def _becomes_held_back_row(at: Subquery) -> ColumnElement[bool]:
    """Whether the repair of a place's row makes it one that the source has itself, and that is not
    cleared there.
    """
    other = rows.alias()
    return exists().where(
        decisions.c.number == _select_last_decision(at),
        other.c.id == decisions.c.repaired_id,
        other.c.status.not_in(CLEARED_STATUSES),
    )


def _select_last_decision(at: Subquery) -> ScalarSelect[int]:
    """The last decision on a place's row."""
    last = select(func.max(decisions.c.number)).where(decisions.c.row == at.c.row)
    return last.correlate(at).scalar_subquery()


def count_rows(connection: Connection, name: str, duplicates: Duplicates) -> ReleaseCounts:
    """What a release would come to."""
    at = select_places(name, duplicates)
    query = select(at.c.fate, func.count()).group_by(at.c.fate)
    found: dict[str, int] = dict(connection.execute(query).tuples().all())
    copies = func.count(case((at.c.nth > 1, 1)))
    audited = select(copies, func.count(at.c.row.distinct())).where(at.c.fate != "pending")
    copied, contents = connection.execute(audited).one()
    return ReleaseCounts(**found, copies=copied, contents=contents)


def count_undecided(connection: Connection, name: str) -> int:
    """Places in quarantine that wait for a decision: flagged, and not called poison or benign."""
    at = select_places(name, "keep")
    query = select(func.count()).where(at.c.fate == "quarantined", at.c.status == "flagged")
    return connection.execute(query).scalar_one()


def select_released(name: str, duplicates: Duplicates) -> Executable:
    """The places that are released, in order, with the bytes that stand there, each with the id of
    the last audit that its row passed. A repaired one has the decision's number, verdict, author,
    answer and repaired_id; they are None elsewhere.
    """
    at = select_places(name, duplicates)
    repair = (decisions.c.number == _select_last_decision(at)) & (at.c.fate == "repaired")
    said = decisions.c.number, decisions.c.verdict, decisions.c.author, decisions.c.answer
    query = (
        select(at, audits.c.audit_id, *said, decisions.c.repaired_id)
        .select_from(at)
        .outerjoin(audits, audits.c.audit == _select_last_audit(results, at))
        .outerjoin(decisions, repair)
        .where(at.c.fate.in_(("clean", "repaired")))
        .order_by(at.c.name, at.c.position)
    )
    # Rows hold their bytes: never all of them at a time.
    return query.execution_options(yield_per=VALUES_PER_STATEMENT)


def _is_last(table: Table, at: Subquery) -> ColumnElement[bool]:
    """Whether this is what the last audit wrote of a place's row: of flags or rejections."""
    return (table.c.row == at.c.row) & (table.c.audit == _select_last_audit(table, at))


def _select_last_audit(table: Table, at: Subquery) -> ScalarSelect[int]:
    """The last audit that wrote one of these on a place's row: of flags, results or rejections."""
    # For each row on its own, from an index: joined to all last audits, rows would be compared with
    # each of them.
    of_row = table.alias()
    last = select(func.max(of_row.c.audit)).where(of_row.c.row == at.c.row)
    return last.correlate(at).scalar_subquery()


def describe_audits(
    connection: Connection, audit_ids: Iterable[str | None]
) -> dict[str, dict[str, str | None]]:
    """What the results of these audits hold for, by their ids. Raises InputError where the record
    of one was changed.
    """
    query = select(audits.c.audit_id, audits.c.finished_at, audits.c.run_dir, versions).join(
        versions, versions.c.version == audits.c.version
    )
    described: dict[str, dict[str, str | None]] = {}
    for some in batched(audit_ids, VALUES_PER_STATEMENT):
        for audit in connection.execute(query.where(audits.c.audit_id.in_(some))):
            described[audit.audit_id] = {
                "model": audit.model,
                "sentinels": audit.sentinels,
                "reading": audit.reading,
                "settings": audit.settings,
                "poisonwatch": _find_audit_version(connection, audit.audit_id),
                "finished_at": audit.finished_at,
                "run": Path(audit.run_dir).name,
            }
    return dict(sorted(described.items()))


def _find_audit_version(connection: Connection, audit_id: str) -> str | None:
    """The version of this library that an audit ran under, as its record says it."""
    record = find_audit_record(connection, audit_id)
    if record is None:
        return None
    said = record.statement.predicate.get("poisonwatch")
    return said if isinstance(said, str) else None


def read_quarantined(connection: Connection, name: str) -> Iterator[dict[str, Any]]:
    """Lines of quarantine.jsonl: the last flag of each row; its id alone where a person called a
    row poison that no audit flagged.
    """
    at = select_places(name, "keep")
    query = (
        select(at.c.id, at.c.name, at.c.position, at.c.status, at.c.decided, flags.c.record)
        .select_from(at)
        .outerjoin(flags, _is_last(flags, at))
        .where(at.c.fate == "quarantined")
        .order_by(at.c.name, at.c.position)
    )
    for row in connection.execute(query):
        record = {"example_id": bytes(row.id).hex()}
        if row.record:
            record = json.loads(row.record)
        place = {"source": row.name, "position": row.position}
        yield {**record, **place, "status": row.status, "decided": row.decided}


def read_rejected(connection: Connection, name: str) -> Iterator[dict[str, Any]]:
    """Lines of rejected.jsonl, each with the last reason."""
    at = select_places(name, "keep")
    query = (
        select(at.c.id, at.c.name, at.c.position, rejections.c.expectation, rejections.c.reason)
        .select_from(at)
        .join(rejections, _is_last(rejections, at))
        .where(at.c.fate == "rejected")
        .order_by(at.c.name, at.c.position)
    )
    for row in connection.execute(query):
        yield {
            "example_id": bytes(row.id).hex(),
            "source": row.name,
            "position": row.position,
            "expectation": row.expectation,
            "reason": row.reason,
        }
