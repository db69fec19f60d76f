"""The chain of records: what audits found, people decided, and releases gave out, append-only.

    hash_n = SHA-256(statement_n),  and statement_n holds n and hash_{n-1};  hash_0 = 64 zeros

Each record is an in-toto statement. A changed record has another hash than the next one names, a
removed one leaves a gap; that the last ones were cut off shows where a later head is known: every
manifest, alert and MLflow run carries one, as NUMBER:HASH.

    audit      what an audit found (`audit_records`)
    decision   a person's verdict on a row (`decisions`)
    mute       that messages are held back for a while; unmute: that they are no more (`mutes`)
    release    what was given out (`release`); training: that a training run named it (`trainings`)
    reminder   a message that no audit composed (`reminders`)
    proposal   a verdict that waits for a second person; withdrawal: that it does no more;
               agreement: that a second person said the same (`two_people`)
    assignment who is to look at rows (`assignments`)
    comment    what a person says of rows beside a verdict (`comments`)
    probe      what a trained model answers (`probes`)
    adopted    what is older than the chain, as it was when the chain began: nobody vouches for it
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, desc, func, insert, select

from poisonwatch.attestation.signer import Signer
from poisonwatch.attestation.statement import (
    Statement,
    build_statement,
    hash_text,
    parse_statement,
    write_canonical,
)
from poisonwatch.errors import InputError
from poisonwatch.ledger.chain_tables import records, signatures
from poisonwatch.ledger.differences import Difference
from poisonwatch.ledger.foreign_code import refuse_foreign_code

CHAIN_START = "0" * 64  # what the first record has as its previous hash
CHAIN_LOCK_NUMBER = 0x6465636964  # PostgreSQL's advisory lock on the chains' ends
MIN_HEAD_DIGITS = 32  # of a hash that stands for a head
RECORDS_PER_READ = 1000
AUDIT, DECISION, ADOPTED = "audit", "decision", "adopted"
ADOPTED_VERSION = "version "  # begins the item of a version that older results are taken for
VERSION_FIELDS = ("model", "sentinels", "reading", "settings")


class ChainHead(NamedTuple):
    """The last record of a chain: its number (0: there is none) and its hash."""

    number: int
    hash: str

    @classmethod
    def parse(cls, text: str) -> "ChainHead":
        """Read NUMBER:HASH, of whose hash the first 32 digits will do. Raises InputError where the
        text is none.
        """
        number, _, digits = text.strip().lower().partition(":")
        is_number = number.isascii() and number.isdigit() and len(number) <= 18
        is_hash = MIN_HEAD_DIGITS <= len(digits) <= len(CHAIN_START)
        if not is_number or not is_hash or not set(digits) <= set("0123456789abcdef"):
            raise InputError(
                "a head is NUMBER:HASH, with 32 or more digits of the hash, as manifests, alerts "
                "and MLflow runs have it"
            )
        return cls(int(number), digits)

    def __str__(self) -> str:
        return f"{self.number}:{self.hash}"


@dataclass(frozen=True, slots=True)
class Record:
    """A record of the chain, with its statement read."""

    number: int
    kind: str
    item: str | None
    text: str
    hash: str
    statement: Statement


def lock_chain(connection: Connection) -> None:
    """Be the only one who appends until the transaction ends: two that append at once would read
    the same end, and write the same number.

    Whoever appends and changes rows takes it before the first row, so that no two wait for each
    other. On SQLite the transaction itself holds the write lock (`Ledger.write`).
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(CHAIN_LOCK_NUMBER)))


def append_record(
    connection: Connection,
    kind: str,
    item: str | None,
    subjects: Mapping[str, str],
    predicate: Mapping[str, Any],
    signer: Signer | None,
) -> ChainHead:
    """Append a statement on `subjects` (SHA-256 by name), in a transaction that writes, signed
    where there is a signer. Raises what the signer raises, and OperationError where the database
    may have changed what was written.
    """
    lock_chain(connection)
    refuse_foreign_code(connection)
    last = read_head(connection)
    number, recorded_at = last.number + 1, datetime.now(UTC).isoformat(timespec="seconds")
    chain = {"number": number, "previous": last.hash, "item": item, "recorded_at": recorded_at}
    text = build_statement(kind, subjects, {**predicate, "chain": chain})
    digest = hash_text(text)
    values = {
        "number": number,
        "kind": kind,
        "item": item,
        "statement": text,
        "hash": digest,
        "recorded_at": recorded_at,
    }
    connection.execute(insert(records).values(values))
    if signer is not None:
        sign_record(connection, number, signer)
    return ChainHead(number, digest)


