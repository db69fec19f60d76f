"""Flagged rows as a file for spreadsheets."""

import csv
import io
from pathlib import Path

from exported import HOSTILE, audited_rows

from poisonwatch.exports.flagged import collect_flagged
from poisonwatch.exports.spreadsheet import format_csv, neutralise_cell
from poisonwatch.text.display import make_visible


def test_no_cell_is_a_formula() -> None:
    """Whatever a spreadsheet leaves out before it looks."""
    assert [
        neutralise_cell(value)
        for value in ("=1+1", "+1", "-1", "@a", "\t=1", " =1", "＝1", "plain", -1.5, None)
    ] == [
        *("'=1+1", "'+1", "'-1", "'@a", "'\t=1", "' =1", "'＝1"),
        *("plain", -1.5, None),
    ]


def test_every_row_is_a_line_with_its_text_defused(tmp_path: Path) -> None:
    """And its number counted from 1 beside its position."""
    with audited_rows(tmp_path) as audited:
        rows = collect_flagged(audited.ledger, "tiny")
    read = list(csv.DictReader(io.StringIO(format_csv(rows))))
    assert [row["example_id"] for row in read] == [row["example_id"] for row in rows]
    assert f"'{make_visible(HOSTILE)}" in {row["response"] for row in read}
    for row in read:
        assert int(row["line"]) == int(row["position"]) + 1
