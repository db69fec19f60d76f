"""Packed files give all that is in them, up to limits."""

import bz2
import gzip
import io
import lzma
import os
from collections.abc import Callable

import pyarrow as pa
import pytest

from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.base import MIB
from poisonwatch.sources.unpacking import (
    FREE_BYTES,
    ROW_BYTES,
    Budget,
    UnpackingLimits,
    limit_rows,
    unpack,
)

LIMITS = UnpackingLimits(gigabytes=64, ratio=200)


def pack_zstd(content: bytes) -> bytes:
    return pa.Codec("zstd").compress(content, asbytes=True)


PACKERS = {"gzip": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zstd": pack_zstd}
KINDS = pytest.mark.parametrize(("kind", "pack"), PACKERS.items(), ids=PACKERS)
Pack = Callable[[bytes], bytes]


@KINDS
def test_all_members_of_an_archive_are_read(kind: str, pack: Pack) -> None:
    """unpack(pack(a) + pack(b)) = a + b; closing it closes the file."""
    first, second = os.urandom(2 * MIB), b"second"
    packed = io.BytesIO(pack(first) + pack(second))
    file = unpack(packed, kind, LIMITS, "a")
    assert file.read() == first + second
    file.close()
    assert packed.closed


def test_frames_of_zstd_that_hold_no_data_are_skipped() -> None:
    """As pzstd writes them between others."""
    skipped = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
    packed = skipped + pack_zstd(b"a") + skipped + pack_zstd(b"b")
    assert unpack(io.BytesIO(packed), "zstd", LIMITS, "a").read() == b"ab"


@KINDS
def test_an_archive_that_is_cut_off_is_an_error(kind: str, pack: Pack) -> None:
    """In its middle, near its end, and in a later member."""
    first, second = pack(os.urandom(2 * MIB)), pack(b"second")
    for end in (len(first) // 2, len(first) - 3, len(first) + 6):
        cut = io.BytesIO((first + second)[:end])
        with pytest.raises((OSError, EOFError), match=r"(?i)truncated|before the end"):
            unpack(cut, kind, LIMITS, "a").read()


@KINDS
def test_what_grows_beyond_measure_is_given_up(kind: str, pack: Pack) -> None:
    """Zeros come down to a thousandth: the first 64 MiB are free, the rest has a limit, which the
    error names.
    """
    bomb = pack(bytes(FREE_BYTES + MIB))
    assert len(unpack(io.BytesIO(bomb), kind, UnpackingLimits(64, 1e7), "a").read()) > FREE_BYTES
    with pytest.raises(SourceError, match=r"^a grows more than 200 times .*max_unpacked_ratio"):
        unpack(io.BytesIO(bomb), kind, LIMITS, "a").read()
    with pytest.raises(SourceError, match=r"^a holds more than 0\.001 GB .*max_unpacked_gb"):
        unpack(io.BytesIO(bomb), kind, UnpackingLimits(0.001, 1e7), "a").read()


def test_a_little_may_grow_as_it_likes() -> None:
    """Below 64 MiB the ratio does not matter."""
    packed = gzip.compress(bytes(FREE_BYTES - MIB))
    assert len(unpack(io.BytesIO(packed), "gzip", LIMITS, "a").read()) == FREE_BYTES - MIB


def test_limits_are_the_sources() -> None:
    """By their settings."""
    source = SourceConfig(path="a", max_unpacked_gb=2, max_unpacked_ratio=30)
    assert UnpackingLimits.of(source) == UnpackingLimits(2, 30)


def test_rows_that_a_dictionary_stands_for_have_the_same_limits() -> None:
    """Short rows may be many, whatever few bytes they come from; long ones may not."""
    short = [RawRow("a", i, f"a, row {i}", raw=bytes(1000)) for i in range(70_000)]
    assert len(list(limit_rows(short, Budget("a", 1000, LIMITS)))) == 70_000
    with pytest.raises(SourceError, match=r"^a holds more than 0\.05 GB"):
        list(limit_rows(short, Budget("a", 1000, UnpackingLimits(0.05, 200))))
    long = [RawRow("a", i, f"a, row {i}", raw=bytes(MIB)) for i in range(66)]
    with pytest.raises(SourceError, match=r"^a grows more than 200 times"):
        list(limit_rows(long, Budget("a", MIB // 4, LIMITS)))
    assert len(list(limit_rows(long, Budget("a", MIB, LIMITS)))) == 66
    assert len(list(limit_rows(long, Budget("a", None, LIMITS)))) == 66


def test_rows_of_next_to_nothing_have_a_limit_too() -> None:
    """A ledger keeps each: a quarter of a million are free, more must take room in the file."""
    row = RawRow("a", 0, "a, row 1", raw=b"{}")
    free = FREE_BYTES // ROW_BYTES
    assert sum(1 for _ in limit_rows([row] * free, Budget("a", 1000, LIMITS))) == free
    with pytest.raises(SourceError, match="max_unpacked_ratio"):
        list(limit_rows([row] * (free + 1), Budget("a", 1000, LIMITS)))
    assert sum(1 for _ in limit_rows([row] * 500_000, Budget("a", 700_000, LIMITS))) == 500_000


@pytest.mark.parametrize("kind", ["xz", "bz2"])
def test_what_follows_a_stream_is_read_or_refused(kind: str) -> None:
    """Zeros may pad streams of xz, in fours; nothing else may stand between or after them."""
    pack: Pack = {"bz2": bz2.compress, "xz": lzma.compress}[kind]
    first, second = pack(b"first"), pack(b"second")

    def read(packed: bytes) -> bytes:
        return unpack(io.BytesIO(packed), kind, LIMITS, "a").read()

    for junk in (b"junk that is no stream", b"\0" * 3):
        with pytest.raises(OSError, match="after its end"):
            read(first + junk)
    if kind == "xz":
        assert read(first + bytes(8) + second + bytes(4)) == b"firstsecond"
        with pytest.raises(OSError, match="after its end"):
            read(first + bytes(8) + b"junk that is no stream")
