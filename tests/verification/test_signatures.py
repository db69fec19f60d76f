"""The chain of records, and who vouches for it."""

import pytest
from sqlalchemy import select
from tampering import check_found, make_signer, tamper, verify

from poisonwatch.attestation.signer import KeySigner
from poisonwatch.ledger.chain_tables import records
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.records import sign_record

FORGERIES = [
    ("UPDATE records SET statement = '{}' WHERE number = 2", "record 2"),
    ("UPDATE records SET hash = '0' WHERE number = 2", "record 2"),
    ("DELETE FROM records WHERE number = 1", "record 1"),
    ("UPDATE signatures SET envelope = '{}' WHERE record = 2", "signatures of records 2"),
    ("UPDATE signatures SET record = 99 WHERE record = 2", "signatures"),
    ("DELETE FROM signatures WHERE record = 2", "signatures of records 2"),
]


@pytest.mark.parametrize(("statement", "found"), FORGERIES, ids=[f[0][:60] for f in FORGERIES])
def test_what_was_forged_is_named(
    ledger: Ledger, signer: KeySigner, statement: str, found: str
) -> None:
    """Whatever it was."""
    check_found(ledger, signer, statement, found)


def test_keys_that_are_not_trusted_sign_for_nobody(ledger: Ledger, signer: KeySigner) -> None:
    """An unsigned record, or one that others signed, differs; signed once more, it does not."""
    other = make_signer()
    found = verify(ledger, other)
    assert found.signed == 0
    assert [difference.found for difference in found.differences] == ["none"]
    with ledger.read() as connection:
        numbers = connection.execute(select(records.c.number)).scalars().all()
    with ledger.write() as connection:
        for number in numbers:
            sign_record(connection, number, other)
    assert verify(ledger, other).is_whole
    assert verify(ledger, signer).is_whole
    assert verify(ledger, signer, other).signed == len(numbers)


def test_a_signature_under_anothers_name_is_forged(ledger: Ledger, signer: KeySigner) -> None:
    other = make_signer()
    with ledger.read() as connection:
        text = connection.execute(select(records.c.statement).where(records.c.number == 1)).scalar()
    envelope = other.sign(str(text).encode())
    forged = envelope.replace(other.key_id, signer.key_id)
    tamper(ledger, "UPDATE signatures SET envelope = :forged WHERE record = 1", {"forged": forged})
    found = [difference.words for difference in verify(ledger, signer).differences]
    assert "signatures of records 1: expected valid ones, found others" in found
