"""Dictionary pages of Parquet files: how long the longest text in one is.

A page begins with its header (Thrift's compact protocol), and a dictionary's texts stand one after
the other, each behind its length.
"""

import struct
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from poisonwatch.sources.base import MAX_BATCH_BYTES, MIB

_HEADER_BYTES = 256  # that a header has at most, with room to spare
_CODECS = {
    "SNAPPY": "snappy",
    "GZIP": "gzip",
    "BROTLI": "brotli",
    "ZSTD": "zstd",
    "LZ4": "lz4_raw",  # so pyarrow calls LZ4_RAW
}
# Types of fields in Thrift's compact protocol.
_END, _TRUE, _FALSE, _SMALLEST_NUMBER, _LARGEST_NUMBER, _STRUCT = 0, 1, 2, 4, 6, 12


def measure_longest_entry(file: BinaryIO, chunk: pq.ColumnChunkMetaData) -> int:
    """The bytes of the longest text in a chunk's dictionary; of one that cannot be read, the bytes
    of everything that the chunk stores.
    """
    stored = int(chunk.total_uncompressed_size)
    try:
        file.seek(chunk.dictionary_page_offset)
        head = file.read(_HEADER_BYTES)
        numbers, start = _read_header(head)
        unpacked, packed = numbers[2], numbers[3]
        if unpacked > MAX_BATCH_BYTES or packed > unpacked + MIB:
            return min(unpacked, stored)
        file.seek(chunk.dictionary_page_offset + start)
        page = file.read(packed)
        if chunk.compression != "UNCOMPRESSED":
            codec = _CODECS[chunk.compression]
            page = pa.decompress(page, decompressed_size=unpacked, codec=codec, asbytes=True)
        return _find_longest(page)
    # Encrypted, of another codec, damaged: pyarrow will tell.
    except (KeyError, IndexError, ValueError, OSError, struct.error, pa.ArrowException):
        return stored


def _find_longest(page: bytes) -> int:
    at = longest = 0
    while at < len(page):
        (length,) = struct.unpack_from("<I", page, at)
        longest = max(longest, length)
        at += 4 + length
    return longest


def _read_header(head: bytes) -> tuple[dict[int, int], int]:
    """The numbers in a page's header by their fields, and where it ends: type (1), bytes unpacked
    (2), bytes packed (3), and what a dictionary has (7).
    """
    numbers: dict[int, int] = {}
    at = field = depth = 0
    outer = 0
    while True:
        step, kind = head[at] >> 4, head[at] & 0x0F
        at += 1
        if kind == _END and depth == 0:
            return numbers, at
        if kind == _END:
            depth, field = depth - 1, outer
            continue
        if not step:
            raise ValueError("a field by number")
        field += step
        if kind == _STRUCT:
            if depth:
                raise ValueError("a header in a header")
            depth, outer, field = 1, field, 0
        elif _SMALLEST_NUMBER <= kind <= _LARGEST_NUMBER:
            value, at = _read_varint(head, at)
            if not depth:
                # Zigzag: signs are in the last bit.
                numbers[field] = value >> 1
        elif kind not in (_TRUE, _FALSE):
            raise ValueError("no number")


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
