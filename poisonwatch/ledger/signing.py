"""Which records of a ledger are signed, and signing those that are not: what is older than the key,
and what could not be signed when it was recorded.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from poisonwatch.attestation.envelope import find_signers
from poisonwatch.attestation.keys import PublicKey
from poisonwatch.attestation.signer import Signer
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


@retried
def count_signed(ledger: Ledger, keys: Mapping[str, PublicKey]) -> list[SignedCount]:
    """The records by kind; `signed` are those that one of the keys did."""
    counts: dict[str, list[int]] = {}
    with ledger.read() as connection:
        for _, kind, signers in _read_signers(connection, keys):
            count = counts.setdefault(kind, [0, 0])
            count[0] += 1
            count[1] += bool(signers)
    return [SignedCount(kind, *count) for kind, count in sorted(counts.items())]


def sign_unsigned(ledger: Ledger, keys: Mapping[str, PublicKey], signer: Signer) -> int:
    """Sign every record that none of these keys signed; returns how many. One at a time: what is
    signed stays so, should the signer fail. Raises SigningError.
    """
    unsigned = _list_unsigned(ledger, keys)
    for number in unsigned:
        _sign(ledger, number, signer)
    return len(unsigned)


@retried
def _list_unsigned(ledger: Ledger, keys: Mapping[str, PublicKey]) -> list[int]:
    with ledger.read() as connection:
        found = _read_signers(connection, keys)
        return [number for number, _, signers in found if not signers]


@retried
def _sign(ledger: Ledger, number: int, signer: Signer) -> None:
    with ledger.read() as connection:
        query = select(records.c.statement).where(records.c.number == number)
        statement = connection.execute(query).scalar_one()
    # A key service may take its time: nobody waits for the ledger meanwhile.
    envelope = signer.sign(statement.encode("ascii"))
    ours = (signatures.c.record == number) & (signatures.c.key_id == signer.key_id)
    values = {"record": number, "key_id": signer.key_id, "envelope": envelope}
    with ledger.write() as connection:
        # One by this name that does not hold.
        connection.execute(delete(signatures).where(ours))
        connection.execute(insert(signatures).values(values))


def _read_signers(
    connection: Connection, keys: Mapping[str, PublicKey]
) -> Iterator[tuple[int, str, Collection[str]]]:
    """Each record's number and kind, with the ids of those keys that signed it."""
    query = (
        select(records.c.number, records.c.kind, records.c.statement, signatures.c.envelope)
        .outerjoin(signatures, signatures.c.record == records.c.number)
        .order_by(records.c.number)
    )
    last: tuple[int, str] | None = None
    signers: set[str] = set()
    streamed = connection.execution_options(yield_per=RECORDS_PER_READ).execute(query)
    for number, kind, statement, envelope in streamed.tuples():
        if last is not None and last[0] != number:
            yield *last, signers
            signers = set()
        last = number, kind
        if envelope is not None:
            signers |= find_signers(envelope, statement.encode(errors="surrogatepass"), keys)
    if last is not None:
        yield *last, signers
