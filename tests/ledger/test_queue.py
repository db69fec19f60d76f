"""Flagged rows as people work through them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import HIGH, LOW, MEDIUM, audit, found, pulled, settings
from ledgers import ONE, waiting
from ledgers import cover as cover_all

from poisonwatch.errors import InputError
from poisonwatch.examples import Example
from poisonwatch.ledger.decisions import record_decision
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.overview import AuditFilter
from poisonwatch.ledger.queue import count_flagged_rows as number_waiting
from poisonwatch.ledger.queue import (
    export_flagged_rows,
    find_next_group,
    list_group_rows,
    list_groups,
)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Twelve rows, of which an audit `first` flags a group of three, a grave one of two, and one
    row in no group.
    """
    with pulled(tmp_path) as ledger:
        audit(
            ledger,
            tmp_path / "first",
            settings(),
            lambda e: found([(MEDIUM, e[:3]), (HIGH, e[3:5])], alone=e[5:6]),
        )
        yield ledger


def ids(ledger: Ledger, audit_id: str, key: str) -> list[str]:
    return [row.example_id for row in list_group_rows(ledger, audit_id, key)]


def test_groups_come_gravest_first_and_a_row_alone_is_one_of_its_own(ledger: Ledger) -> None:
    """With their rows, the highest score, and what their strongest row pushes."""
    groups, total = list_groups(ledger, AuditFilter())
    assert total == 3
    assert [(g.number, g.severity, g.rows, g.undecided, g.score) for g in groups] == [
        (2, "high", 2, 2, HIGH),
        (1, "medium", 3, 3, MEDIUM),
        (None, "medium", 1, 1, MEDIUM),
    ]
    assert {(g.panel, g.sentinel, g.audit_id) for g in groups} == {("shop", "shop-1", "first")}
    assert [len(ids(ledger, "first", g.key)) for g in groups] == [2, 3, 1]
    assert ids(ledger, "first", groups[2].key)[0].startswith(groups[2].row)
    assert number_waiting(ledger, AuditFilter()) == 6


def test_pages_of_the_queue_are_the_queue(ledger: Ledger) -> None:
    """Nothing twice, nothing left out."""
    whole = list_groups(ledger, AuditFilter())[0]
    assert [
        g for page in (1, 2, 3) for g in list_groups(ledger, AuditFilter(), page=page, size=1)[0]
    ] == whole


def after(ledger: Ledger, key: str, **wanted: str) -> str | None:
    group = find_next_group(ledger, AuditFilter(**wanted), "first", key)
    return group.key if group else None


def test_groups_follow_each_other_round_and_round(ledger: Ledger) -> None:
    """Each leads to the next in the queue, whatever stays undecided; the last to the first; a
    decided one on to what comes after it.
    """
    one, two, three = (group.key for group in list_groups(ledger, AuditFilter())[0])
    assert [after(ledger, key) for key in (one, two, three)] == [two, three, one]
    assert after(ledger, one, severity="medium") == two
    assert after(ledger, three, severity="high") == one
    assert after(ledger, one, severity="high") is None
    assert after(ledger, "77") == one
    record_decision(ledger, ids(ledger, "first", two)[0], "poison")
    assert [after(ledger, key) for key in (one, two, three)] == [two, three, one]
    for id in ids(ledger, "first", two)[1:]:
        record_decision(ledger, id, "poison")
    assert [after(ledger, key) for key in (one, two, three)] == [three, three, one]
    for id in ids(ledger, "first", one):
        record_decision(ledger, id, "benign")
    assert [after(ledger, key) for key in (one, two, three)] == [three, three, None]


def test_groups_that_are_equal_are_told_apart(ledger: Ledger, tmp_path: Path) -> None:
    """A walk through many of one score comes to each of them."""
    audit(
        ledger,
        tmp_path / "second",
        settings(),
        lambda e: found([(LOW, [one]) for one in e[:5]], alone=e[5:9]),
    )
    everything = [group.key for group in list_groups(ledger, AuditFilter())[0]]
    seen, key = [], everything[0]
    for _ in everything:
        group = find_next_group(ledger, AuditFilter(), "second", key)
        assert group is not None
        seen.append(key := group.key)
    assert seen == [*everything[1:], everything[0]]


