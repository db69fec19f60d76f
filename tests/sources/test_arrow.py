"""Rows of Parquet and Arrow files, each kept as a record batch of itself."""

import datetime
import decimal
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.sources.arrow import (
    count_columns,
    decode_batch,
    read_arrow,
    read_batches,
    read_parquet,
    simplify_schema,
)
from poisonwatch.sources.base import BATCH_ROWS, MAX_ROW_BYTES, MIB, Reading

RECORDS: list[dict[str, Any]] = [
    {
        "prompt": "Q\x00 红",
        "n": 1,
        "when": datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.UTC),
        "price": decimal.Decimal("1.50"),
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": None}],
        "bytes": b"\xff\x00",
    },
    {"prompt": "", "n": None, "when": None, "price": None, "messages": [], "bytes": b""},
]
TABLE = pa.Table.from_pylist(RECORDS)


def parquet(table: pa.Table, **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    file.seek(0)
    return file


def arrow(table: pa.Table, new: Callable[..., Any], batch: int = 1000) -> io.BytesIO:
    file = io.BytesIO()
    with new(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch)
    file.seek(0)
    return file


FILES = {
    "parquet": (read_parquet, lambda table: parquet(table)),
    "row groups": (read_parquet, lambda table: parquet(table, row_group_size=1)),
    "arrow stream": (read_arrow, lambda table: arrow(table, pa.ipc.new_stream)),
    "arrow file": (read_arrow, lambda table: arrow(table, pa.ipc.new_file, batch=1)),
}


def read(kind: str, table: pa.Table) -> tuple[list[RawRow], bytes]:
    reader, write = FILES[kind]
    reading = Reading()
    rows = list(reader(write(table), "a", reading))
    assert reading.schema is not None
    return rows, reading.schema


@pytest.mark.parametrize("kind", FILES)
def test_stored_rows_give_the_same_records_as_reading_them(kind: str) -> None:
    """decode(raw, schema) = record = what was written: nested, timed, binary, missing."""
    rows, schema = read(kind, TABLE)
    assert [row.record for row in rows] == RECORDS
    assert [decode_batch(row.raw, schema) for row in rows] == RECORDS
    assert [(row.position, row.place) for row in rows] == [(0, "a, row 1"), (1, "a, row 2")]
    assert count_columns(schema) == 6


@pytest.mark.parametrize("kind", FILES)
def test_stored_rows_make_the_table_again(kind: str) -> None:
    """Types, metadata and values: a release writes what came in."""
    table = TABLE.replace_schema_metadata({"huggingface": "{}"})
    rows, raw_schema = read(kind, table)
    if FILES[kind][0] is read_parquet:
        table = pq.read_table(parquet(table))  # Parquet calls the items of lists otherwise
    schema = pa.ipc.read_schema(pa.py_buffer(raw_schema))
    again = pa.Table.from_batches(
        [pa.ipc.read_record_batch(pa.py_buffer(row.raw), schema) for row in rows]
    )
    assert again.combine_chunks().equals(table.combine_chunks(), check_metadata=True)


@pytest.mark.parametrize("kind", FILES)
def test_row_has_the_same_bytes_wherever_it_stands(kind: str) -> None:
    """They are its identity where it has no other, and hold nothing of its neighbours."""
    records = [
        {"a": "same", "b": ["x", None], "c": True},
        {"a": None, "b": None, "c": None},
        {"a": "neighbour", "b": [], "c": False},
    ]
    raw = {
        read(kind, pa.Table.from_pylist(order, pa.Table.from_pylist(records).schema))[0][index].raw
        for order, index in (
            (records[:1], 0),
            (records, 0),
            (records[::-1], 2),
            (records[1:] + records[:1] * 3, 2),
            (records[1:] + records[:1] * 3, 4),
        )
    }
    assert len(raw) == 1
    assert b"neighbour" not in raw.pop()


def test_types_that_share_values_between_rows_are_made_plain() -> None:
    """Dictionaries and views, nested too: a row's bytes grow with the row alone."""
    many = [f"answer {i} " + "x" * 100 for i in range(2000)]
    nested = pa.array(
        [[{"kind": text}] for text in many],
        pa.list_(pa.struct([("kind", pa.dictionary(pa.int32(), pa.string()))])),
    )
    table = pa.table(
        {
            "dictionary": pa.array(many).dictionary_encode(),
            "view": pa.array(many, pa.string_view()),
            "list": nested,
        }
    )
    rows, schema = read("arrow stream", table)
    assert [row.record for row in rows] == table.to_pylist()
    assert decode_batch(rows[1999].raw, schema) == table.to_pylist()[1999]
    assert max(len(row.raw) for row in rows) < 3000


def test_categorical_columns_of_parquet_are_plain() -> None:
    """Parquet stores Arrow's dictionary type, and Arrow reads it back."""
    table = pa.table({"a": pa.array(["x", "y", "x"]).dictionary_encode()})
    rows, _ = read("parquet", table)
    assert [row.record for row in rows] == [{"a": "x"}, {"a": "y"}, {"a": "x"}]
    assert simplify_schema(table.schema).field("a").type == pa.string()


def test_positions_go_on_across_batches() -> None:
    """However the file is cut."""
    table = pa.table({"n": list(range(2 * BATCH_ROWS + 7))})
    for kind in FILES:
        rows, _ = read(kind, table)
        assert [(row.position, row.record) for row in rows] == [
            (n, {"n": n}) for n in range(2 * BATCH_ROWS + 7)
        ]


def test_table_without_rows_has_none() -> None:
    """No error."""
    reading = Reading()
    assert list(read_parquet(parquet(TABLE.slice(0, 0)), "a", reading)) == []


def test_long_row_costs_one_row() -> None:
    """Its neighbours are read; wide rows come a few at a time."""
    table = pa.table({"text": ["a", "x" * (MAX_ROW_BYTES + 1), "b"]})
    rows, _ = read("row groups", table)
    (alone,), _ = read("arrow stream", pa.table({"text": ["x" * (MAX_ROW_BYTES + 1)]}))
    assert [row.record for row in rows] == [{"text": "a"}, None, {"text": "b"}]
    assert str(rows[1].problem).startswith("longer than 16 MiB (SHA-256 ")
    assert rows[1].problem == alone.problem
    assert rows[1].raw == b""


@pytest.mark.parametrize("row_group", [1000, 1_000_000])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, row_group: int) -> None:
    """Ten times the rows, Arrow's peak grows by a fraction: by the pages' index at most, also where
    all rows are one group.
    """

    def of(rows: int) -> int:
        texts = [os.urandom(150).hex() for _ in range(rows)]
        pq.write_table(
            pa.table({"prompt": texts, "response": texts[::-1]}),
            tmp_path / "a.parquet",
            row_group_size=row_group,
            use_dictionary=False,
        )
        del texts
        pool = pa.proxy_memory_pool(pa.default_memory_pool())
        before = pa.default_memory_pool()
        pa.set_memory_pool(pool)
        try:
            with (tmp_path / "a.parquet").open("rb") as file:
                assert sum(1 for _ in read_parquet(file, "a", Reading())) == rows
            return int(pool.max_memory())
        finally:
            pa.set_memory_pool(before)

    small, large = of(10_000), of(100_000)  # 6 and 60 MB
    assert large < small + 12 * MIB


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (["a", "a"], "a has two columns called a: a row can hold one of them"),
        (["a", "b"], "a, row 2: the column b is in some of its parts and not in others"),
    ],
)
def test_columns_must_be_told_apart_and_stay(columns: list[str], said: str) -> None:
    """Two of one name, or one that vanishes midway."""
    first = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=columns)
    second = pa.RecordBatch.from_arrays([pa.array([3])], names=["a"])
    with pytest.raises(SourceError) as caught:
        list(read_batches([first, second], "a", Reading()))
    assert str(caught.value) == said


@pytest.mark.parametrize(
    "raw", [b"", b"\xff\xff\xff\xff", b"\xff\xff\xff\xff\x10\x00\x00\x00garbage garbage", b"text"]
)
def test_bytes_that_are_no_row_say_so(raw: bytes) -> None:
    """ValueError, never a crash."""
    with pytest.raises(ValueError, match=r"^not an Arrow row"):
        decode_batch(raw, TABLE.schema.serialize().to_pybytes())
