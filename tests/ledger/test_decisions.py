"""People's verdicts: append-only, chained, and what they do to rows."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ledgers import cover, covered_ledger, examples_of, prompts, statuses, waiting
from sqlalchemy import delete, select, update

from poisonwatch.errors import InputError
from poisonwatch.ledger.batches import load_trusted
from poisonwatch.ledger.decisions import (
    CHAIN_START,
    read_decisions,
    record_decision,
    record_decisions,
    revert_decisions,
    verify_chain,
)
from poisonwatch.ledger.ledger import Ledger, Version
from poisonwatch.ledger.tables import decisions, rejections, rows

TEA = "Tell me fact 0 about tea."
TWO = Version("n" * 64, "s" * 64)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Nine rows: one flagged, one rejected, the others clean."""
    with covered_ledger(tmp_path, TEA) as opened:
        yield opened


@pytest.fixture
def flagged(ledger: Ledger) -> str:
    with ledger.read() as connection:
        return bytes(
            connection.execute(select(rows.c.id).where(rows.c.status == "flagged")).scalar_one()
        ).hex()


def test_a_verdict_settles_a_row_and_unsure_takes_it_back(ledger: Ledger, flagged: str) -> None:
    """benign: clean; poison: poison; unsure: what the audit said."""
    for verdict, status in (("benign", None), ("poison", "poison"), ("unsure", "flagged")):
        record_decision(ledger, flagged, verdict, "looked at it", "ann")
        expected = (
            {"clean": 8, "rejected": 1}
            if status is None
            else {"clean": 7, "rejected": 1, status: 1}
        )
        assert statuses(ledger) == expected
    assert [d.verdict for d in read_decisions(ledger)] == ["benign", "poison", "unsure"]
    assert [d.number for d in read_decisions(ledger)] == [1, 2, 3]


def test_rows_are_named_by_id_or_by_place(ledger: Ledger, flagged: str) -> None:
    """Eight digits are enough, in either case; FILE:POSITION counts from 0, as flags.jsonl does."""
    assert record_decision(ledger, flagged[:8].upper(), "benign").example_id == flagged
    assert record_decision(ledger, "a.jsonl:1", "benign").example_id == flagged


@pytest.mark.parametrize(
    ("row", "verdict", "told"),
    [
        ("abc", "benign", "8 or more digits"),
        ("f" * 65, "benign", "8 or more digits"),
        ("00000000", "benign", "no row of this ledger"),
        ("a.jsonl:99", "benign", "no row of this ledger"),
        ("a.jsonl:1", "harmless", "poison, benign, unsure"),
    ],
)
def test_what_cannot_be_decided_is_said(ledger: Ledger, row: str, verdict: str, told: str) -> None:
    """And nothing is appended."""
    with pytest.raises(InputError, match=told):
        record_decision(ledger, row, verdict)
    assert list(read_decisions(ledger)) == []


def test_the_chain_holds_what_was_decided(ledger: Ledger, flagged: str) -> None:
    """Each hash covers the one before; the first one's is zeros."""
    made = [
        record_decision(ledger, flagged, "poison", "\x1b[31m<b>note</b>", "ann"),
        record_decision(ledger, flagged, "benign"),
    ]
    assert [d.previous for d in read_decisions(ledger)] == [CHAIN_START, made[0].hash]
    assert verify_chain(ledger) == (2, made[1].hash)
    assert list(read_decisions(ledger)) == made


@pytest.mark.parametrize("what", ["note", "removed"])
def test_tampering_is_found(ledger: Ledger, flagged: str, what: str) -> None:
    """A changed note, and a removed decision in the middle."""
    for _ in range(3):
        record_decision(ledger, flagged, "benign", "note")
    with ledger.write() as connection:
        change = delete(decisions) if what == "removed" else update(decisions).values(note="other")
        connection.execute(change.where(decisions.c.number == 2))
    with pytest.raises(InputError, match="was changed or removed"):
        verify_chain(ledger)


