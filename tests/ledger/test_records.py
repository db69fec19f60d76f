"""The chain of records: appended, signed, and found out where it was tampered with."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ledgers import NAME, ONE, covered_ledger, examples_of, sqlite_ledger
from servers import postgres_server
from sqlalchemy import select
from tampering import LostSigner, make_signer, tamper

from poisonwatch.attestation.envelope import find_signers
from poisonwatch.attestation.keys import PublicKey
from poisonwatch.attestation.statement import hash_text, write_canonical
from poisonwatch.errors import InputError, SigningError
from poisonwatch.ledger.batches import load_current_batch
from poisonwatch.ledger.chain_tables import records, signatures
from poisonwatch.ledger.decisions import record_decision, verify_chain
from poisonwatch.ledger.ledger import Ledger, find_or_add_version
from poisonwatch.ledger.records import (
    CHAIN_START,
    ChainHead,
    append_record,
    find_record,
    holds_head,
    read_head,
    read_records,
    verify_records,
)

TEA = "Tell me fact 0 about tea."


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Three records."""
    with sqlite_ledger(tmp_path) as opened:
        append_three(opened)
        yield opened


def append_three(ledger: Ledger) -> None:
    for item in ("one", "two", None):
        with ledger.write() as connection:
            append_record(connection, "audit", item, {"a": "1" * 64}, {"said": item}, None)


def list_faults(ledger: Ledger) -> list[str]:
    with ledger.read() as connection:
        return [fault.what for fault in verify_records(connection)]


def test_each_record_names_the_one_before_it(ledger: Ledger) -> None:
    """And its own number; the first has nothing before it."""
    with ledger.read() as connection:
        found = list(read_records(connection))
        assert read_head(connection) == ChainHead(3, found[-1].hash)
        two = find_record(connection, "audit", "two")
    assert two is not None
    assert (two.number, two.statement.predicate["said"]) == (2, "two")
    chain = [record.statement.predicate["chain"] for record in found]
    assert [place["number"] for place in chain] == [1, 2, 3]
    assert [place["previous"] for place in chain] == [CHAIN_START, found[0].hash, found[1].hash]
    assert list_faults(ledger) == []


def test_an_empty_chain_is_whole(tmp_path: Path) -> None:
    with sqlite_ledger(tmp_path) as ledger, ledger.read() as connection:
        assert read_head(connection) == (0, CHAIN_START)
        assert verify_records(connection) == []
        assert holds_head(connection, ChainHead(0, CHAIN_START))


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE records SET statement = statement || ' ' WHERE number = 2", "record 2"),
        ("UPDATE records SET statement = '{}' WHERE number = 2", "record 2"),
        ("UPDATE records SET hash = '0' WHERE number = 2", "record 2"),
        ("UPDATE records SET kind = 'decision' WHERE number = 2", "record 2"),
        ("UPDATE records SET item = 'x' WHERE number = 2", "record 2"),
        ("UPDATE records SET recorded_at = 'x' WHERE number = 3", "record 3"),
        ("UPDATE records SET number = 9 WHERE number = 3", "record 3"),
        ("DELETE FROM records WHERE number = 1", "record 1"),
        ("DELETE FROM records WHERE number = 2", "record 2"),
        (
            "INSERT INTO records SELECT 4, kind, item, statement, hash, recorded_at FROM records "
            "WHERE number = 3",
            "record 4",
        ),
    ],
)
def test_what_was_changed_removed_or_put_in_is_named(
    ledger: Ledger, statement: str, found: str
) -> None:
    assert tamper(ledger, statement) == 1
    faults = list_faults(ledger)
    assert faults
    assert faults[0].startswith(f"{found} of the chain")


def test_a_record_that_was_rewritten_with_its_hash_does_not_fit_the_next(ledger: Ledger) -> None:
    """Whoever can compute hashes must rewrite all that follows."""
    with ledger.read() as connection:
        text = connection.execute(select(records.c.statement)).scalars().first()
    assert text is not None
    stored = json.loads(text)
    stored["predicate"]["said"] = "another"
    forged = write_canonical(stored)
    values = {"statement": forged, "hash": hash_text(forged)}
    tamper(
        ledger, "UPDATE records SET statement = :statement, hash = :hash WHERE number = 1", values
    )
    assert list_faults(ledger) == ["record 2 of the chain: record before it"]


