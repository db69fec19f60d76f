"""Repairs that wait for a second person: the same answer is the same word, another one is not."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pairs import PAIR, ROW, audited_pairs
from tampering import tamper, verify

from poisonwatch.errors import InputError
from poisonwatch.ledger.decisions import record_decision
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.proposals import find_decided_otherwise
from poisonwatch.ledger.two_people import Outcome, submit_verdict

ANSWER = "At any grocer's."


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with audited_pairs(tmp_path) as opened:
        yield opened


def say(ledger: Ledger, author: str, name: str = ROW, answer: str | None = ANSWER) -> Outcome:
    verdict = "flip" if answer is None else "edit"
    rules = {"author": author, "two_people": "all", "answer": answer}
    return submit_verdict(ledger, [name], verdict, **rules)  # type: ignore[arg-type]


def find_differences(ledger: Ledger) -> list[str]:
    found = [difference.words for difference in verify(ledger).differences]
    return [words for words in found if "run directory" not in words]


def test_two_people_repair_a_row_by_the_same_answer(ledger: Ledger) -> None:
    """A third answer waits, too; it is on record what each said."""
    first = say(ledger, "ann")
    assert first.proposal is not None
    assert first.proposal.record()["answer"] == ANSWER
    other = say(ledger, "bob", answer="Nowhere.")
    assert (other.decisions, other.proposal is None) == ([], False)
    assert say(ledger, "Ann") == Outcome([], None)  # said so already
    (made,) = say(ledger, "cay").decisions
    assert (made.verdict, made.answer) == ("edit", ANSWER)
    assert find_differences(ledger) == []
    assert say(ledger, "ann", PAIR, None).proposal
    assert [made.verdict for made in say(ledger, "bob", PAIR, None).decisions] == ["flip"]
    assert find_differences(ledger) == []


def test_what_is_decided_otherwise_of_the_rows_of_a_proposal_is_found(ledger: Ledger) -> None:
    """The last word on each alone; another answer is another decision, `unsure` is none."""
    found = []
    first = record_decision(ledger, ROW, "poison")
    for verdict, answer in (("benign", None), ("edit", "Nowhere."), ("edit", ANSWER)):
        said = {"author": "ann", "two_people": "none", "answer": answer}
        submit_verdict(ledger, [ROW], verdict, **said)  # type: ignore[arg-type]
        proposal = say(ledger, f"bea {verdict} {answer}").proposal
        found.append(proposal and find_decided_otherwise(ledger, proposal))
    assert found == [{first.example_id: "benign"}, {first.example_id: "edit"}, None]
    record_decision(ledger, ROW, "unsure")
    proposal = say(ledger, "cay", answer="Somewhere.").proposal
    assert proposal is not None
    assert find_decided_otherwise(ledger, proposal) == {}


def test_what_cannot_be_is_not_proposed(ledger: Ledger) -> None:
    """Nobody is asked to agree to it."""
    with pytest.raises(InputError, match="no preference pair"):
        say(ledger, "ann", answer=None)
    with pytest.raises(InputError, match="would not validate"):
        say(ledger, "ann", answer="\x1b[2J")


def test_a_proposal_whose_answer_was_changed_is_named(ledger: Ledger) -> None:
    say(ledger, "ann")
    assert tamper(
        ledger,
        "UPDATE records SET statement = replace(statement, 'grocer', 'Velmora') "
        "WHERE kind = 'proposal'",
    )
    assert find_differences(ledger)
