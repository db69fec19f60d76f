"""Which records of a ledger are signed, and signing those that are not: what is older than the key,
and what could not be signed when it was recorded.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from poisonwatch.attestation.envelope import find_signers
from poisonwatch.attestation.keys import PublicKey
from poisonwatch.attestation.signer import Signer
from poisonwatch.attestation.statement import hash_text
from poisonwatch.errors import OperationError
from poisonwatch.ledger.chain_tables import records, signatures
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.records import RECORDS_PER_READ
from poisonwatch.ledger.transactions import retried


@dataclass(frozen=True, slots=True)
class SignedCount:
    """How many records of a kind there are, and how many of them a key that counts signed."""

    kind: str
    records: int
    signed: int


@dataclass(frozen=True, slots=True)
class UnsignedRecord:
    """A record that no key that counts signed: what kind it is of, about which `item` (an audit, a
    row, ...), when it was recorded, and the hash of its statement.
    """

    number: int
    kind: str
    item: str | None
    recorded_at: str
    hash: str


@retried
def count_signed(ledger: Ledger, keys: Mapping[str, PublicKey]) -> list[SignedCount]:
    """The records by kind; `signed` are those that one of the keys did."""
    counts: dict[str, list[int]] = {}
    with ledger.read() as connection:
        for record, signers in _read_signers(connection, keys):
            count = counts.setdefault(record.kind, [0, 0])
            count[0] += 1
            count[1] += bool(signers)
    return [SignedCount(kind, *count) for kind, count in sorted(counts.items())]


@retried
def list_unsigned(ledger: Ledger, keys: Mapping[str, PublicKey]) -> list[UnsignedRecord]:
    """The records that none of these keys signed, oldest first."""
    with ledger.read() as connection:
        return [record for record, signers in _read_signers(connection, keys) if not signers]


def sign_records(ledger: Ledger, unsigned: Iterable[UnsignedRecord], signer: Signer) -> int:
    """Sign these records, each as it was when it was listed; returns how many. One at a time: what
    is signed stays so, should the signer fail. Raises SigningError, and OperationError where a
    record is not what it was.
    """
    count = 0
    for record in unsigned:
        _sign(ledger, record, signer)
        count += 1
    return count


@retried
def _sign(ledger: Ledger, record: UnsignedRecord, signer: Signer) -> None:
    with ledger.read() as connection:
        query = select(records.c.statement).where(records.c.number == record.number)
        statement = connection.execute(query).scalar_one_or_none()
    # What somebody vouches for is what they were shown.
    if statement is None or hash_text(statement) != record.hash:
        raise OperationError(
            f"record {record.number} is not what it was when it was listed: `poisonwatch verify` "
            "says what differs; it was not signed"
        )
    # A key service may take its time: nobody waits for the ledger meanwhile.
    envelope = signer.sign(statement.encode("ascii"))
    ours = (signatures.c.record == record.number) & (signatures.c.key_id == signer.key_id)
    values = {"record": record.number, "key_id": signer.key_id, "envelope": envelope}
    with ledger.write() as connection:
        # One by this name that does not hold.
        connection.execute(delete(signatures).where(ours))
        connection.execute(insert(signatures).values(values))


def _read_signers(
    connection: Connection, keys: Mapping[str, PublicKey]
) -> Iterator[tuple[UnsignedRecord, Collection[str]]]:
    """Each record, with the ids of those keys that signed it."""
    query = (
        select(records, signatures.c.envelope)
        .outerjoin(signatures, signatures.c.record == records.c.number)
        .order_by(records.c.number)
    )
    last: UnsignedRecord | None = None
    signers: set[str] = set()
    for row in connection.execution_options(yield_per=RECORDS_PER_READ).execute(query):
        if last is not None and last.number != row.number:
            yield last, signers
            signers = set()
        last = UnsignedRecord(row.number, row.kind, row.item, row.recorded_at, row.hash)
        if row.envelope is not None:
            statement = row.statement.encode(errors="surrogatepass")
            signers |= find_signers(row.envelope, statement, keys)
    if last is not None:
        yield last, signers
