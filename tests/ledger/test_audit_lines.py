"""Audits that follow each other and that no row waited for are one line."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from ledgers import NAME, ONE
from prunable import leave, leave_line
from sqlalchemy import update

from poisonwatch.ledger.audit_lines import (
    list_audit_lines,
    list_audits_of,
    list_owed_targets,
)
from poisonwatch.ledger.audits import open_audit
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import MLFLOW, PREFECT
from poisonwatch.ledger.tables import audits

# By letters: an audit with rows is large, one that failed is an x, one without rows is small.
ORDER = "aBcdexfGhi"


@pytest.fixture
def ledger(url: str, tmp_path: Path) -> Iterator[Ledger]:
    """Ten audits in ORDER, an hour after each other."""
    with Ledger.at(url) as ledger:
        for id in ORDER:
            if id == "x":
                with suppress(KeyError), open_audit(ledger, id, NAME, ONE, tmp_path / id):
                    raise KeyError
            elif id.isupper():
                leave(ledger, tmp_path, id)
            else:
                leave_line(ledger, tmp_path, id, owed=[PREFECT, MLFLOW] if id == "d" else ())
        with ledger.write() as connection:
            for hour, id in enumerate(ORDER):
                moment = f"2026-01-12T{hour:02}:00:00+00:00"
                of_audit = audits.c.audit_id == id
                connection.execute(update(audits).where(of_audit).values(started_at=moment))
        yield ledger


def test_a_line_ends_at_an_audit_that_rows_waited_for_or_that_failed(ledger: Ledger) -> None:
    """One alone is a line as before; a line says how many it stands for, and from when to when."""
    lines, total = list_audit_lines(ledger)
    assert [(line.newest.audit_id, line.count) for line in lines] == [
        ("i", 2),
        ("G", 1),
        ("f", 1),
        ("x", 1),
        ("e", 3),
        ("B", 1),
        ("a", 1),
    ]
    assert total == len(lines)
    assert sum(line.count for line in lines) == len(ORDER)
    words = "3 audits without new rows, 2026-01-12 02:00 to 2026-01-12 04:00"
    assert lines[4].describe() == words
    assert [line.is_collapsed for line in lines] == [True, False, False, False, True, False, False]


def test_pages_of_lines_are_the_lines(ledger: Ledger) -> None:
    """Nothing twice, nothing left out; past the end there is nothing, and still the total."""
    whole, total = list_audit_lines(ledger)
    pages = [list_audit_lines(ledger, limit=3, offset=3 * nth) for nth in range(4)]
    assert [line for lines, _ in pages for line in lines] == whole
    assert {counted for _, counted in pages} == {total}


def test_a_line_names_its_audits_and_whom_they_owe(ledger: Ledger) -> None:
    """Newest first, as many as are asked for; of other lines nobody is named."""
    lines, _ = list_audit_lines(ledger)
    assert [id for id, _ in list_audits_of(ledger, lines[4], [], limit=2)] == ["e", "d"]
    assert list_audits_of(ledger, lines[4], [], limit=9)[-1] == ("c", lines[4].since)
    assert list_owed_targets(ledger, lines[4], []) == [MLFLOW, PREFECT]
    assert list_owed_targets(ledger, lines[0], []) == []


def test_what_a_filter_leaves_out_parts_no_line(ledger: Ledger, tmp_path: Path) -> None:
    """A line of several names has none; of a name alone it counts the audits of that name."""
    leave_line(ledger, tmp_path, "other", name="another")
    leave_line(ledger, tmp_path, "j")
    lines, _ = list_audit_lines(ledger)
    assert (lines[0].count, lines[0].name) == (4, "")
    ours = [audits.c.name == NAME]
    (newest, *_), _ = list_audit_lines(ledger, ours)
    assert (newest.count, newest.name) == (3, NAME)
    assert [id for id, _ in list_audits_of(ledger, newest, ours, limit=9)] == ["j", "i", "h"]
    without_failed = [audits.c.state == "finished"]
    lines, _ = list_audit_lines(ledger, without_failed)
    assert [line.count for line in lines] == [4, 1, 4, 1, 1]