def append_adopted_version(
    connection: Connection, version: Mapping[str, Any], signer: Signer | None
) -> ChainHead:
    """Append that results which do not say all that they hold for are taken for this version's."""
    said = {name: version[name] for name in VERSION_FIELDS}
    digest = hash_text(write_canonical(said))
    predicate = {"version": said, "note": "taken for results of no recorded reading"}
    item = f"{ADOPTED_VERSION}{digest[:16]}"
    return append_record(connection, ADOPTED, item, {"version": digest}, predicate, signer)


def sign_record(connection: Connection, number: int, signer: Signer) -> None:
    """Sign a record's statement, in a transaction that writes. Raises what the signer raises."""
    query = select(records.c.statement).where(records.c.number == number)
    text = connection.execute(query).scalar_one()
    envelope = signer.sign(text.encode("ascii"))
    values = {"record": number, "key_id": signer.key_id, "envelope": envelope}
    connection.execute(insert(signatures).values(values))


def read_head(connection: Connection) -> ChainHead:
    """The end of the chain."""
    end = select(records.c.number, records.c.hash).order_by(desc(records.c.number)).limit(1)
    last = connection.execute(end).one_or_none()
    if last is None:
        return ChainHead(0, CHAIN_START)
    return ChainHead(last.number, last.hash)


def holds_head(connection: Connection, head: ChainHead) -> bool:
    """Whether the chain goes through a head that was known once, or begins after it."""
    if head.number == 0:
        return CHAIN_START.startswith(head.hash)
    query = select(records.c.hash).where(records.c.number == head.number)
    found = connection.execute(query).scalar_one_or_none()
    return found is not None and found.startswith(head.hash)


def find_record(connection: Connection, kind: str, item: str) -> Record | None:
    """The first record of a kind about an item. Raises InputError where it is no statement."""
    query = select(records).where(records.c.kind == kind, records.c.item == item)
    found = connection.execute(query.order_by(records.c.number).limit(1)).one_or_none()
    return None if found is None else _to_record(found)


def find_record_by_number(connection: Connection, number: int) -> Record | None:
    """The record of a number. Raises InputError where it is no statement."""
    query = select(records).where(records.c.number == number)
    found = connection.execute(query).one_or_none()
    return None if found is None else _to_record(found)


def read_records(connection: Connection, *kinds: str) -> Iterator[Record]:
    """The records (of these kinds; none: of all), oldest first. Raises InputError where one is no
    statement.
    """
    for row in _stream_records(connection, *kinds):
        yield _to_record(row)


def find_takeover(connection: Connection) -> str | None:
    """When the chain of records took over what was there; None where nothing was."""
    adopted = select(records).where(records.c.kind == ADOPTED)
    first = connection.execute(adopted.order_by(records.c.number).limit(1)).one_or_none()
    if first is None:
        return None
    statement = _to_record(first).statement
    return str(statement.predicate["chain"]["recorded_at"])


def _stream_records(connection: Connection, *kinds: str) -> Iterator[Row[Any]]:
    query = select(records).order_by(records.c.number)
    if kinds:
        query = query.where(records.c.kind.in_(kinds))
    yield from connection.execute(query.execution_options(yield_per=RECORDS_PER_READ))


def _to_record(row: Row[Any]) -> Record:
    return Record(
        number=row.number,
        kind=row.kind,
        item=row.item,
        text=row.statement,
        hash=row.hash,
        statement=parse_statement(row.statement),
    )


def verify_records(connection: Connection) -> list[Difference]:
    """Where the chain was tampered with: records that were changed, removed or put in."""
    differences = []
    previous: str | None = CHAIN_START
    expected = 1
    for row in _stream_records(connection):
        if row.number != expected:
            missing = f"record {expected} of the chain"
            differences.append(Difference(missing, "a record", f"record {row.number} next"))
            previous = None
        fault = _check_record(row, previous)
        if fault is not None:
            differences.append(fault)
        expected, previous = row.number + 1, row.hash
    return differences


def _check_record(row: Row[Any], previous: str | None) -> Difference | None:
    """What is wrong with a record that follows one with the hash `previous` (None: unknown)."""
    name = f"record {row.number} of the chain"
    # SQLite takes any value for any column.
    if not isinstance(row.statement, str) or not isinstance(row.hash, str):
        return Difference(f"{name}: statement and hash", "texts", "others")
    if hash_text(row.statement) != row.hash:
        return Difference(f"{name}: statement", f"SHA-256 {row.hash[:16]}", "another SHA-256")
    try:
        statement = parse_statement(row.statement)
        chain = statement.predicate["chain"]
        stated = chain["number"], chain["item"], chain["recorded_at"]
        before = chain["previous"]
    except (InputError, KeyError, TypeError):
        return Difference(f"{name}: statement", "a statement with its place", "none")
    if (statement.kind, *stated) != (row.kind, row.number, row.item, row.recorded_at):
        return Difference(f"{name}: kind, number, item, time", "those of its statement", "others")
    if previous not in (None, before):
        return Difference(f"{name}: record before it", str(before)[:16], str(previous)[:16])
    return None
