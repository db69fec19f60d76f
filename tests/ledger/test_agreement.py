"""How often two people say the same of the same rows."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import pulled, settings
from muting import audit_two_groups

from poisonwatch.ledger.agreement import Agreement, add_up, list_agreement
from poisonwatch.ledger.decisions import record_decisions
from poisonwatch.ledger.ledger import Ledger, now
from poisonwatch.ledger.queue import list_group_rows
from poisonwatch.ledger.two_people import submit_verdict

NOW = now()[:7]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with pulled(tmp_path) as ledger:
        audit_two_groups(ledger, tmp_path, settings("json://one"))
        yield ledger


def list_ids(ledger: Ledger, group: str = "1") -> list[str]:
    return [row.example_id for row in list_group_rows(ledger, "one", group)]


def say(ledger: Ledger, ids: list[str], verdict: str, author: str) -> None:
    submit_verdict(ledger, ids, verdict, author=author, two_people="all")


def test_who_says_something_is_held_against_whoever_spoke_before(ledger: Ledger) -> None:
    """A proposal that a second one follows, and one that a second one contradicts."""
    first, second = list_ids(ledger)[:2]
    assert list_agreement(ledger) == []
    say(ledger, [first, second], "poison", "ann")
    assert list_agreement(ledger) == []
    say(ledger, [first], "poison", "Bob")
    say(ledger, [second], "benign", "bob")
    assert list_agreement(ledger) == [Agreement(NOW, same=1, compared=2)]
    assert list_agreement(ledger, "tiny") == list_agreement(ledger)
    assert list_agreement(ledger, "another") == []


def test_who_changes_their_mind_agrees_then(ledger: Ledger) -> None:
    """Each new word is a comparison; the same word again, in whatever letters of a name, is none."""
    (first,) = list_ids(ledger)[:1]
    say(ledger, [first], "poison", "ann")
    say(ledger, [first], "benign", "bob")
    say(ledger, [first], "poison", "BOB")
    assert list_agreement(ledger) == [Agreement(NOW, same=1, compared=2)]
    record_decisions(ledger, [first], "poison", author="bob")
    assert add_up(list_agreement(ledger)).compared == 2


def test_decisions_alone_are_compared_too_and_what_is_taken_back_is_not(ledger: Ledger) -> None:
    """Where one person's word is enough, another one may still overrule it."""
    first, second, *_ = list_ids(ledger)
    record_decisions(ledger, [first, second], "poison", author="ann")
    record_decisions(ledger, [first], "benign", author="bob")
    record_decisions(ledger, [second], "unsure", author="bob")
    assert list_agreement(ledger) == [Agreement(NOW, same=0, compared=1)]
    record_decisions(ledger, [first], "unsure", author="bob")
    record_decisions(ledger, [first], "poison", author="bob")
    (month,) = list_agreement(ledger)
    assert (month.same, month.compared, month.share) == (1, 2, 0.5)


def test_nothing_adds_up_to_nothing() -> None:
    assert add_up([]).share == 0
