"""Whose word counts: which records of a ledger are signed by keys that the gate was given.

A record that a trusted key signed vouches for itself, and by the hash in it for all before it: that
none was changed or taken out, not that each was meant. So what clears a row must be signed itself:
the record of the audit that passed it, or of the decision on it, and those of what was pulled.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, func, select

from poisonwatch.attestation.envelope import find_signers
from poisonwatch.attestation.keys import PublicKey
from poisonwatch.ledger.audit_records import EARLIER_DECISIONS, find_audit_record
from poisonwatch.ledger.chain_tables import records, signatures
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.pull_records import ADOPTED_FILES, PULL
from poisonwatch.ledger.records import ADOPTED, ADOPTED_VERSION, DECISION, Record, find_record
from poisonwatch.ledger.tables import audits, decisions
from poisonwatch.ledger.transactions import retried


class Trust:
    """Asks a ledger which of its records these keys signed; each once, of one state of it."""

    def __init__(self, ledger: Ledger, keys: Mapping[str, PublicKey]) -> None:
        self.ledger = ledger
        self.keys = keys
        self._audits: dict[int, bool] = {}
        self._decisions: dict[int, bool] = {}

    def vouches_for_head(self) -> bool:
        """Whether the last record is signed; there is nothing to sign in an empty chain."""
        with self.ledger.read() as connection:
            last = connection.execute(select(func.max(records.c.number))).scalar_one()
            return last is None or self.has_signed(connection, last)

    def vouches_for_pulls(self) -> bool:
        """Whether what was read of files is signed, all of it: what stands where a cleared row is,
        is no audit's word.
        """
        adopted = (records.c.kind == ADOPTED) & records.c.item.startswith(ADOPTED_FILES)
        query = select(records.c.number).where((records.c.kind == PULL) | adopted)
        with self.ledger.read() as connection:
            numbers = connection.execute(query).scalars().all()
            return all(self.has_signed(connection, number) for number in numbers)

    def vouches_for_audit(self, audit: int) -> bool:
        """Whether the record of an audit is signed; and, where it does not say all of the version
        that it was of, what this was taken for.
        """
        if audit not in self._audits:
            with self.ledger.read() as connection:
                query = select(audits.c.audit_id).where(audits.c.audit == audit)
                record = find_audit_record(connection, connection.execute(query).scalar_one())
                is_signed = self._has_signed_record(connection, record)
                if record is not None and is_signed and not _says_version(record):
                    is_signed = self._has_signed_all(connection, ADOPTED_VERSION)
                self._audits[audit] = is_signed
        return self._audits[audit]

    def vouches_for_decision(self, number: int) -> bool:
        """Whether the record of a decision is signed, and says what the decision does."""
        if number not in self._decisions:
            with self.ledger.read() as connection:
                self._decisions[number] = self._has_signed_decision(connection, number)
        return self._decisions[number]

    def _has_signed_decision(self, connection: Connection, number: int) -> bool:
        query = select(decisions.c.hash).where(decisions.c.number == number)
        made = connection.execute(query).scalar_one()
        record = find_record(connection, DECISION, str(number))
        if record is not None:
            said = record.statement.predicate.get("hash")
            return said == made and self._has_signed_record(connection, record)
        # Older than the chain, which took over all of them at once.
        earlier = find_record(connection, ADOPTED, EARLIER_DECISIONS)
        if earlier is None or not _took_over(connection, earlier.statement.predicate, number):
            return False
        return self._has_signed_record(connection, earlier)

    def _has_signed_all(self, connection: Connection, beginning: str) -> bool:
        """Whether all adopted records are signed whose items begin so."""
        is_meant = (records.c.kind == ADOPTED) & records.c.item.startswith(beginning)
        numbers = connection.execute(select(records.c.number).where(is_meant)).scalars().all()
        return all(self.has_signed(connection, number) for number in numbers)

    def _has_signed_record(self, connection: Connection, record: Record | None) -> bool:
        return record is not None and self.has_signed(connection, record.number)

    def has_signed(self, connection: Connection, number: int) -> bool:
        """Whether one of the keys signed this record."""
        query = (
            select(records.c.statement, signatures.c.envelope)
            .join(signatures, signatures.c.record == records.c.number)
            .where(records.c.number == number)
        )
        for statement, envelope in connection.execute(query).tuples():
            payload = statement.encode(errors="surrogatepass")
            if find_signers(envelope, payload, self.keys):
                return True
        return False


def _says_version(record: Record) -> bool:
    said = record.statement.predicate.get("version")
    return isinstance(said, dict) and said.get("reading") is not None


@retried
def is_signed(ledger: Ledger) -> bool:
    """Whether anything in a ledger is signed, by whomever."""
    with ledger.read() as connection:
        return connection.execute(select(signatures.c.record).limit(1)).first() is not None


def _took_over(connection: Connection, predicate: Mapping[str, Any], number: int) -> bool:
    """Whether a record took over this decision: the head that it names is no earlier one, and the
    decisions go through it.
    """
    head = predicate.get("decisions")
    if not isinstance(head, dict) or not isinstance(head.get("number"), int):
        return False
    query = select(decisions.c.hash).where(decisions.c.number == head["number"])
    is_there = connection.execute(query).scalar_one_or_none() == head.get("hash")
    return is_there and number <= head["number"]
