"""Past audits as a list that can be narrowed down."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from audits import benign, write_rows
from ledgers import NAME, ONE, append, cover, pull, sqlite_ledger
from sqlalchemy import update

from poisonwatch.errors import InputError
from poisonwatch.ledger.audits import open_audit
from poisonwatch.ledger.decisions import record_decision
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.overview import (
    AuditFilter,
    count_totals,
    list_audit_names,
    list_audits,
    list_source_files,
    list_trend_points,
)
from poisonwatch.ledger.tables import audits

DAYS = ("2026-01-01", "2026-01-02", "2026-01-03")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Three audits on three days, of 5, 2 and 2 new rows, the first with two flags, the last with
    one; and one that died.
    """
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "a.jsonl", benign(5))
    with sqlite_ledger(tmp_path) as ledger:
        for k, flagged in enumerate(([0, 1], [], [7])):
            if k:
                append(tmp_path / "data" / f"{'abc'[k]}.jsonl", benign(2, start=3 + 2 * k))
            pull(ledger, tmp_path / "data")
            cover(
                ledger,
                tmp_path / f"run-{k}",
                flagged=[benign(1, start=i)[0]["prompt"] for i in flagged],
            )
        with (
            pytest.raises(KeyError),
            ledger.lock("tiny"),
            open_audit(ledger, "died", NAME, ONE, tmp_path / "died"),
        ):
            raise KeyError
        with ledger.write() as connection:
            for k, day in enumerate((*DAYS, "2026-01-04")):
                connection.execute(
                    update(audits)
                    .where(audits.c.audit == k + 1)
                    .values(started_at=f"{day}T23:59:59+00:00")
                )
        yield ledger


def listed(ledger: Ledger, **wanted: str) -> list[str]:
    return [line.past.audit_id for line in list_audits(ledger, AuditFilter(**wanted))[0]]


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ({}, ["died", "run-2", "run-1", "run-0"]),
        ({"name": NAME, "audit": "run-1"}, ["run-1"]),
        ({"name": "another"}, []),
        ({"source": "a.jsonl"}, ["run-0"]),
        ({"source": "c.jsonl"}, ["run-2"]),
        ({"source": "none"}, []),
        ({"since": "2026-01-02"}, ["died", "run-2", "run-1"]),
        ({"since": "2026-01-02", "until": "2026-01-02"}, ["run-1"]),
        ({"severity": "medium"}, ["run-2", "run-0"]),
        ({"severity": "high"}, []),
        ({"severity": "medium", "source": "c.jsonl", "until": "2026-01-03"}, ["run-2"]),
    ],
)
def test_a_filter_leaves_what_fulfils_all_of_it(
    ledger: Ledger, wanted: dict[str, str], ids: list[str]
) -> None:
    """Newest first; days count from their first to their last second."""
    assert listed(ledger, **wanted) == ids
    assert count_totals(ledger, AuditFilter(**wanted)).audits == len(ids)


@pytest.mark.parametrize(
    "wrong", [{"since": "soon"}, {"until": "2026-13-01"}, {"severity": "worst"}]
)
def test_a_filter_that_is_none_is_refused(wrong: dict[str, str]) -> None:
    """Before any query."""
    with pytest.raises(InputError):
        AuditFilter(**wrong)


def test_pages_of_a_list_are_the_list(ledger: Ledger) -> None:
    """Nothing twice, nothing left out; past the end there is nothing."""
    pages = [list_audits(ledger, AuditFilter(), page, 3) for page in (1, 2, 3)]
    assert [line.past.audit_id for lines, _ in pages for line in lines] == listed(ledger)
    assert {total for _, total in pages} == {4}


def test_totals_count_rows_and_flags(ledger: Ledger) -> None:
    """A decision takes a row off what awaits one in its audit, and not off the flags."""
    before = count_totals(ledger, AuditFilter())
    assert (before.audits, before.failed, before.rows, before.flags) == (4, 1, 9, 3)
    record_decision(ledger, "a.jsonl:1", "poison")
    assert count_totals(ledger, AuditFilter()) == before
    assert [(line.severity, line.undecided) for line in list_audits(ledger, AuditFilter())[0]] == [
        ("", 0),
        ("medium", 1),
        ("", 0),
        ("medium", 1),
    ]
    assert count_totals(ledger, AuditFilter(severity="low")).flags == 0


def test_names_and_sources_are_those_of_the_ledger(ledger: Ledger) -> None:
    """In order; an audit that came to nothing is no point of a trend."""
    assert list_audit_names(ledger) == [NAME]
    assert (
        list_source_files(ledger)
        == list_source_files(ledger, NAME)
        == ["a.jsonl", "b.jsonl", "c.jsonl"]
    )
    assert list_source_files(ledger, "another") == []
    assert list_trend_points(ledger, AuditFilter(audit="died")) == []
