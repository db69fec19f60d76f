"""People's verdicts: append-only, chained, and what they do to rows."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ledgers import covered_ledger, examples_of, statuses, waiting
from sqlalchemy import delete, select, update

from poisonwatch.decisions import START, chain, decide, verify
from poisonwatch.errors import InputError
from poisonwatch.ledger import Ledger
from poisonwatch.ledger_tables import decisions, rows

TEA = "Tell me fact 0 about tea."


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Nine rows: one flagged, one rejected, the others clean."""
    with covered_ledger(tmp_path, TEA) as opened:
        yield opened


@pytest.fixture
def flagged(ledger: Ledger) -> str:
    with ledger.read() as connection:
        return bytes(connection.execute(select(rows.c.id).where(rows.c.status == "flagged")).scalar_one()).hex()


def test_a_verdict_settles_a_row_and_unsure_takes_it_back(ledger: Ledger, flagged: str) -> None:
    """benign: clean; poison: poison; unsure: what the audit said."""
    for verdict, status in (("benign", None), ("poison", "poison"), ("unsure", "flagged")):
        decide(ledger, flagged, verdict, "looked at it", "ann")
        expected = {"clean": 8, "rejected": 1} if status is None else {"clean": 7, "rejected": 1, status: 1}
        assert statuses(ledger) == expected
    assert [d.verdict for d in chain(ledger)] == ["benign", "poison", "unsure"]
    assert [d.number for d in chain(ledger)] == [1, 2, 3]


def test_rows_are_named_by_id_or_by_place(ledger: Ledger, flagged: str) -> None:
    """Eight digits are enough, in either case; FILE:POSITION counts from 0, as flags.jsonl does."""
    assert decide(ledger, flagged[:8].upper(), "benign").example_id == flagged
    assert decide(ledger, "a.jsonl:0", "benign").example_id == flagged


@pytest.mark.parametrize(
    ("row", "verdict", "told"),
    [
        ("abc", "benign", "8 or more digits"),
        ("f" * 65, "benign", "8 or more digits"),
        ("00000000", "benign", "no row of this ledger"),
        ("a.jsonl:99", "benign", "no row of this ledger"),
        ("a.jsonl:0", "harmless", "poison, benign, unsure"),
    ],
)
def test_what_cannot_be_decided_is_said(ledger: Ledger, row: str, verdict: str, told: str) -> None:
    """And nothing is appended."""
    with pytest.raises(InputError, match=told):
        decide(ledger, row, verdict)
    assert list(chain(ledger)) == []


def test_the_chain_holds_what_was_decided(ledger: Ledger, flagged: str) -> None:
    """Each hash covers the one before; the first one's is zeros."""
    made = [decide(ledger, flagged, "poison", "\x1b[31m<b>note</b>", "ann"), decide(ledger, flagged, "benign")]
    assert [d.previous for d in chain(ledger)] == [START, made[0].hash]
    assert verify(ledger) == (2, made[1].hash)
    assert list(chain(ledger)) == made


@pytest.mark.parametrize("what", ["note", "removed"])
def test_tampering_is_found(ledger: Ledger, flagged: str, what: str) -> None:
    """A changed note, and a removed decision in the middle."""
    for _ in range(3):
        decide(ledger, flagged, "benign", "note")
    with ledger.write() as connection:
        change = delete(decisions) if what == "removed" else update(decisions).values(note="other")
        connection.execute(change.where(decisions.c.number == 2))
    with pytest.raises(InputError, match="was changed or removed"):
        verify(ledger)


def test_decisions_at_the_same_time_make_one_chain(ledger: Ledger, flagged: str) -> None:
    """Four threads, five verdicts each."""

    def run() -> None:
        for _ in range(5):
            decide(ledger, flagged, "benign")

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verify(ledger)[0] == 20


def test_a_benign_verdict_on_a_rejected_row_lets_it_in(ledger: Ledger) -> None:
    """The broken line counts as clean, and is not validated again; it is no trusted row, for it has no content."""
    decide(ledger, "b.jsonl:3", "benign", "a comment line that the loader skips")
    assert statuses(ledger) == {"clean": 8, "flagged": 1}
    assert len(waiting(ledger)) == 0
    assert ledger.trusted("tiny") == []
    assert examples_of(waiting(ledger)) == {}
