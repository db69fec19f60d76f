"""Rows out of the ledger: those that an audit takes, and what earlier audits say of others."""

import hashlib
from collections.abc import Collection, Iterable, Sequence, Set
from dataclasses import dataclass, replace
from typing import Literal

from sqlalchemy import ColumnElement, Connection, exists, func, or_, select, union_all

from poisonwatch import __version__
from poisonwatch.config import AuditConfig, ValidationConfig
from poisonwatch.examples import Example, Rejection
from poisonwatch.ledger.claims import claim, find_claimed, lock_choice
from poisonwatch.ledger.ledger import (
    VALUES_PER_STATEMENT,
    Ledger,
    Version,
    batched,
    find_covering_versions,
)
from poisonwatch.ledger.queries import is_refused_since
from poisonwatch.ledger.row_states import REPAIRED
from poisonwatch.ledger.stored_rows import (
    BatchPlaces,
    RowQuery,
    StoredRows,
    find_places,
    load_readers,
    read_places,
)
from poisonwatch.ledger.tables import audits, files, places, rejections, results, rows
from poisonwatch.ledger.transactions import retried

MIX_AUDITS = 10  # whose rows tell what a source usually holds


@dataclass(frozen=True, slots=True)
class LedgerBatch:
    """Rows to be audited, and their `places` in the ledger, one for each; a content with two places
    comes twice.
    """

    rows: StoredRows
    places: BatchPlaces

    @property
    def numbers(self) -> Sequence[int]:
        """The rows' numbers in the ledger, one a place."""
        return self.places.numbers

    def find_number(self, source: str, position: int) -> int:
        """The number of the row at a position of a source's file. Raises KeyError where the batch
        has none there.
        """
        return self.places.numbers[self.places.find(source, position)]

    def __len__(self) -> int:
        return len(self.places)


def locate_rejections(batch: LedgerBatch, rejected: Iterable[Rejection]) -> list[Rejection]:
    """The rejections of a batch's rows, each with the place that people find the row by."""
    located = []
    for rejection in rejected:
        at = batch.places.find(rejection.source, rejection.position)
        located.append(replace(rejection, place=batch.rows.raw[at].place))
    return located


def hash_checks(validation: ValidationConfig) -> str:
    """SHA-256 of the validation settings: rows that other settings rejected are validated anew."""
    return hashlib.sha256(validation.model_dump_json().encode()).hexdigest()


def hash_measurement(config: AuditConfig, version: Version) -> str:
    """SHA-256 of what rows are measured by: the model and how it reads them, and the settings. Rows
    that could not be measured are tried anew under others.
    """
    settings = [__version__, version.model, version.reading or ""]
    for section in (config.model, config.stride):
        settings.append(section.model_dump_json())
    return hashlib.sha256("\n".join(settings).encode()).hexdigest()


@retried
def choose_batch(
    ledger: Ledger,
    name: str,
    version: Version,
    checks: str,
    window: int | Literal["all"],
    measurement: str = "",
    audit: int | None = None,
) -> LedgerBatch:
    """The rows of an audit's source that are to be audited, claimed for the `audit` of that number.

    These are the pending ones, the rejected ones whose validation settings (`checks`) are others
    now, or what they would be measured by (`measurement`) where that was the reason, and, of the
    `window` audited ones that came last ("all": of all), those audited under other models,
    sentinels or settings only. What a person has decided on is not audited again, nor what an audit
    of another name has at hand.
    """
    undecided = _match_source(name) & rows.c.decided.is_(None)
    # What an audit has passed since is not refused any more.
    refused = exists().where(
        rejections.c.row == rows.c.row,
        rejections.c.checks.in_((checks, measurement)),
        ~exists().where(results.c.row == rejections.c.row, results.c.audit > rejections.c.audit),
    )
    is_new = or_(rows.c.status == "pending", (rows.c.status == "rejected") & ~refused)
    new = select(rows.c.row).where(undecided, is_new)
    was_audited = rows.c.status.in_(("clean", "flagged", "released"))
    # The window is cut before covered rows are taken out: after it, it would creep back through
    # the whole ledger, a window an audit.
    latest = (
        select(rows.c.row)
        .where(undecided, was_audited)
        .order_by(rows.c.row.desc())
        .limit(None if window == "all" else window)
        .subquery()
    )
    # A transaction that may write: the version is added where it is new.
    with ledger.write() as connection:
        lock_choice(connection)
        covering = find_covering_versions(connection, version, ledger.signer)
        claimed = find_claimed(connection, name, covering)
        of_version = (results.c.row == latest.c.row) & results.c.version.in_(covering)
        covered = exists().where(of_version, ~is_refused_since(results))
        old = select(latest.c.row).where(~covered)
        wanted = union_all(new, old)
        batch = _load_rows(ledger, connection, name, wanted, claimed)
        if audit is not None:
            claim(connection, audit, batch.numbers)
        return batch


@retried
def load_current_batch(ledger: Ledger, name: str, audit: int | None = None) -> LedgerBatch:
    """Every row that is in an audit's source now and that no person decided on: to be audited
    again, claimed for the `audit` of that number.
    """
    here = _match_source(name, current=True)
    wanted = select(rows.c.row).where(here, rows.c.decided.is_(None))
    with ledger.write() as connection:
        lock_choice(connection)
        batch = _load_rows(ledger, connection, name, wanted)
        if audit is not None:
            claim(connection, audit, batch.numbers)
        return batch


