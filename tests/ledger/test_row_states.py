"""What a row is follows from what audits found and people decided."""

from pathlib import Path

import pytest
from ledgers import (
    NAME,
    cover,
    covered_ledger,
    examples_of,
    pull,
    sqlite_ledger,
    statuses,
    write_two_files,
)
from tampering import tamper

from poisonwatch.ledger.batches import load_current_batch
from poisonwatch.ledger.decisions import record_decision
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.row_states import derive_state, read_row_states

TEA = "Tell me fact 0 about tea."
RIVERS = "Tell me fact 2 about rivers."


@pytest.mark.parametrize(
    ("verdict", "passed", "flagged", "refused", "state"),
    [
        (None, None, None, None, ("pending", None)),
        (None, 1, 0, None, ("clean", None)),
        (None, 1, 1, None, ("flagged", None)),
        (None, None, None, 1, ("rejected", None)),
        (None, 1, 0, 2, ("rejected", None)),
        (None, 2, 1, 1, ("flagged", None)),
        ("unsure", 2, 1, 1, ("flagged", None)),
        ("unsure", None, None, None, ("pending", None)),
        ("poison", 1, 0, None, ("poison", "poison")),
        ("benign", 1, 1, None, ("clean", "benign")),
        ("benign", None, None, None, ("clean", "benign")),
    ],
)
def test_the_last_word_counts(
    verdict: str | None,
    passed: int | None,
    flagged: int | None,
    refused: int | None,
    state: tuple[str, str | None],
) -> None:
    """A person's before an audit's; a later audit's before an earlier one's."""
    assert derive_state(verdict, passed=passed, flagged=flagged, refused=refused) == state


def list_wrong(ledger: Ledger) -> list[tuple[str, str | None, str, str | None]]:
    with ledger.read() as connection:
        return [
            (state.status, state.decided, state.derived_status, state.derived_decided)
            for state in read_row_states(connection)
            if not state.is_right
        ]


def test_whatever_happens_what_is_kept_is_what_follows(tmp_path: Path) -> None:
    """Audits, audits again, verdicts, verdicts taken back, on rows of every kind."""
    write_two_files(tmp_path / "data")
    with sqlite_ledger(tmp_path) as ledger:
        pull(ledger, tmp_path / "data")
        assert list_wrong(ledger) == []
        examples = examples_of(load_current_batch(ledger, NAME))
        for verdict in ("poison", "unsure"):
            record_decision(ledger, examples[TEA].id, verdict)
            assert list_wrong(ledger) == []
        # Nobody rejected it.
        assert statuses(ledger) == {"pending": 9}
        cover(ledger, tmp_path / "one", flagged=[TEA])
        for verdict in ("benign", "poison", "unsure"):
            for name in (TEA, RIVERS):
                record_decision(ledger, examples[name].id, verdict)
                assert list_wrong(ledger) == []
        cover(ledger, tmp_path / "two", flagged=[RIVERS], again=True)
        assert list_wrong(ledger) == []
        assert statuses(ledger) == {"clean": 7, "flagged": 1, "rejected": 1}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE rows SET status = 'clean' WHERE status = 'flagged'",
        "UPDATE rows SET status = 'released' WHERE status = 'flagged'",
        "UPDATE rows SET decided = 'benign', status = 'clean' WHERE status = 'flagged'",
        "UPDATE results SET flagged = 0 WHERE flagged = 1",
        "DELETE FROM rejections",
    ],
)
def test_a_state_that_does_not_follow_is_found(tmp_path: Path, statement: str) -> None:
    with covered_ledger(tmp_path, TEA) as ledger:
        assert tamper(ledger, statement) == 1
        assert len(list_wrong(ledger)) == 1


def test_a_released_row_is_a_clean_one(tmp_path: Path) -> None:
    with covered_ledger(tmp_path, TEA) as ledger:
        tamper(ledger, "UPDATE rows SET status = 'released' WHERE status = 'clean'")
        assert list_wrong(ledger) == []
