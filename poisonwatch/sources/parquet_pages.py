"""Pages of Parquet files: how much they unpack to, and how long the longest text of a dictionary
is, told before anything is unpacked.

A page begins with its header (Thrift's compact protocol), and a dictionary's texts stand one after
the other, each behind its length.
"""

import os
import struct
from io import BytesIO, UnsupportedOperation
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from poisonwatch.sources.base import MAX_BATCH_BYTES, MIB

_HEADER_BYTES = 512  # that a header has without statistics
_LONG_HEADER_BYTES = 16 * MIB
_CODECS = {
    "SNAPPY": "snappy",
    "GZIP": "gzip",
    "BROTLI": "brotli",
    "ZSTD": "zstd",
    "LZ4": "lz4_raw",  # so pyarrow calls LZ4_RAW
}
# Fields of a page's header.
_UNPACKED, _PACKED, _DATA, _DICTIONARY, _DATA_2 = 2, 3, 5, 7, 8
_VALUES = 1  # in each kind's own part
_ENCODING, _ENCODING_2 = 2, 4
_BY_DICTIONARY = (2, 8)  # encodings
# Types of fields in Thrift's compact protocol.
_END, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY = 0, 1, 2, 3, 7, 8
_LIST, _SET, _STRUCT = 9, 10, 12
_NUMBERS = (4, 5, 6)
_MAX_DEPTH = 8

_Header = dict[int, Any]


class PageSizes(NamedTuple):
    """What the pages of a column chunk say of themselves: bytes unpacked in all and of the largest
    page, values, and how many of these a dictionary holds.
    """

    unpacked: int = 0
    largest: int = 0
    values: int = 0
    by_dictionary: int = 0


def measure_pages(file: BinaryIO, chunk: pq.ColumnChunkMetaData) -> PageSizes:
    """What the pages of a chunk unpack to, by their headers: the file's footer may say less.

    Raises ValueError where a header is none.
    """
    at = _find_start(chunk)
    end = at + int(chunk.total_compressed_size)
    unpacked = largest = values = by_dictionary = 0
    while at < end and values < chunk.num_values:
        try:
            header, size = _read_page_header(file, at)
        except (KeyError, IndexError, struct.error):
            raise ValueError("the header of a page cannot be read") from None
        unpacked += header[_UNPACKED]
        largest = max(largest, header[_UNPACKED])
        data = header.get(_DATA, header.get(_DATA_2))
        if data is not None:
            values += data[_VALUES]
            encoding = data.get(_ENCODING) if _DATA in header else data.get(_ENCODING_2)
            if encoding in _BY_DICTIONARY:
                by_dictionary += data[_VALUES]
        at += size + max(0, header[_PACKED])
    return PageSizes(unpacked, largest, values, by_dictionary)


def is_near(file: BinaryIO) -> bool:
    """Whether reading here and there costs no request to a server."""
    if isinstance(file, BytesIO):
        return True
    try:
        file.fileno()
    except (UnsupportedOperation, OSError, AttributeError):
        return False
    return True


def _find_start(chunk: pq.ColumnChunkMetaData) -> int:
    start: int = chunk.data_page_offset
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        start = min(start, chunk.dictionary_page_offset)
    return start


def measure_longest_entry(file: BinaryIO, chunk: pq.ColumnChunkMetaData) -> int:
    """The bytes of the longest text in a chunk's dictionary; of one that cannot be read, the bytes
    of everything that the chunk stores.
    """
    stored = int(chunk.total_uncompressed_size)
    try:
        header, start = _read_page_header(file, chunk.dictionary_page_offset)
        unpacked, packed = header[_UNPACKED], header[_PACKED]
        if unpacked > MAX_BATCH_BYTES or packed > unpacked + MIB:
            return max(int(unpacked), stored)
        page = _read_at(file, chunk.dictionary_page_offset + start, packed)
        if chunk.compression != "UNCOMPRESSED":
            codec = _CODECS[chunk.compression]
            page = pa.decompress(page, decompressed_size=unpacked, codec=codec, asbytes=True)
        return _find_longest(page)
    # Encrypted, of another codec, damaged: pyarrow will tell.
    except (KeyError, IndexError, ValueError, OSError, struct.error, pa.ArrowException):
        return stored


def _read_at(file: BinaryIO, at: int, size: int) -> bytes:
    # Past the buffer, which would be filled anew for each few bytes.
    if is_near(file) and not isinstance(file, BytesIO):
        return os.pread(file.fileno(), size, at)
    file.seek(at)
    return file.read(size)


def _find_longest(page: bytes) -> int:
    at = longest = 0
    while at < len(page):
        (length,) = struct.unpack_from("<I", page, at)
        longest = max(longest, length)
        at += 4 + length
    return longest


def _read_page_header(file: BinaryIO, at: int) -> tuple[_Header, int]:
    """The header of a page, and its bytes."""
    try:
        return _read_struct(_read_at(file, at, _HEADER_BYTES), 0)
    except IndexError:
        return _read_struct(_read_at(file, at, _LONG_HEADER_BYTES), 0)


def _read_struct(data: bytes, at: int, depth: int = 0) -> tuple[_Header, int]:
    """The numbers and structs in a struct by their fields, and where it ends."""
    if depth > _MAX_DEPTH:
        raise IndexError("structs in structs")
    fields: _Header = {}
    field = 0
    while True:
        step, kind = data[at] >> 4, data[at] & 0x0F
        at += 1
        if kind == _END:
            return fields, at
        if step:
            field += step
        else:
            field, at = _read_number(data, at)
        # Whether it is true stands in the type itself.
        if kind not in (_TRUE, _FALSE):
            fields[field], at = _read_value(data, at, kind, depth)


def _read_value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in _NUMBERS:
        return _read_number(data, at)
    if kind == _STRUCT:
        return _read_struct(data, at, depth + 1)
    if kind == _BINARY:
        size, at = _read_varint(data, at)
        return None, at + size
    if kind in (_TRUE, _FALSE, _BYTE):
        return None, at + 1
    if kind == _DOUBLE:
        return None, at + 8
    if kind in (_LIST, _SET):
        return None, _skip_list(data, at, depth)
    raise IndexError(f"a value of the type {kind}")


def _skip_list(data: bytes, at: int, depth: int) -> int:
    count, kind = data[at] >> 4, data[at] & 0x0F
    at += 1
    if count == 0x0F:
        count, at = _read_varint(data, at)
    for _ in range(count):
        _, at = _read_value(data, at, kind, depth + 1)
    return at


def _read_number(data: bytes, at: int) -> tuple[int, int]:
    value, at = _read_varint(data, at)
    # Zigzag: the sign is the last bit.
    return (value >> 1) ^ -(value & 1), at


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