@retried
def load_audited_batch(ledger: Ledger, audit_id: str) -> LedgerBatch | None:
    """The rows of an earlier audit; None where this ledger has no audit of that id."""
    with ledger.read() as connection:
        of_id = select(audits).where(audits.c.audit_id == audit_id)
        audit = connection.execute(of_id).one_or_none()
        if audit is None:
            return None
        covered = select(results.c.row).where(results.c.audit == audit.audit)
        refused = select(rejections.c.row).where(rejections.c.audit == audit.audit)
        return _load_rows(ledger, connection, audit.name, covered.union(refused))


@retried
def load_trusted(ledger: Ledger, name: str) -> list[Example]:
    """The rows of an audit's source that a person called benign."""
    benign = select(rows.c.row).where(_match_source(name), rows.c.decided == "benign")
    with ledger.read() as connection:
        return list(_read_examples(connection, name, benign).values())


@retried
def find_suspected_ids(ledger: Ledger) -> set[str]:
    """Example ids of the rows that are flagged and that nobody called benign, and of those that
    people called poison, or repaired.
    """
    return _find_ids(ledger, rows.c.status.in_(("flagged", "poison", REPAIRED)))


@retried
def find_benign_ids(ledger: Ledger) -> set[str]:
    """Example ids of the rows that people called benign."""
    return _find_ids(ledger, rows.c.decided == "benign")


def _find_ids(ledger: Ledger, condition: ColumnElement[bool]) -> set[str]:
    with ledger.read() as connection:
        found = connection.execute(select(rows.c.id).where(condition)).scalars()
        return {bytes(id).hex() for id in found}


@retried
def load_examples(ledger: Ledger, ids: Collection[str]) -> dict[str, Example]:
    """The rows with these example ids that the ledger knows and can read, by id."""
    found: dict[str, Example] = {}
    with ledger.read() as connection:
        for some in batched(ids, VALUES_PER_STATEMENT):
            known = select(rows.c.row).where(rows.c.id.in_(_to_bytes(some)))
            found |= _read_examples(connection, None, known)
    return found


@retried
def find_audited_ids(ledger: Ledger, ids: Set[str]) -> set[str]:
    """Which of these example ids some audit has covered, under whatever version and name."""
    covered = exists().where(results.c.row == rows.c.row)
    found: set[str] = set()
    with ledger.read() as connection:
        for some in batched(sorted(ids), VALUES_PER_STATEMENT):
            known = select(rows.c.id).where(rows.c.id.in_(_to_bytes(some)), covered)
            found |= {bytes(id).hex() for id in connection.execute(known).scalars()}
    return found


@retried
def count_passed_by_file(ledger: Ledger, name: str) -> dict[str, int]:
    """Rows that passed validation in the last audits of a source, by file."""
    last = (
        select(audits.c.audit)
        .where(audits.c.name == name)
        .order_by(audits.c.audit.desc())
        .limit(MIX_AUDITS)
    )
    # Rows that were audited again count once.
    passed = (
        select(results.c.row, results.c.version)
        .where(results.c.audit.in_(last))
        .distinct()
        .subquery()
    )
    counted = (
        select(files.c.name, func.count())
        .select_from(passed)
        .join(places, places.c.row == passed.c.row)
        .join(files, files.c.file == places.c.file)
        .where(files.c.audit == name)
        .group_by(files.c.name)
    )
    with ledger.read() as connection:
        return dict(connection.execute(counted).tuples().all())


@retried
def count_by_status(ledger: Ledger, name: str) -> dict[str, int]:
    """Rows by status, of those that are in an audit's source now."""
    here = _match_source(name, current=True)
    counted = select(rows.c.status, func.count()).where(here).group_by(rows.c.status)
    with ledger.read() as connection:
        return dict(connection.execute(counted).tuples().all())


def _match_source(name: str, current: bool = False) -> ColumnElement[bool]:
    """Rows with a place in an audit's source; `current`: in a file that is still there."""
    place = exists().where(
        places.c.row == rows.c.row, places.c.file == files.c.file, files.c.audit == name
    )
    if current:
        return place.where(files.c.gone_at.is_(None))
    return place


def _to_bytes(ids: Iterable[str]) -> list[bytes]:
    return [bytes.fromhex(id) for id in ids]


def _load_rows(
    ledger: Ledger,
    connection: Connection,
    name: str,
    wanted: RowQuery,
    claimed: Set[int] = frozenset(),
) -> LedgerBatch:
    """The rows of a query at each of their places in a source's files, in the order of places, but
    for those that are `claimed` by others.
    """
    placed = find_places(connection, name, wanted, claimed)
    return LedgerBatch(StoredRows(ledger, placed, load_readers(connection)), placed)


def _read_examples(
    connection: Connection, name: str | None, wanted: RowQuery
) -> dict[str, Example]:
    """The rows of a query that can be read, each content once, by id."""
    placed = find_places(connection, name, wanted)
    examples: dict[str, Example] = {}
    for row, draft in read_places(connection, placed, load_readers(connection), 0, len(placed)):
        if row.record is None:
            continue
        example = draft.to_example(row)
        if example is not None:
            examples[example.id] = example
    return examples
