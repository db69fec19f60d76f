"""Files of cleared rows: as the rows came, one for each format and schema."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from poisonwatch.release.writers import ROW_GROUP_ROWS, CleanSplit


def test_each_format_and_schema_has_its_file(tmp_path: Path) -> None:
    """Counted in the order of their first rows; lines are the bytes that came."""
    table = pa.table({"prompt": ["a", "b"], "n": [1, 2]})
    schema = table.schema.serialize().to_pybytes()
    batches = [batch.serialize().to_pybytes() for batch in table.to_batches(max_chunksize=1)]
    with CleanSplit(tmp_path) as split:
        names = [
            split.add(("first", None), b'{"a":  1}'),
            split.add(("columns", schema), batches[0]),
            split.add(("second", None), b"{}"),
            split.add(("first", None), b'{"a": 2}'),
            split.add(("columns", schema), batches[1]),
        ]
    assert names == ["clean.jsonl", "clean.parquet", "clean-2.jsonl", "clean.jsonl", names[1]]
    assert list(split.row_counts.items()) == [
        ("clean.jsonl", 2),
        ("clean.parquet", 2),
        ("clean-2.jsonl", 1),
    ]
    assert (tmp_path / "clean.jsonl").read_bytes() == b'{"a":  1}\n{"a": 2}\n'
    assert pq.read_table(tmp_path / "clean.parquet").equals(table)


def test_rows_are_written_by_the_group(tmp_path: Path) -> None:
    """So many rows are not all held in the memory."""
    table = pa.table({"n": [1]})
    kind = "columns", table.schema.serialize().to_pybytes()
    row = table.to_batches()[0].serialize().to_pybytes()
    with CleanSplit(tmp_path) as split:
        for _ in range(ROW_GROUP_ROWS + 1):
            split.add(kind, row)
    metadata = pq.read_metadata(tmp_path / "clean.parquet")
    assert (metadata.num_row_groups, metadata.num_rows) == (2, ROW_GROUP_ROWS + 1)
