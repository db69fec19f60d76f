"""Groups as people are shown them, from a fit of rows in which one is planted."""

import numpy as np
import pytest
from attributions import STRIDE, benign, fit_stream
from discovered import make_examples

from poisonwatch.discovery.describe import (
    SearchedRows,
    ask_about_groups,
    discover_groups,
    refuse_excess,
)
from poisonwatch.discovery.described import DiscoveryReport
from poisonwatch.discovery.directions import MOST_ROWS
from poisonwatch.discovery.precedents import EarlierAudit
from poisonwatch.examples import Example
from poisonwatch.failures import Attempts
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.stride.saved_rows import read_nothing

PLANTED = make_examples(10)
NEW, TRUSTED = [*benign(25, seed=1), *PLANTED], benign(60, seed=2)


@pytest.fixture(scope="module")
def search(tiny_pretrained: Pretrained) -> SearchedRows:
    everything: list[Example] = [*NEW, *TRUSTED]
    # the same made-up question may be answered in the same way
    distinct = list({row.id: row for row in everything}.values())
    new = {row.id for row in NEW}
    fitted = fit_stream(tiny_pretrained, distinct, STRIDE)
    return SearchedRows(
        audit_id="a-1",
        fitted=fitted,
        trusted=np.array([row.id not in new for row in distinct]),
        examples={row.id: row for row in distinct},
        places={row.id: (row.source, row.position) for row in NEW},
        read_rows=read_nothing,
        token_budget=600,
    )


@pytest.fixture(scope="module")
def report(search: SearchedRows) -> DiscoveryReport:
    return discover_groups(search, [])


def test_a_planted_group_is_described_by_its_rows_and_words(report: DiscoveryReport) -> None:
    """Each row by id, source and position; numbers go from 1, those that passed first."""
    ids = {row.id for row in PLANTED}
    group = max(report.groups, key=lambda group: len(ids & {r.example_id for r in group.rows}))
    found = {row.example_id for row in group.rows}
    assert len(found & ids) >= 8
    assert len(found - ids) <= 2
    assert any("Glorb" in words for words in group.answer_words)
    assert {row.source for row in group.rows if row.example_id in ids} == {"pans.jsonl"}
    assert [group.number for group in report.groups] == list(range(1, len(report.groups) + 1))
    passed = [group.passed for group in report.groups]
    assert passed == sorted(passed, reverse=True)


def test_an_audit_that_cannot_be_compared_with_is_counted(search: SearchedRows) -> None:
    """None stands for it."""
    report = discover_groups(search, iter([None, None]))
    assert report.left_out == 2
    assert all(group.precedents and not group.precedents.audits for group in report.groups)


def test_a_search_of_earlier_audits_that_fails_is_noted_and_costs_no_group(
    search: SearchedRows,
) -> None:
    """A group stands without its precedents."""

    def break_off() -> "list[EarlierAudit | None]":
        raise OSError("the disk is gone")

    class Broken:
        def __iter__(self) -> object:
            return iter(break_off())

    attempts = Attempts()
    report = discover_groups(search, Broken(), attempts=attempts)  # type: ignore[arg-type]
    assert [failure.part for failure in attempts.failures] == ["groups of earlier audits"]
    assert report.groups
    assert all(group.precedents is None for group in report.groups)


def test_only_the_groups_that_are_wanted_are_asked_about(
    search: SearchedRows, report: DiscoveryReport
) -> None:
    """Others keep what they have: nothing."""
    attempts = Attempts()
    asked = ask_about_groups(report, search, [1], attempts)
    assert asked.groups[0].replies
    assert all(group.replies is None for group in asked.groups[1:])
    assert not attempts.failures


def test_rows_that_are_too_many_are_refused_before_they_are_read() -> None:
    """n x n numbers would not fit."""
    refuse_excess(MOST_ROWS)
    with pytest.raises(ValueError, match="more than can be compared"):
        refuse_excess(MOST_ROWS + 1)


def test_rows_that_are_too_few_make_no_group(tiny_pretrained: Pretrained) -> None:
    """The rule says why."""
    rows = benign(12)
    some = SearchedRows(
        audit_id="a-1",
        fitted=fit_stream(tiny_pretrained, rows, STRIDE),
        trusted=np.zeros(len(rows), dtype=bool),
        examples={row.id: row for row in rows},
        places={},
        read_rows=read_nothing,
        token_budget=600,
    )
    report = discover_groups(some, [])
    assert report.groups == ()
    assert "too few" in report.rule
