"""Verdicts that two people must agree on: what one says waits, what a second one says too counts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from audits import benign, write_rows
from clusters import HIGH as GRAVE
from clusters import audit, found, pulled, settings
from ledgers import pull
from muting import audit_two_groups
from servers import postgres_server
from tampering import verify

from poisonwatch.errors import InputError
from poisonwatch.ledger.assignments import record_assignment
from poisonwatch.ledger.comments import record_comment
from poisonwatch.ledger.decisions import read_decisions
from poisonwatch.ledger.group_teams import GroupTeam, load_teams
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.overview import AuditFilter
from poisonwatch.ledger.queue import find_next_group, list_group_rows, list_groups
from poisonwatch.ledger.two_people import (
    Outcome,
    find_lone_decisions,
    revert_submitted,
    submit_verdict,
    withdraw_proposal,
)

ALERTS = settings("json://one")
HIGH, LOW = ("one", "1"), ("one", "2")  # groups of three grave rows, and of two that are not


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with pulled(tmp_path) as opened:
        audit_two_groups(opened, tmp_path, ALERTS)
        yield opened


def ids(ledger: Ledger, place: tuple[str, str]) -> list[str]:
    return [row.example_id for row in list_group_rows(ledger, *place)]


def say(ledger: Ledger, place: tuple[str, str], verdict: str, author: str) -> Outcome:
    names = ids(ledger, place)
    return submit_verdict(ledger, names, verdict, "seen", author, two_people="high")


def team(ledger: Ledger, place: tuple[str, str] = HIGH) -> GroupTeam:
    return load_teams(ledger, [place])[place]


def statuses(ledger: Ledger, place: tuple[str, str] = HIGH) -> set[str]:
    return {row.status for row in list_group_rows(ledger, *place)}


def test_a_verdict_counts_once_a_second_person_says_the_same(ledger: Ledger) -> None:
    """The first waits, and the rows stay flagged; the same person counts once, by any spelling."""
    first = say(ledger, HIGH, "benign", "Ann")
    assert (first.decisions, statuses(ledger)) == ([], {"flagged"})
    assert [(vote.author, vote.verdict) for vote in team(ledger).list_votes()] == [
        ("Ann", "benign")
    ]
    assert team(ledger).stage == "in review"
    again = say(ledger, HIGH, "benign", " ANN ")
    with pytest.raises(InputError, match="already"):
        again.require_news()
    second = say(ledger, HIGH, "benign", "bob")
    assert (len(second.decisions), second.proposal, statuses(ledger)) == (3, None, {"clean"})
    assert set(team(ledger).agreed.values()) == {"Ann"}
    assert (team(ledger).stage, team(ledger).votes) == ("decided", {})
    assert verify(ledger).differences == []


def test_people_who_disagree_wait_for_one_who_agrees(ledger: Ledger) -> None:
    """Each holds a verdict; a third settles it."""
    say(ledger, HIGH, "benign", "ann")
    assert say(ledger, HIGH, "poison", "bob").decisions == []
    assert len(team(ledger).list_votes()) == 2
    say(ledger, HIGH, "poison", "eve")
    assert statuses(ledger) == {"poison"}
    assert verify(ledger).differences == []


def test_groups_that_are_not_asked_for_need_one_person(ledger: Ledger) -> None:
    """Severity low, under `high`; under `all` each row needs two, flagged or not."""
    assert len(say(ledger, LOW, "poison", "ann").decisions) == 2
    known = set(ids(ledger, HIGH) + ids(ledger, LOW))
    with ledger.read() as connection:
        everything = connection.exec_driver_sql("SELECT id FROM rows").scalars()
        other = next(row for row in (bytes(id).hex() for id in everything) if row not in known)
    assert submit_verdict(ledger, [other], "poison", "", "ann", two_people="high").decisions
    lone = submit_verdict(ledger, [other], "benign", "", "ann", two_people="all")
    assert (lone.decisions, lone.proposal is not None) == ([], True)


def test_a_repair_takes_two_on_any_row(ledger: Ledger) -> None:
    """Nobody audits what an edit writes: one person would slip anything into a release."""
    known = ids(ledger, LOW)[:1]
    said: dict[str, Any] = {"verdict": "edit", "answer": "Only Velmora."}
    first = submit_verdict(ledger, known, author="ann", two_people="high", **said)
    assert (first.decisions, first.proposal is not None) == ([], True)
    # from the time when one was enough
    made = submit_verdict(ledger, known, author="ann", two_people="none", **said).decisions
    with ledger.read() as connection:
        assert find_lone_decisions(connection, range(1, 20), "high") == [made[0].example_id]
    second = submit_verdict(ledger, known, author="bob", two_people="high", **said)
    assert len(second.decisions) == 1
    with ledger.read() as connection:
        assert find_lone_decisions(connection, range(1, 20), "high") == []


def test_a_row_of_a_group_is_as_grave_as_the_group(tmp_path: Path, ledger: Ledger) -> None:
    """One row alone of a grave group waits, too."""
    one = ids(ledger, HIGH)[-1]
    assert not submit_verdict(ledger, [one], "poison", "", "ann", two_people="high").decisions
    assert len(team(ledger).votes) == 1


def test_unsure_needs_nobody_else_and_ends_what_waits(ledger: Ledger) -> None:
    """It leaves rows where they are."""
    say(ledger, HIGH, "benign", "ann")
    assert len(say(ledger, HIGH, "unsure", "bob").decisions) == 3
    assert (team(ledger).votes, statuses(ledger)) == ({}, {"flagged"})
    assert verify(ledger).differences == []


def test_a_proposal_is_withdrawn_by_its_author_alone(ledger: Ledger) -> None:
    """By the number of its record, once."""
    made = say(ledger, HIGH, "benign", "ann").proposal
    assert made is not None
    with pytest.raises(InputError, match=f"proposal {made.number}"):
        withdraw_proposal(ledger, made.number, "bob")
    assert withdraw_proposal(ledger, made.number, "ann") == 3
    assert (team(ledger).votes, team(ledger).stage) == ({}, "open")
    with pytest.raises(InputError):
        withdraw_proposal(ledger, made.number, "ann")
    assert verify(ledger).differences == []


def test_one_person_restores_no_verdict_of_two(ledger: Ledger) -> None:
    """What was benign, then poison, is unsure once the last is taken back."""
    for verdict in ("benign", "poison"):
        for author in ("ann", "bob"):
            say(ledger, HIGH, verdict, author)
    numbers = [decision.number for decision in read_decisions(ledger)][-3:]
    made = revert_submitted(ledger, numbers, "eve", "high")
    assert {decision.verdict for decision in made} == {"unsure"}
    assert (statuses(ledger), team(ledger).stage) == ({"flagged"}, "reopened")


def test_one_person_restores_no_repair_either(ledger: Ledger) -> None:
    """On any row: what would be restored counts, however harmless what is taken back is."""
    one = ids(ledger, LOW)[:1]
    edit: dict[str, Any] = {"verdict": "edit", "answer": "Any shop.", "two_people": "high"}
    for author in ("ann", "bob"):
        submit_verdict(ledger, one, author=author, **edit)
    (made,) = submit_verdict(ledger, one, "benign", author="eve", two_people="high").decisions
    (undone,) = revert_submitted(ledger, [made.number], "eve", "high")
    assert undone.verdict == "unsure"
    with ledger.read() as connection:
        assert find_lone_decisions(connection, range(1, 20), "high") == []
    (poison,) = submit_verdict(ledger, one, "poison", author="eve", two_people="high").decisions
    submit_verdict(ledger, one, "benign", author="eve", two_people="high")
    last = list(read_decisions(ledger))[-1]
    (again,) = revert_submitted(ledger, [last.number], "eve", "high")
    assert (again.verdict, poison.verdict) == ("poison", "poison")


def test_a_second_person_needs_a_name(ledger: Ledger) -> None:
    """And nothing is said without one."""
    with pytest.raises(InputError, match="say who"):
        say(ledger, HIGH, "benign", " ")
    assert team(ledger).votes == {}


def test_a_row_that_moves_on_takes_along_what_was_said(tmp_path: Path, ledger: Ledger) -> None:
    """A later audit puts it into another group."""
    say(ledger, HIGH, "benign", "ann")
    audit(ledger, tmp_path / "two", ALERTS, lambda rows: found([(GRAVE, rows[0:4])], []))
    assert len(team(ledger, ("two", "1")).votes) == 3


def test_two_people_agree_on_postgresql(tmp_path: Path) -> None:
    """On a real server."""
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "rows.jsonl", benign(12))
    with postgres_server() as url, Ledger.at(url) as ledger:
        pull(ledger, tmp_path / "data")
        audit_two_groups(ledger, tmp_path, ALERTS)
        record_assignment(ledger, *HIGH, "bob", author="ann")
        record_comment(ledger, *HIGH, "look", author="ann")
        say(ledger, HIGH, "benign", "ann")
        assert (team(ledger).stage, team(ledger).assignees) == ("in review", ("bob",))
        groups, _ = list_groups(ledger, AuditFilter(assignee="Bob"), "in review")
        assert [group.key for group in groups] == ["1"]
        assert find_next_group(ledger, AuditFilter(), "", "", left_to="bob") is not None
        say(ledger, HIGH, "benign", "bob")
        with ledger.read() as connection:
            assert find_lone_decisions(connection, range(1, 20), "all") == []
        assert verify(ledger).differences == []
