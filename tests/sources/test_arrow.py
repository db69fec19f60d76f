"""Rows of Parquet and Arrow files, each kept as a record batch of itself."""

import datetime
import decimal
import io
import json
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
)
from poisonwatch.sources.arrow_types import get_storage_schema, simplify_schema
from poisonwatch.sources.base import (
    BATCH_ROWS,
    EXCERPT_CHARACTERS,
    MAX_ROW_BYTES,
    MIB,
    Reading,
)

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
    assert rows[1].raw == ("text: " + "x" * EXCERPT_CHARACTERS)[:EXCERPT_CHARACTERS].encode()


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


def test_columns_must_be_told_apart() -> None:
    """Two of one name are refused: a record can hold one of them."""
    batch = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(SourceError) as caught:
        list(read_batches([batch], "a", Reading()))
    assert str(caught.value) == "a has two columns called a: a row can hold one of them"


def test_schema_that_drifts_costs_the_rows_that_do_not_fit() -> None:
    """A column that a part lacks is null there, one that the schema lacks is named, as is a value
    of another type; columns may come in another order.
    """
    schema = pa.schema([("a", pa.int64()), ("b", pa.string())])
    parts = [
        pa.RecordBatch.from_pylist([{"a": 1, "b": "x"}], schema),
        pa.RecordBatch.from_pylist([{"a": 2}]),
        pa.RecordBatch.from_pylist([{"b": "y", "a": 3}]),
        pa.RecordBatch.from_pylist([{"a": 4, "b": "z", "c": 1}]),
        pa.RecordBatch.from_pylist([{"a": "5", "b": "v"}, {"a": "six", "b": "w"}]),
    ]
    rows = list(read_batches(parts, "a", Reading()))
    assert [row.record for row in rows] == [
        {"a": 1, "b": "x"},
        {"a": 2, "b": None},
        {"a": 3, "b": "y"},
        None,
        {"a": 5, "b": "v"},
        None,
    ]
    assert [row.position for row in rows] == list(range(6))
    assert "the column 'c'" in str(rows[3].problem)
    assert "the column 'a' cannot be read" in str(rows[5].problem)


BROKEN = {
    "when": pa.array([0, 2**60, 5], pa.timestamp("ms")),
    "day": pa.array([0, 2**30, 5], pa.int32()).view(pa.date32()),
    "text": pa.array([b"x", b"\xff", b"y"], pa.binary()).view(pa.string()),
    "map": pa.array([[("k", 1)], [("k", 1), ("k", 2)], None], pa.map_(pa.string(), pa.int64())),
    "json": pa.array(['"x"', "{broken", None], pa.json_()),
    "twice": pa.array(['"x"', '{"k": 1, "k": 2}', "1"], pa.json_()),
}


@pytest.mark.parametrize("column", BROKEN)
@pytest.mark.parametrize("kind", ["parquet", "arrow stream", "arrow file"])
def test_cell_that_cannot_be_read_costs_its_row(column: str, kind: str) -> None:
    """Named by row and column; its neighbours are read, and it has bytes of its own."""
    table = pa.table({"n": [1, 2, 3], column: BROKEN[column]})
    rows, schema = read(kind, table)
    assert [row.record and row.record["n"] for row in rows] == [1, None, 3]
    assert f"the column '{column}'" in str(rows[1].problem)
    assert rows[1].place == "a, row 2"
    assert rows[1].raw
    assert decode_batch(rows[2].raw, schema) == rows[2].record


def test_names_that_stand_twice_in_a_struct_cost_each_row() -> None:
    """A record can hold one of them."""
    twins = pa.StructArray.from_arrays([pa.array([1, 3]), pa.array([2, 4])], names=["a", "a"])
    rows, _ = read("arrow stream", pa.table({"s": twins}))
    assert [row.record for row in rows] == [None, None]
    assert "the column 's' cannot be read" in str(rows[0].problem)


