"""Files of cleared rows: as the rows came, those together that can be read together."""

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.json as arrow_json
import pyarrow.parquet as pq
import pytest

from poisonwatch.release.row_types import MAX_FIELDS
from poisonwatch.release.writers import MAX_TYPED_FILES, ROW_GROUP_ROWS, TYPING_BYTES, RowFiles


def test_each_schema_has_its_file(tmp_path: Path) -> None:
    """Counted in the order of their first rows; lines are the bytes that came, of any format."""
    table = pa.table({"prompt": ["a", "b"], "n": [1, 2]})
    other = pa.table({"prompt": ["c"]})
    schema, second = (each.schema.serialize().to_pybytes() for each in (table, other))
    batches = [batch.serialize().to_pybytes() for batch in table.to_batches(max_chunksize=1)]
    with RowFiles(tmp_path) as split:
        names = [
            split.add(("first", None), b'{"a":  1}'),
            split.add(("columns", schema), batches[0]),
            split.add(("second", None), b"{}"),
            split.add(("columns", second), other.to_batches()[0].serialize().to_pybytes()),
            split.add(("first", None), b'{"a": 2}'),
            split.add(("others", schema), batches[1]),
        ]
    lines, columns = "clean.jsonl", "clean.parquet"
    assert names == [lines, columns, lines, "clean-2.parquet", lines, columns]
    assert list(split.row_counts.items()) == [(lines, 3), (columns, 2), ("clean-2.parquet", 1)]
    assert (tmp_path / lines).read_bytes() == b'{"a":  1}\n{}\n{"a": 2}\n'
    assert pq.read_table(tmp_path / columns).equals(table)


def write_lines(folder: Path, records: list[dict[str, Any]]) -> list[str]:
    with RowFiles(folder) as split:
        return [split.add(("any", None), json.dumps(record).encode()) for record in records]


def test_lines_whose_types_differ_have_files_of_their_own(tmp_path: Path) -> None:
    """pyarrow reads each of them; null goes with anything, and numbers with each other."""
    records: list[dict[str, Any]] = [
        {"a": "x", "m": [{"c": "x"}]},
        {"a": 1, "m": None},
        {"a": None, "m": [{"c": [{"t": "y"}]}]},
        {"a": "y", "b": 1.5},
        {"a": 2.5, "b": 1},
    ]
    names = write_lines(tmp_path, records)
    assert names == [
        "clean.jsonl",
        "clean-2.jsonl",
        "clean-2.jsonl",
        "clean.jsonl",
        "clean-2.jsonl",
    ]
    for name in set(names):
        rows = [record for record, own in zip(records, names, strict=True) if own == name]
        found = arrow_json.read_json(tmp_path / name).to_pylist()
        keys = found[0].keys()
        assert found == [{key: row.get(key) for key in keys} for row in rows]


def test_lines_that_fit_nowhere_share_a_file(tmp_path: Path) -> None:
    """Which are mixed in themselves, or come when there are many files: there are no more."""
    kinds: list[Any] = ["x", 1, True, ["x"], [1], [True], [["x"]], [[1]], [[True]], {"a": 1}]
    names = write_lines(tmp_path, [{"a": [1, "x"]}, *({"a": kind} for kind in kinds)])
    assert len(set(names)) == MAX_TYPED_FILES + 1
    assert names[0] == names[-1] == names[-2] == "clean.jsonl"


def test_objects_with_any_keys_do_not_fill_the_memory(tmp_path: Path) -> None:
    """Files learn so many fields, and no more."""
    records = [{f"{i} {j}": 1 for j in range(MAX_FIELDS)} for i in range(MAX_TYPED_FILES + 2)]
    assert len(set(write_lines(tmp_path, records))) == MAX_TYPED_FILES + 1


LATE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"x": "a"}),
    ({"x": None}, {"x": "a"}),
    ({"x": []}, {"x": ["a"]}),
    ({"x": {"a": 1}}, {"x": {"a": 1, "b": 2}}),
    ({"x": 1}, {"x": 1.5}),
    ({"x": "2020-01-01 00:00:00"}, {"x": "never"}),
]


@pytest.mark.parametrize(("early", "late"), LATE)
def test_types_that_are_new_late_begin_another_file(
    early: dict[str, Any], late: dict[str, Any], tmp_path: Path
) -> None:
    """`datasets` reads both; it could not read one, whose types it tells by its beginning."""
    text = "x" * (TYPING_BYTES // 4)
    # More than it looks at, without the last ones.
    records = [{"text": text, **early} for _ in range(6)]
    names = write_lines(tmp_path, [*records, {"text": text, **late}, *records[:1]])
    assert names == ["clean.jsonl"] * 6 + ["clean-2.jsonl", "clean.jsonl"]
    for name, rows in (("clean.jsonl", 7), ("clean-2.jsonl", 1)):
        cache = str(tmp_path / "cache")
        found = datasets.Dataset.from_json(str(tmp_path / name), cache_dir=cache)
        assert len(found) == rows


def test_json_type_is_released_with_its_type(tmp_path: Path) -> None:
    """datasets and pyarrow read the values that were read."""
    schema = pa.schema([("a", pa.json_()), ("b", pa.list_(pa.json_()))])
    texts = [{"a": '"\\u4f60"', "b": ['{"c":1}', "2"]}, {"a": "9", "b": None}]
    plain = pa.schema([("a", pa.string()), ("b", pa.list_(pa.string()))])
    batch = pa.RecordBatch.from_pylist(texts, plain)
    with RowFiles(tmp_path) as split:
        for index in range(2):
            alone = pa.concat_batches([batch.slice(index, 1)])
            raw = alone.serialize().to_pybytes()
            split.add(("any", schema.serialize().to_pybytes()), raw)
    path = tmp_path / "clean.parquet"
    assert pq.read_schema(path).types[0] == pa.json_()
    found = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))
    assert list(found) == [{"a": "你", "b": [{"c": 1}, 2]}, {"a": 9, "b": None}]


def test_rows_are_written_by_the_group(tmp_path: Path) -> None:
    """So many rows are not all held in the memory."""
    table = pa.table({"n": [1]})
    kind = "columns", table.schema.serialize().to_pybytes()
    row = table.to_batches()[0].serialize().to_pybytes()
    with RowFiles(tmp_path) as split:
        for _ in range(ROW_GROUP_ROWS + 1):
            split.add(kind, row)
    metadata = pq.read_metadata(tmp_path / "clean.parquet")
    assert (metadata.num_row_groups, metadata.num_rows) == (2, ROW_GROUP_ROWS + 1)
