"""Flagged rows in a file."""

from pathlib import Path

import pytest
from exported import audited_rows

from poisonwatch.exports.export import format_rows, locate_rows, write_rows
from poisonwatch.exports.flagged import collect_flagged


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    """What cannot be written leaves the file that was there, and nothing beside it."""
    out = tmp_path / "out" / "flags.sarif"
    out.parent.mkdir()
    with audited_rows(tmp_path / "audit") as audited:
        rows = collect_flagged(audited.ledger, "tiny")
        places = locate_rows(audited.ledger, rows, audited.settings, audited.config.parent)
    write_rows(rows, "sarif", "tiny", places, out)
    assert out.read_text() == format_rows(rows, "sarif", "tiny", places)
    assert out.stat().st_mode & 0o077 == 0
    before = out.read_bytes()
    with pytest.raises(KeyError):
        write_rows([{"example_id": "0" * 64}], "csv", "tiny", places, out)
    assert out.read_bytes() == before
    assert list(out.parent.iterdir()) == [out]


def test_rows_are_located_by_id_file_and_line(tmp_path: Path) -> None:
    """Every place of every row, and the line of each, since these are JSON Lines."""
    with audited_rows(tmp_path) as audited:
        rows = collect_flagged(audited.ledger, "tiny")
        places = locate_rows(audited.ledger, rows, audited.settings, tmp_path)
    assert set(places.of) == {row["example_id"] for row in rows}
    stands = {place for found in places.of.values() for place in found}
    assert stands == set(places.lines)
    assert places.lines["data/a b.jsonl", 6] == 9
    assert places.root == places.folder == tmp_path.resolve()