MIXED: list[dict[str, Any]] = [
    {"answer": "你好", "messages": [{"role": "user", "content": "é"}], "n": 1},
    {"answer": 9, "messages": [{"role": "user", "content": [{"type": "text"}], "w": 0}], "n": 2},
    {"answer": ["a", {"b": None}], "messages": None, "n": 3},
    {"answer": None, "messages": [], "n": 4},
]
JSON_SCHEMA = pa.schema(
    [("answer", pa.json_()), ("messages", pa.list_(pa.json_())), ("n", pa.int64())]
)


def mixed_table() -> pa.Table:
    texts = []
    for record in MIXED:
        messages = record["messages"]
        if messages is not None:
            messages = [json.dumps(message) for message in messages]
        answer = record["answer"] and json.dumps(record["answer"])
        texts.append({"answer": answer, "messages": messages, "n": record["n"]})
    columns = pa.Table.from_pylist(texts, get_storage_schema(JSON_SCHEMA))
    return columns.cast(JSON_SCHEMA)


@pytest.mark.parametrize("kind", FILES)
def test_json_type_is_read_by_its_values_and_kept_with_its_type(kind: str) -> None:
    """Texts, numbers, lists; the stored rows make the table again, and decode to the same."""
    rows, raw_schema = read(kind, mixed_table())
    assert [row.record for row in rows] == MIXED
    assert [decode_batch(row.raw, raw_schema) for row in rows] == MIXED
    schema = pa.ipc.read_schema(pa.py_buffer(raw_schema))
    assert schema.field("answer").type == pa.json_()
    assert schema.field("messages").type.value_type == pa.json_()
    assert len({row.raw for row in rows}) == len(MIXED)


def test_column_that_parquet_cannot_hold_is_refused() -> None:
    """Before an audit, not when it is released."""
    table = pa.table({"when": pa.nulls(2, pa.month_day_nano_interval())})
    with pytest.raises(SourceError, match=r"^a: the column 'when' is of the type"):
        read("arrow stream", table)


def test_offsets_that_lead_beyond_the_file_are_refused() -> None:
    """A crash would be worse."""
    content = arrow(pa.table({"a": ["x" * 77]}), pa.ipc.new_stream).getvalue()
    # The first is what the message says of the buffer.
    head, offsets, body = content.rpartition(bytes.fromhex("000000004d000000"))
    broken = head + bytes.fromhex("000000004dffff00") + body
    assert len(offsets) == 8
    with pytest.raises(pa.ArrowInvalid):
        list(read_arrow(io.BytesIO(broken), "a", Reading()))


@pytest.mark.parametrize(
    "raw", [b"", b"\xff\xff\xff\xff", b"\xff\xff\xff\xff\x10\x00\x00\x00garbage garbage", b"text"]
)
def test_bytes_that_are_no_row_say_so(raw: bytes) -> None:
    """ValueError, never a crash."""
    with pytest.raises(ValueError, match=r"^not an Arrow row"):
        decode_batch(raw, TABLE.schema.serialize().to_pybytes())


@pytest.mark.parametrize("kind", FILES)
def test_short_decimals_are_kept_as_long_ones(kind: str) -> None:
    """`datasets` reads no others; nested, too."""
    price = decimal.Decimal("1.50")
    short = pa.array([price], pa.decimal32(5, 2))
    nested = pa.array([[{"price": price}]], pa.list_(pa.struct([("price", pa.decimal64(12, 2))])))
    (row,), raw_schema = read(kind, pa.table({"a": short, "b": nested}))
    assert row.record == {"a": price, "b": [{"price": price}]}
    assert decode_batch(row.raw, raw_schema) == row.record
    schema = pa.ipc.read_schema(pa.py_buffer(raw_schema))
    assert schema.field("a").type == pa.decimal128(5, 2)
    assert schema.field("b").type.value_type.field("price").type == pa.decimal128(12, 2)


@pytest.mark.parametrize("kind", FILES)
def test_tables_of_thousands_of_columns_are_refused(kind: str) -> None:
    """Each takes time in every row; those in structs count."""
    columns = {f"c{i}": pa.nulls(1, pa.int8()) for i in range(2001)}
    struct = pa.StructArray.from_arrays(list(columns.values()), names=list(columns))
    for table in (pa.table(columns), pa.table({"s": struct})):
        with pytest.raises(SourceError, match=r"^a has 2,00[12] columns, of at most 2,000"):
            read(kind, table)
