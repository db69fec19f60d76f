"""Parquet files come out a few rows at a time, whatever few bytes of them stand for."""

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poisonwatch.sources.arrow import read_parquet
from poisonwatch.sources.base import BATCH_ROWS, MIB, Reading
from poisonwatch.sources.parquet import ParquetBatches
from poisonwatch.sources.unpacking import Budget

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