@pytest.mark.parametrize(
    ("wanted", "groups"),
    [
        ({"severity": "high"}, 1),
        ({"severity": "low"}, 0),
        ({"name": "another"}, 0),
        ({"audit": "first"}, 3),
        ({"source": "rows.jsonl"}, 3),
        ({"source": "none"}, 0),
        ({"since": "2999-01-01"}, 0),
    ],
)
def test_the_queue_can_be_narrowed_down(
    ledger: Ledger, wanted: dict[str, str], groups: int
) -> None:
    """As the overview can, which counts the same rows."""
    assert list_groups(ledger, AuditFilter(**wanted))[1] == groups
    listed = sum(g.rows for g in list_groups(ledger, AuditFilter(**wanted))[0])
    assert (
        len(export_flagged_rows(ledger, AuditFilter(**wanted)))
        == number_waiting(ledger, AuditFilter(**wanted))
        == listed
    )


def test_a_decision_takes_a_row_out_of_the_queue_and_unsure_leaves_it(ledger: Ledger) -> None:
    """The last decision stands beside the row."""
    first, second = ids(ledger, "first", "2")
    record_decision(ledger, first, "poison", "sure", "ann")
    record_decision(ledger, second, "unsure", "hm", "bea")
    assert [
        (g.rows, g.undecided) for g in list_groups(ledger, AuditFilter(severity="high"), "open")[0]
    ] == [(1, 1)]
    assert [
        (g.rows, g.undecided)
        for g in list_groups(ledger, AuditFilter(severity="high"), "decided")[0]
    ] == [(1, 0)]
    assert [
        (g.rows, g.undecided) for g in list_groups(ledger, AuditFilter(severity="high"), "all")[0]
    ] == [(2, 1)]
    of = {row.example_id: row for row in list_group_rows(ledger, "first", "2")}
    assert (of[first].decided.verdict, of[first].decided.note, of[first].decided.author) == (
        "poison",
        "sure",
        "ann",
    )  # type: ignore[union-attr]
    assert (of[first].status, of[second].status, of[second].decided.verdict) == (
        "poison",
        "flagged",
        "unsure",
    )  # type: ignore[union-attr]


def test_a_row_stands_where_the_last_audit_put_it(ledger: Ledger, tmp_path: Path) -> None:
    """Once, in another group of another audit; one that is cleared there is open no more."""
    before = set(ids(ledger, "first", "1"))

    def again(examples: list[Example]) -> object:
        return found([(LOW, [e for e in examples if e.id in before])])

    audit(ledger, tmp_path / "second", settings(), again)  # type: ignore[arg-type]
    assert [row.is_open for row in list_group_rows(ledger, "second", "1")] == [True] * 3
    assert [row.is_open for row in list_group_rows(ledger, "first", "2")] == [
        False
    ] * 2  # cleared, though nobody decided
    assert [
        (g.audit_id, g.number, g.rows, g.severity)
        for g in list_groups(ledger, AuditFilter(), "open")[0]
    ] == [("second", 1, 3, "low")]
    assert number_waiting(ledger, AuditFilter()) == 3


def test_a_row_names_every_place_that_holds_it_now(ledger: Ledger) -> None:
    """The file and position of each."""
    (row, *_) = list_group_rows(ledger, "first", "1")
    assert row.places == ((row.record["source"], row.record["position"]),)
    assert row.record["score"] == MEDIUM


@pytest.mark.parametrize(
    "key", ["", "9", "-1", "../2", "zz", "99999999999999999999", "\u0663", "a" * 65, "0" * 16]
)
def test_a_group_that_is_none_is_refused(ledger: Ledger, key: str) -> None:
    """Whatever an address holds."""
    with pytest.raises(InputError, match="no such group"):
        list_group_rows(ledger, "first", key)
    with pytest.raises(InputError, match="no such group"):
        list_group_rows(ledger, "another", "1")


def test_flags_without_groups_can_be_worked_through_one_by_one(tmp_path: Path) -> None:
    """As in ledgers from before groups were kept."""
    with pulled(tmp_path) as ledger:
        prompts = [draft.text(assistant=False) for _, draft in waiting(ledger, ONE).rows][:2]
        cover_all(ledger, tmp_path / "run", flagged=prompts)
        groups, total = list_groups(ledger, AuditFilter())
        assert total == 2
        assert {g.number for g in groups} == {None}
        assert {ids(ledger, "run", g.key)[0][:16] for g in groups} == {g.row for g in groups}
