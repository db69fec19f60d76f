"""Parts of queries that several questions share."""

from pathlib import Path

import pytest
from audits import benign
from ledgers import cover, covered_ledger
from sqlalchemy import select

from poisonwatch.ledger.queries import (
    is_hex,
    match_id_prefix,
    select_last_audits,
    select_rows_of_file,
)
from poisonwatch.ledger.tables import results, rows

TEA = benign(1)[0]["prompt"]


@pytest.mark.parametrize(("text", "expected"), [("0af", True), ("", False), ("0AF", False)])
def test_hexadecimal_digits_are_in_lower_case(text: str, expected: bool) -> None:
    """As ids are printed; nothing is none."""
    assert is_hex(text) is expected


def test_a_row_is_found_by_any_number_of_its_first_digits(tmp_path: Path) -> None:
    """Odd numbers of them, too, and all 64."""
    with covered_ledger(tmp_path, TEA) as ledger, ledger.read() as connection:
        ids = sorted(bytes(id).hex() for id in connection.scalars(select(rows.c.id)))
        for digits in (1, 7, 8, 64):
            prefix = ids[0][:digits]
            found = connection.scalars(select(rows.c.id).where(match_id_prefix(prefix)))
            expected = [id for id in ids if id.startswith(prefix)]
            assert sorted(bytes(id).hex() for id in found) == expected


def test_the_last_audit_of_a_row_is_found(tmp_path: Path) -> None:
    """Of rows that two audits took, the second; rows of a file are those that it holds."""
    with covered_ledger(tmp_path, TEA) as ledger:
        cover(ledger, tmp_path / "again", again=True)
        last = select_last_audits(results)
        with ledger.read() as connection:
            assert set(connection.scalars(select(last.c.audit))) == {2}
            assert len(connection.scalars(select_rows_of_file("a.jsonl")).all()) == 5
