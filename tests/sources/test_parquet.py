"""Parquet files come out a few rows at a time, whatever few bytes of them stand for."""

import io
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poisonwatch.errors import SourceError
from poisonwatch.sources.arrow import read_parquet
from poisonwatch.sources.base import BATCH_ROWS, MIB, Reading
from poisonwatch.sources.parquet import ParquetBatches
from poisonwatch.sources.unpacking import Budget, UnpackingLimits

TEXT = "x" * MIB


def write(table: pa.Table, **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd", **options)
    file.seek(0)
    return file


def peak(file: io.BytesIO) -> tuple[int, int]:
    """How many rows there are, and how many bytes Arrow held at most."""
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    before = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        rows = sum(1 for _ in read_parquet(file, "a", Reading()))
        return rows, int(pool.max_memory())
    finally:
        pa.set_memory_pool(before)


BOMBS: dict[str, dict[str, list[Any]]] = {
    "flat": {"a": [TEXT] * 200},
    "nested": {"a": [[{"role": "user", "content": TEXT}]] * 200},
    "in one row": {"a": [[TEXT] * 400, *[["y"]] * 100]},
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_packed_values_are_unpacked_a_few_at_a_time(bomb: str) -> None:
    """A few KiB in which one text of 1 MiB stands hundreds of times: what Arrow holds stays near 64
    MiB, wherever the text stands.
    """
    columns = BOMBS[bomb]
    file = write(pa.table(columns))
    assert file.getbuffer().nbytes < 32_000
    rows, held = peak(file)
    assert rows == len(columns["a"])
    assert held < 100 * MIB


def test_shared_prefixes_are_unpacked_a_few_at_a_time() -> None:
    """An encoding without a dictionary, of which little is stored, too."""
    table = pa.table({"a": [TEXT] * 200})
    file = write(table, use_dictionary=False, column_encoding={"a": "DELTA_BYTE_ARRAY"})
    assert file.getbuffer().nbytes < 32_000
    rows, held = peak(file)
    assert rows == 200
    assert held < 100 * MIB


def test_row_beyond_all_bounds_costs_one_row() -> None:
    """It is never unpacked; its neighbours are read."""
    rows = list(read_parquet(write(pa.table(BOMBS["in one row"])), "a", Reading()))
    assert str(rows[0].problem).startswith("longer than 16 MiB")
    assert rows[1].record == {"a": ["y"]}


@pytest.mark.parametrize("row_group", [1300, 100_000])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_packed_columns_are_read_as_they_are(row_group: int, version: str) -> None:
    """Dictionaries and plain pages, flat and nested, over many batches, with what is missing."""
    records: list[dict[str, Any]] = []
    for i in range(3 * BATCH_ROWS):
        text = None if i % 11 == 0 else f"{i % 700} " + "x" * (i % 90)
        content = [{"role": "user", "content": text, "more": [f"{i} " + "y" * 1000]}] * (i % 3)
        records.append({"text": f"{i} " + "z" * 500, "messages": content})
    file = write(pa.Table.from_pylist(records), row_group_size=row_group, data_page_version=version)
    assert [row.record for row in read_parquet(file, "a", Reading())] == records


def test_plain_columns_come_by_the_thousand() -> None:
    """Small batches take longer: only where a text could be long."""
    file = write(
        pa.table({"a": [f"{i}" for i in range(3 * BATCH_ROWS)], "b": [1] * 3 * BATCH_ROWS})
    )
    assert [batch.num_rows for batch in ParquetBatches(file, Budget("a"))] == [BATCH_ROWS] * 3


def read_within(file: io.BytesIO, limits: UnpackingLimits) -> int:
    budget = Budget("a", file.getbuffer().nbytes, limits)
    return sum(1 for _ in read_parquet(file, "a", Reading(), budget))


def make_nulls() -> pa.Array:
    return pa.nulls(10_000_000, pa.int8())


def make_row_of_nulls() -> pa.Array:
    nulls = make_nulls()
    return pa.ListArray.from_arrays([0, len(nulls)], nulls)


# Made where a test asks: they take seconds.
LARGE: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "distinct texts": (
        lambda: [f"{i}{TEXT}" for i in range(80)],
        {"dictionary_pagesize_limit": 2**31 - 1},
    ),
    "one text": (lambda: [TEXT * 80], {"use_dictionary": False}),
    "list of texts": (lambda: [[TEXT] * 80], {"use_dictionary": False}),
    "nothing in many rows": (make_nulls, {}),
    "nothing in one row": (make_row_of_nulls, {}),
}


@pytest.mark.parametrize("kind", LARGE)
def test_what_is_too_much_is_refused_before_it_is_unpacked(kind: str) -> None:
    """By what footer and pages say of themselves; the errors name the settings."""
    make_column, options = LARGE[kind]
    file = write(pa.table({"a": make_column()}), **options)
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    before = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        with pytest.raises(SourceError, match="max_unpacked_ratio"):
            read_within(file, UnpackingLimits(64, 200))
        with pytest.raises(SourceError, match="max_unpacked_gb"):
            read_within(file, UnpackingLimits(0.05, 1e9))
        assert pool.max_memory() < 2 * MIB
    finally:
        pa.set_memory_pool(before)


def test_footer_that_lies_is_found_out_by_its_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A footer may be of another file, whose pages are small."""
    monkeypatch.setattr("poisonwatch.sources.unpacking.FREE_BYTES", MIB)
    content = write(pa.table({"a": [TEXT * 2]}), use_dictionary=False).getvalue()
    small = write(pa.table({"a": ["x" * 100]}), use_dictionary=False)
    size = int.from_bytes(small.getvalue()[-8:-4], "little")
    footer = small.getvalue()[-8 - size :]
    with pytest.raises(SourceError, match="max_unpacked_ratio"):
        read_within(io.BytesIO(content[:-8] + footer), UnpackingLimits(64, 20))


def test_pages_that_are_too_large_to_be_unpacked_at_once_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of each column comes out at a time, whatever the ratio is."""
    monkeypatch.setattr("poisonwatch.sources.unpacking.MAX_PIECE_BYTES", 3 * MIB)
    file = write(pa.table({"a": [TEXT * 2], "b": [TEXT * 2]}), use_dictionary=False)
    with pytest.raises(SourceError, match=r"^a holds pages of 4 MiB .* at most 3:"):
        read_within(file, UnpackingLimits(64, 1e9))


def test_copies_that_come_out_at_once_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pages without a dictionary stand among those with one, a row is read with all of its
    copies.
    """
    monkeypatch.setattr("poisonwatch.sources.unpacking.FREE_BYTES", 8 * MIB)
    unique = [f"{i} " + "y" * 3000 for i in range(1500)]
    texts = [[text] for text in unique[:10]] + [["x" * 90_000] * 1500 + unique]
    file = write(
        pa.table({"a": [*texts, *[[text] for text in unique]]}),
        row_group_size=10,
        dictionary_pagesize_limit=200_000,
        write_batch_size=16,
    )
    with pytest.raises(SourceError, match="max_unpacked_ratio"):
        read_within(file, UnpackingLimits(64, 100))


def test_honest_files_are_within_the_limits() -> None:
    """A million short rows that are sorted and packed well, and a few that were copied often."""
    many = pa.table({"id": list(range(1_000_000)), "a": ["yes", "no"] * 500_000})
    batches = ParquetBatches(file := write(many), Budget("a", 4, UnpackingLimits(64, 1e9)))
    size = file.getbuffer().nbytes
    assert size > 1_000_000
    assert (
        ParquetBatches(file, Budget("a", size, UnpackingLimits(64, 200))).schema == batches.schema
    )
    copies = write(pa.table({"prompt": ["q" * 100] * 10_000, "response": ["a" * 500] * 10_000}))
    assert read_within(copies, UnpackingLimits(64, 200)) == 10_000
