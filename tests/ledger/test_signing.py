"""Which records are signed, and signing those that are not."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from ledgers import covered_ledger
from signing import make_signer, sign_unsigned
from tampering import LostSigner, tamper

from poisonwatch.attestation.keys import PublicKey
from poisonwatch.attestation.signer import KeySigner
from poisonwatch.errors import OperationError, SigningError
from poisonwatch.ledger.decisions import record_decision
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.records import verify_records
from poisonwatch.ledger.signing import SignedCount, count_signed, list_unsigned, sign_records


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An audit and two decisions, none of which is signed."""
    with covered_ledger(tmp_path, "Tell me fact 0 about tea.") as opened:
        record_decision(opened, "a.jsonl:1", "benign")
        record_decision(opened, "a.jsonl:2", "poison")
        yield opened


@pytest.fixture
def pair(tmp_path: Path) -> tuple[KeySigner, PublicKey]:
    return make_signer(tmp_path / "keys")


def count(ledger: Ledger, *keys: PublicKey) -> dict[str, tuple[int, int]]:
    """Records, and how many of them are signed, by kind."""
    counts = count_signed(ledger, {key.id: key for key in keys})
    assert all(isinstance(one, SignedCount) for one in counts)
    return {one.kind: (one.records, one.signed) for one in counts}


def test_what_is_not_signed_is_signed_once(
    ledger: Ledger, pair: tuple[KeySigner, PublicKey], tmp_path: Path
) -> None:
    """The chain stays as it is; another key's signatures are beside the first's."""
    signer, key = pair
    before = count(ledger, key)
    assert before["decision"] == (2, 0)
    total = sum(records for records, _ in before.values())
    assert sign_unsigned(ledger, {key.id: key}, signer) == total
    assert sign_unsigned(ledger, {key.id: key}, signer) == 0
    assert count(ledger, key) == {kind: (n, n) for kind, (n, _) in before.items()}
    other, its = make_signer(tmp_path / "other")
    assert count(ledger, its)["decision"] == (2, 0)
    assert sign_unsigned(ledger, {its.id: its}, other) == total
    assert count(ledger, key, its)["decision"] == (2, 2)
    with ledger.read() as connection:
        assert verify_records(connection) == []


def test_a_signature_that_does_not_hold_is_none(
    ledger: Ledger, pair: tuple[KeySigner, PublicKey]
) -> None:
    """Taken from another record, or made up under the key's name: signed anew."""
    signer, key = pair
    sign_unsigned(ledger, {key.id: key}, signer)
    assert tamper(
        ledger,
        "UPDATE signatures SET envelope = (SELECT envelope FROM signatures WHERE record = 1) "
        "WHERE record = 2",
    )
    assert tamper(ledger, "UPDATE signatures SET envelope = '{}' WHERE record = 3")
    assert sign_unsigned(ledger, {key.id: key}, signer) == 2
    assert all(records == signed for records, signed in count(ledger, key).values())


def test_a_key_service_that_fails_takes_no_signature_back(
    ledger: Ledger, pair: tuple[KeySigner, PublicKey]
) -> None:
    signer, key = pair
    lost = LostSigner()
    sign_unsigned(ledger, {key.id: key}, signer)
    record_decision(ledger, "a.jsonl:3", "poison")
    with pytest.raises(SigningError):
        sign_unsigned(ledger, {key.id: key}, lost)
    assert count(ledger, key)["decision"] == (3, 2)


def test_what_is_vouched_for_is_what_was_listed(
    ledger: Ledger, pair: tuple[KeySigner, PublicKey]
) -> None:
    """Chosen records alone; one that somebody changed meanwhile is not signed."""
    signer, key = pair
    unsigned = list_unsigned(ledger, {key.id: key})
    decisions = [record for record in unsigned if record.kind == "decision"]
    assert [record.number for record in unsigned] == list(range(1, len(unsigned) + 1))
    assert sign_records(ledger, decisions[:1], signer) == 1
    assert count(ledger, key)["decision"] == (2, 1)
    other = decisions[1].number
    change = "UPDATE records SET statement = REPLACE(statement, 'poison\"', 'benign\"')"
    assert tamper(ledger, f"{change} WHERE number = {other}")
    with pytest.raises(OperationError, match=f"record {other} is not what it was"):
        sign_records(ledger, decisions[1:], signer)
    assert count(ledger, key)["decision"] == (2, 1)
