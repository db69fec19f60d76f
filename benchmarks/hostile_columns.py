"""Hostile files of columns: Parquet and Arrow."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hostile_kinds import MIB, hostile, write_file


def _write_parquet(folder: Path, table: pa.Table, **options: Any) -> Path:
    pq.write_table(table, folder / "rows.parquet", **options)
    return folder / "rows.parquet"


@hostile
def parquet_with_a_dictionary_bomb(folder: Path) -> Path:
    """One text of a megabyte, in a million rows."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_000, pa.int32()), ["x" * MIB])
    table = pa.table({"prompt": texts, "response": texts})
    return _write_parquet(folder, table, compression="zstd")


@hostile
def parquet_with_a_row_of_a_gigabyte(folder: Path) -> Path:
    """Packed to a few kilobytes, in one page."""
    return _write_text_of(folder, 1023 * MIB)


@hostile
def parquet_with_a_row_of_60_MB(folder: Path) -> Path:
    """Below what any file may come to."""
    return _write_text_of(folder, 60 * MIB)


def _write_text_of(folder: Path, size: int) -> Path:
    text = pa.array(["x" * size], pa.large_string())
    table = pa.table({"prompt": text, "response": ["a"]})
    return _write_parquet(folder, table, compression="zstd", use_dictionary=False)


def _make_texts(size: int) -> pa.Array:
    """Two texts that come to so many bytes, packed to a ratio that is allowed."""
    noise = os.urandom(size // 300).hex()
    return pa.array([noise + "x" * (size // 2 - len(noise))] * 2, pa.large_string())


def _write_large_page(folder: Path, size: int) -> Path:
    table = pa.table({"prompt": _make_texts(size), "response": ["a", "b"]})
    return _write_parquet(
        folder, table, compression="zstd", use_dictionary=False, data_page_size=2**30
    )


@hostile
def parquet_with_a_page_of_a_gigabyte(folder: Path) -> Path:
    return _write_large_page(folder, 1000 * MIB)


@hostile
def parquet_with_a_page_of_300_MB(folder: Path) -> Path:
    return _write_large_page(folder, 300 * MIB)


def _write_large_batch(folder: Path, size: int, compression: str | None) -> Path:
    batch = pa.record_batch({"prompt": _make_texts(size), "response": ["a", "b"]})
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(str(folder / "rows.arrow"), batch.schema, options=options) as file:
        file.write_batch(batch)
    return folder / "rows.arrow"


@hostile
def arrow_with_a_batch_of_a_gigabyte(folder: Path) -> Path:
    return _write_large_batch(folder, 1000 * MIB, None)


@hostile
def arrow_with_a_batch_of_630_MB(folder: Path) -> Path:
    return _write_large_batch(folder, 630 * MIB, None)


@hostile
def arrow_with_a_packed_batch_of_300_MB(folder: Path) -> Path:
    return _write_large_batch(folder, 300 * MIB, "zstd")


@hostile
def parquet_with_many_columns(folder: Path) -> Path:
    return _write_parquet(folder, pa.table({f"c{k}": [1] for k in range(20_000)}))


@hostile
def parquet_with_a_deep_type(folder: Path) -> Path:
    kind: pa.DataType = pa.int8()
    for _ in range(400):
        kind = pa.struct([pa.field("a", kind)])
    array = pa.array([None], kind)
    return _write_parquet(folder, pa.table({"prompt": array}))


@hostile
def parquet_with_a_million_rows_of_nothing(folder: Path) -> Path:
    nulls = pa.nulls(50_000_000, pa.int8())
    return _write_parquet(folder, pa.table({"prompt": nulls}), row_group_size=50_000_000)


def _damage_parquet(folder: Path, places: Sequence[int]) -> Path:
    path = _write_parquet(folder, pa.table({"prompt": ["a"] * 100, "response": ["b"] * 100}))
    content = bytearray(path.read_bytes())
    for place in places:
        content[place] ^= 0xFF
    return write_file(path, bytes(content))


@hostile
def parquet_that_is_cut_off(folder: Path) -> Path:
    path = _damage_parquet(folder, ())
    return write_file(path, path.read_bytes()[:-50])


@hostile
def parquet_with_a_footer_of_4_GB(folder: Path) -> Path:
    path = _damage_parquet(folder, ())
    return write_file(path, path.read_bytes()[:-8] + b"\xff\xff\xff\x7fPAR1")


@hostile
def parquet_with_damaged_pages(folder: Path) -> Path:
    return _damage_parquet(folder, range(4, 60))


@hostile
def parquet_with_a_damaged_footer(folder: Path) -> Path:
    return _damage_parquet(folder, range(-120, -60))


@hostile
def arrow_with_a_packed_bomb(folder: Path) -> Path:
    """A gigabyte in one batch, packed to kilobytes."""
    batch = pa.record_batch({"prompt": pa.array(["x" * 500 * MIB, "y"], pa.large_string())})
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(str(folder / "rows.arrow"), batch.schema, options=options) as file:
        file.write_batch(batch)
    return folder / "rows.arrow"


@hostile
def arrow_with_a_run_of_a_billion_rows(folder: Path) -> Path:
    array = pa.RunEndEncodedArray.from_arrays(pa.array([2**31 - 1], pa.int32()), pa.array(["x"]))
    batch = pa.record_batch({"prompt": array, "response": array})
    with pa.ipc.new_file(str(folder / "rows.arrow"), batch.schema) as file:
        file.write_batch(batch)
    return folder / "rows.arrow"


@hostile
def arrow_with_a_message_of_2_GB(folder: Path) -> Path:
    return write_file(folder / "rows.arrow", b"\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(1000))


@hostile
def arrow_that_is_damaged(folder: Path) -> Path:
    batch = pa.record_batch({"prompt": ["a"] * 100, "response": ["b"] * 100})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as file:
        file.write_batch(batch)
    content = bytearray(sink.getvalue())
    for place in range(8, len(content), 7):
        content[place] ^= 0x55
    return write_file(folder / "rows.arrow", bytes(content))
