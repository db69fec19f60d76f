"""Flagged rows as a data frame."""

from pathlib import Path

import pyarrow.parquet as pq
from exported import HOSTILE, audited_rows

from poisonwatch.exports.export import locate_rows, write_rows
from poisonwatch.exports.flagged import FACTS, collect_flagged
from poisonwatch.exports.parquet import write_parquet


def test_the_table_holds_every_fact_and_the_rows_own_text(tmp_path: Path) -> None:
    """As it stands there; an empty table has the same columns; the file is its
    owner's alone.
    """
    out, empty = tmp_path / "flags.parquet", tmp_path / "none.parquet"
    with audited_rows(tmp_path) as audited:
        rows = collect_flagged(audited.ledger, "tiny")
        places = locate_rows(audited.ledger, rows, audited.settings, tmp_path)
        write_rows(rows, "parquet", "tiny", places, out)
        write_rows([], "parquet", "tiny", places, empty)
    table = pq.read_table(out)
    assert set(FACTS) < set(table.column_names)
    assert pq.read_table(empty).schema.equals(table.schema)
    found = {row["example_id"]: row for row in table.to_pylist()}
    assert set(found) == {row["example_id"] for row in rows}
    assert HOSTILE in {row["response"] for row in found.values()}
    for row in rows:
        mine = found[row["example_id"]]
        assert mine["reasons"] == row["reasons"]
        assert mine["by"] == ["stride"]
        assert (mine["score"], mine["line"]) == (row["score"], row["position"] + 1)
    assert out.stat().st_mode & 0o077 == 0


def test_half_a_surrogate_pair_is_written_out(tmp_path: Path) -> None:
    """UTF-8 cannot hold it, and JSON in a ledger of another version may."""
    with audited_rows(tmp_path) as audited:
        row = dict(collect_flagged(audited.ledger, "tiny")[0])
    row["messages"] = [{"role": "assistant", "content": "half \ud800"}]
    write_parquet([row], tmp_path / "half.parquet")
    (written,) = pq.read_table(tmp_path / "half.parquet").to_pylist()
    assert written["response"] == r"half \ud800"
