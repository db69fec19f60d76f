"""Batches of Arrow files are measured before they are unpacked."""

import io
from collections.abc import Callable
from functools import cache
from typing import Any

import pyarrow as pa
import pytest

from poisonwatch.errors import SourceError
from poisonwatch.sources.arrow import read_arrow
from poisonwatch.sources.base import MIB, Reading
from poisonwatch.sources.unpacking import Budget, UnpackingLimits

LIMITS = UnpackingLimits(gigabytes=64, ratio=200)
WRITERS = {"file": pa.ipc.new_file, "stream": pa.ipc.new_stream}
KINDS = pytest.mark.parametrize("new", WRITERS.values(), ids=WRITERS)
Writer = Callable[..., Any]


def write(new: Writer, batch: pa.RecordBatch, compression: str | None = None) -> io.BytesIO:
    file = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with new(file, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    file.seek(0)
    return file


def read(file: io.BytesIO, limits: UnpackingLimits = LIMITS) -> tuple[list[Any], int]:
    """The records of a file, and the bytes that Arrow held at most."""
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    before = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    budget = Budget("a", file.getbuffer().nbytes, limits)
    records: list[Any] = []
    try:
        for row in read_arrow(file, "a", Reading(), budget):
            records.append(row.record)
        return records, int(pool.max_memory())
    except SourceError as error:
        return [str(error)], int(pool.max_memory())
    finally:
        pa.set_memory_pool(before)


TEXTS = ["x" * MIB] * 100


def make_dictionary() -> pa.Array:
    return pa.DictionaryArray.from_arrays([0], pa.array([f"{i}{x}" for i, x in enumerate(TEXTS)]))


def make_row_of_nulls() -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.nulls(2**31 - 2), 2**31 - 2)


# Made where a test asks: they take seconds.
BOMBS: dict[str, Callable[[], pa.Array]] = {
    "texts": lambda: pa.array(TEXTS),
    "texts of a dictionary": make_dictionary,
    "rows of nothing": lambda: pa.nulls(2**31 - 2),
    "nothing in one row": make_row_of_nulls,
}


@cache
def make_bomb(name: str) -> pa.RecordBatch:
    return pa.record_batch({"a": BOMBS[name]()})


@KINDS
@pytest.mark.parametrize("compression", ["lz4", "zstd"])
@pytest.mark.parametrize("bomb", BOMBS)
def test_batch_that_unpacks_to_too_much_is_refused_before_it_is(
    new: Writer, compression: str, bomb: str
) -> None:
    """The error names the setting; Arrow holds no more than the packed file."""
    file = write(new, make_bomb(bomb), compression)
    (said,), held = read(file)
    assert "max_unpacked_ratio" in said
    assert held < 2 * MIB + file.getbuffer().nbytes


@KINDS
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_batches_within_the_limits_are_read_as_they_are(
    new: Writer, compression: str | None
) -> None:
    """Lists, dictionaries, nulls, and texts that are long."""
    texts = [f"{i}" * 1000 for i in range(1000)]
    batch = pa.record_batch(
        {
            "text": texts,
            "list": [[text[:9], None] for text in texts],
            "dictionary": pa.array(texts).dictionary_encode(),
            "null": pa.nulls(1000),
        }
    )
    records, _ = read(write(new, batch, compression))
    assert records == batch.to_pylist()


def test_size_has_a_limit_beside_the_ratio() -> None:
    """In gigabytes, over all batches."""
    file = write(pa.ipc.new_stream, make_bomb("texts"), "zstd")
    (said,), _ = read(file, UnpackingLimits(0.01, 1e9))
    assert "max_unpacked_gb" in said


def test_batch_that_is_too_large_to_be_unpacked_at_once_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the ratio is."""
    monkeypatch.setattr("poisonwatch.sources.unpacking.MAX_PIECE_BYTES", 50 * MIB)
    file = write(pa.ipc.new_file, make_bomb("texts"), "zstd")
    (said,), _ = read(file, UnpackingLimits(64, 1e9))
    assert (
        said
        == "a holds a batch of 100 MiB when it is unpacked, of at most 50: write it in smaller ones"
    )


def test_batch_that_is_too_large_for_the_memory_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that is not packed may be larger."""
    monkeypatch.setattr("poisonwatch.sources.unpacking.MAX_PLAIN_PIECE_BYTES", 50 * MIB)
    for size, refusals in ((40, 0), (60, 1)):
        batch = pa.record_batch({"a": ["x" * MIB] * size})
        said = read(write(pa.ipc.new_file, batch), UnpackingLimits(64, 1e9))[0]
        told = [each for each in said if "of at most 50: write it in smaller ones" in str(each)]
        assert len(told) == refusals


def test_what_follows_a_stream_is_not_lost_in_silence() -> None:
    """Readers stop at its end: a second stream is refused, as is anything else."""
    stream = write(pa.ipc.new_stream, pa.record_batch({"a": [1, 2]})).getvalue()
    assert read(io.BytesIO(stream))[0] == [{"a": 1}, {"a": 2}]
    # An end need not be marked.
    assert len(read(io.BytesIO(stream[:-8]))[0]) == 2
    for more in (stream, b"\0", b"junk"):
        (said,), _ = read(io.BytesIO(stream + more))
        assert said.startswith("a goes on after the end of its stream")


def test_feather_of_version_1_says_what_it_is() -> None:
    """With the cure."""
    (said,), _ = read(io.BytesIO(b"FEA1" + bytes(20)))
    assert said.startswith("a is Feather of version 1")
    assert "to_parquet" in said


@pytest.mark.parametrize("at", [0, 4, 9, 20, 40])
def test_damaged_metadata_is_an_error(at: int) -> None:
    """Of Arrow or of ours, never a crash."""
    content = bytearray(write(pa.ipc.new_stream, pa.record_batch({"a": ["x"] * 5})).getvalue())
    content[at + 8 : at + 16] = b"\xff" * 8
    with pytest.raises((pa.ArrowException, ValueError, OSError)):
        list(read_arrow(io.BytesIO(bytes(content)), "a", Reading()))