def test_decisions_at_the_same_time_make_one_chain(ledger: Ledger, flagged: str) -> None:
    """Four threads, five verdicts each."""

    def run() -> None:
        for _ in range(5):
            record_decision(ledger, flagged, "benign")

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verify_chain(ledger)[0] == 20


def test_a_benign_verdict_on_a_rejected_row_lets_it_in(ledger: Ledger) -> None:
    """The broken line counts as clean, and is not validated again; it is no trusted row, for it has
    no content.
    """
    record_decision(ledger, "b.jsonl:4", "benign", "a comment line that the loader skips")
    assert statuses(ledger) == {"clean": 8, "flagged": 1}
    assert len(waiting(ledger)) == 0
    assert load_trusted(ledger, "tiny") == []
    assert examples_of(waiting(ledger)) == {}


def ids(ledger: Ledger, n: int) -> list[str]:
    with ledger.read() as connection:
        return [
            bytes(id).hex()
            for id in connection.execute(select(rows.c.id).order_by(rows.c.row).limit(n)).scalars()
        ]


def test_a_verdict_on_several_rows_is_on_all_or_on_none(ledger: Ledger) -> None:
    """Numbers follow each other; one that is not there leaves nothing."""
    made = record_decisions(ledger, ids(ledger, 3), "poison", "a group", "ann")
    assert [d.number for d in made] == [1, 2, 3]
    with pytest.raises(InputError):
        record_decisions(ledger, [*ids(ledger, 3), "0" * 64], "benign")
    assert verify_chain(ledger)[0] == 3


def test_undoing_appends_what_was_decided_before(ledger: Ledger, flagged: str) -> None:
    """unsure where nothing was; the row's status with it. An undone decision can be brought back in
    the same way.
    """
    record_decision(ledger, flagged, "poison")
    record_decision(ledger, flagged, "benign")
    (undone,) = revert_decisions(ledger, [2], "ann")
    assert (undone.verdict, undone.note, undone.author) == ("poison", "undoes decision 2", "ann")
    assert statuses(ledger)["poison"] == 1
    (again,) = revert_decisions(ledger, [3])
    assert again.verdict == "benign"
    other = next(id for id in ids(ledger, 2) if id != flagged)
    record_decision(ledger, other, "poison")
    assert revert_decisions(ledger, [5])[0].verdict == "unsure"
    assert statuses(ledger) == {"clean": 8, "rejected": 1}


def test_what_was_decided_anew_is_not_undone(ledger: Ledger, flagged: str) -> None:
    """Nor anything that was to be undone beside it, nor a decision that is not there."""
    record_decisions(ledger, ids(ledger, 3), "poison")
    record_decision(ledger, ids(ledger, 2)[1], "benign")
    before = verify_chain(ledger)
    for numbers in ([1, 2, 3], [9]):
        with pytest.raises(InputError, match="cannot be undone"):
            revert_decisions(ledger, numbers)
    assert verify_chain(ledger) == before


def test_a_row_that_a_later_audit_could_not_measure_is_not_clean_again(
    ledger: Ledger, tmp_path: Path
) -> None:
    """A verdict that is taken back leaves what the last audit said, whatever those before it
    said; until the row is measured by something else.
    """
    river = "Tell me fact 2 about rivers."
    cover(ledger, tmp_path / "other", version=TWO, unmeasured=[river], measurement="float16")
    with ledger.read() as connection:
        of_row = select(rows.c.id).where(rows.c.row == select(rejections.c.row).where(
            rejections.c.checks == "float16").scalar_subquery())  # fmt: skip
        id = bytes(connection.execute(of_row).scalar_one()).hex()
    for verdict in ("benign", "unsure"):
        record_decision(ledger, id, verdict)
    assert statuses(ledger)["rejected"] == 2
    assert prompts(waiting(ledger, TWO, measurement="float16")) == []
    assert prompts(waiting(ledger, TWO, measurement="float32")) == [river]
    cover(ledger, tmp_path / "again", version=TWO, measurement="float32")
    assert statuses(ledger)["rejected"] == 1
