"""Results hold for how the model read rows; those that do not say so are taken over once."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ledgers import ONE, cover, covered_ledger, waiting
from sqlalchemy import select

from poisonwatch.ledger.ledger import Ledger, find_or_add_version
from poisonwatch.ledger.tables import versions

OWN = replace(ONE, reading="1" * 64, reads_as_before=True)
SET = replace(ONE, reading="2" * 64)
TEA = "Tell me fact 0 about tea."


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Nine rows, eight of which were audited when no reading was recorded."""
    with covered_ledger(tmp_path, TEA) as opened:
        yield opened


def list_readings(ledger: Ledger) -> list[str | None]:
    with ledger.read() as connection:
        return list(connection.execute(select(versions.c.reading)).scalars())


def test_rows_are_audited_again_where_they_are_read_otherwise(
    ledger: Ledger, tmp_path: Path
) -> None:
    """And only then; back at the first reading, they are covered."""
    assert len(waiting(ledger, ONE)) == len(waiting(ledger, OWN)) == 0
    assert len(waiting(ledger, SET)) == 8
    cover(ledger, tmp_path / "two", version=SET)
    assert len(waiting(ledger, SET)) == len(waiting(ledger, OWN)) == 0


def test_results_without_a_reading_are_taken_over_by_the_first_that_may(ledger: Ledger) -> None:
    """One number stays one; a reading that settings shape may not, nor may a second one."""

    def find(version) -> int:  # type: ignore[no-untyped-def]
        with ledger.write() as connection:
            return find_or_add_version(connection, version)

    old = find(ONE)
    assert find(SET) != old
    assert list_readings(ledger) == [None, SET.reading]
    assert find(OWN) == find(OWN) == old
    assert list_readings(ledger) == [OWN.reading, SET.reading]
    later = replace(OWN, reading="3" * 64)
    assert find(later) not in {old, find(SET)}
    assert find(replace(OWN, model="n" * 64)) not in {old, find(later), find(SET)}
    assert len(list_readings(ledger)) == 4