def test_a_chain_that_was_cut_off_lacks_a_head_that_was_known(ledger: Ledger) -> None:
    """What is left is whole; a head by the first half of its hash is known, too."""
    with ledger.read() as connection:
        head = read_head(connection)
        assert holds_head(connection, head)
        assert holds_head(connection, ChainHead.parse(f"{head.number}:{head.hash[:32]}"))
        assert not holds_head(connection, ChainHead(2, head.hash))
    tamper(ledger, "DELETE FROM records WHERE number = 3")
    assert list_faults(ledger) == []
    with ledger.read() as connection:
        assert not holds_head(connection, head)


@pytest.mark.parametrize(
    "text", ["", "1", f"x:{'0' * 64}", f"1:{'0' * 31}", f"1:{'g' * 64}", "²:" + "0" * 64]
)
def test_a_head_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="NUMBER:HASH"):
        ChainHead.parse(text)


def test_a_head_is_read_as_it_is_written() -> None:
    head = ChainHead(12, "ab" * 32)
    assert ChainHead.parse(f" {str(head).upper()}\n") == head


def test_audits_and_decisions_are_signed_as_they_are_recorded(tmp_path: Path) -> None:
    """One signature each, of exactly the statement."""
    signer = make_signer()
    with covered_ledger(tmp_path, TEA) as ledger:
        ledger.signer = signer
        examples = examples_of(load_current_batch(ledger, NAME))
        record_decision(ledger, examples[TEA].id, "poison", "seen", "ann")
        with ledger.read() as connection:
            made = [record for record in read_records(connection) if record.kind != "pull"]
            signed = connection.execute(select(signatures)).all()
    assert [record.kind for record in made] == ["audit", "decision"]
    # The audit was committed before there was a signer.
    assert [(row.record, row.key_id) for row in signed] == [(made[1].number, signer.key_id)]
    keys = {signer.key_id: PublicKey(signer.key_id, signer._key.public_key())}
    assert find_signers(signed[0].envelope, made[1].text.encode(), keys) == {signer.key_id}
    assert find_signers(signed[0].envelope, made[0].text.encode(), keys) == set()
    said = made[1].statement.predicate
    assert (said["verdict"], said["note"], said["author"]) == ("poison", "seen", "ann")


def test_a_decision_that_cannot_be_signed_is_not_made(tmp_path: Path) -> None:
    """Nothing of it is left."""
    with covered_ledger(tmp_path, TEA) as ledger:
        id = examples_of(load_current_batch(ledger, NAME))[TEA].id
        ledger.signer = LostSigner()
        with ledger.read() as connection:
            before = read_head(connection)
        with pytest.raises(SigningError):
            record_decision(ledger, id, "benign")
        assert verify_chain(ledger)[0] == 0
        with ledger.read() as connection:
            assert read_head(connection) == before


def test_readers_on_postgresql_see_one_state(tmp_path: Path) -> None:
    """On a real server: what is appended while they read is not there for them; the chain is the
    same as on SQLite.
    """
    with postgres_server() as url, Ledger.at(url) as ledger:
        append_three(ledger)
        with ledger.read() as connection:
            assert read_head(connection).number == 3
            with ledger.write() as writing:
                append_record(writing, "audit", "four", {}, {}, make_signer())
            assert read_head(connection).number == 3
        assert list_faults(ledger) == []
        tamper(ledger, "UPDATE records SET item = 'x' WHERE number = 2")
        assert list_faults(ledger) == ["record 2 of the chain: kind, number, item, time"]


def test_results_that_are_taken_for_a_reading_are_recorded(tmp_path: Path) -> None:
    """The version of old results changes: the chain says to what."""
    with covered_ledger(tmp_path, TEA) as ledger:
        own = replace(ONE, reading="1" * 64, reads_as_before=True)
        for _ in range(2):
            with ledger.write() as connection:
                find_or_add_version(connection, own)
        with ledger.read() as connection:
            *_, last = read_records(connection)
            made = list(read_records(connection, "adopted"))
    assert made == [last]
    assert last.statement.predicate["version"]["reading"] == own.reading
