"""Signatures of records: which of the records trusted keys vouch for."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, exists, func, select

from poisonwatch.attestation.envelope import find_signers
from poisonwatch.attestation.keys import PublicKey
from poisonwatch.ledger.chain_tables import records, signatures
from poisonwatch.ledger.differences import Difference
from poisonwatch.ledger.records import ADOPTED

RECORDS_PER_READ = 1000
SHOWN_NUMBERS = 5  # of records that a difference names


@dataclass(slots=True)
class SignatureCheck:
    """Which records these keys signed; without keys, only whether there are signatures.

    `signed` records are by one of the keys; `history` is older than the chain, and nobody signed
    it. `present` signatures are in the ledger, whoever made them.
    """

    keys: Mapping[str, PublicKey] | None
    present: int = 0
    signed: int = 0
    history: int = 0
    unsigned: list[int] = field(default_factory=list)

    def check(self, connection: Connection) -> Iterator[Difference]:
        """The differences of all signatures."""
        count = select(func.count()).select_from(signatures)
        self.present = connection.execute(count).scalar_one()
        yield from _check_lost(connection)
        if self.keys is None:
            return
        trusted: set[int] = set()
        forged: list[int] = []
        kinds: dict[int, str] = {}
        query = (
            select(records.c.number, records.c.kind, records.c.statement)
            .add_columns(signatures.c.key_id, signatures.c.envelope)
            .outerjoin(signatures, signatures.c.record == records.c.number)
            .order_by(records.c.number)
            .execution_options(yield_per=RECORDS_PER_READ)
        )
        for number, kind, statement, key_id, envelope in connection.execute(query).tuples():
            kinds[number] = kind
            if envelope is None:
                continue
            payload = statement.encode(errors="surrogatepass")
            signers = find_signers(envelope, payload, self.keys)
            if signers:
                trusted.add(number)
            # By a key that is not trusted, nothing can be said of it.
            if key_id in self.keys and key_id not in signers:
                forged.append(number)
        self.signed = len(trusted)
        for number, kind in kinds.items():
            if number in trusted:
                continue
            if kind == ADOPTED:
                self.history += 1
            else:
                self.unsigned.append(number)
        if forged:
            yield Difference(f"signatures of {_list(forged)}", "valid ones", "others")
        if self.unsigned:
            expected = "signatures of trusted keys"
            yield Difference(f"signatures of {_list(self.unsigned)}", expected, "none")


def _list(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:SHOWN_NUMBERS]))
    if len(numbers) > SHOWN_NUMBERS:
        return f"records {shown} and {len(numbers) - SHOWN_NUMBERS} more"
    return f"records {shown}"


def _check_lost(connection: Connection) -> Iterator[Difference]:
    has_record = exists().where(records.c.number == signatures.c.record)
    lost = select(func.count()).select_from(signatures).where(~has_record)
    count = connection.execute(lost).scalar_one()
    if count:
        yield Difference("signatures without a record", "0", str(count))
