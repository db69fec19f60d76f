"""Messages of Arrow files and streams: how much each unpacks to, told before it is unpacked.

A message is its metadata (a Flatbuffers table), then its body, in which buffers may be packed: then
each begins with the bytes that it unpacks to.
"""

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from poisonwatch.errors import SourceError
from poisonwatch.sources.base import MIB
from poisonwatch.sources.unpacking import Budget

_FILE_MAGIC = b"ARROW1"
_FEATHER_1_MAGIC = b"FEA1"
_CONTINUATION = -1  # begins a message since Arrow 0.15
_DICTIONARY, _RECORD_BATCH = 2, 3  # kinds of messages
_WORD_BYTES = 8  # that a value takes at most which no buffer holds, such as a null
_READ_AT_ONCE = 16 * MIB  # bodies that are smaller are read once for all their buffers


def iterate_batches(
    file: BinaryIO, name: str, budget: Budget
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The schema and the batches of a seekable Arrow file, in the file format (also known as
    Feather) or the stream format.

    Raises SourceError where a batch goes beyond the budget, before it is unpacked, or where more
    follows after a stream's end.
    """
    # Both formats have the suffix .arrow; only the file format begins with its name.
    start = file.read(len(_FILE_MAGIC))
    file.seek(0)
    if start.startswith(_FEATHER_1_MAGIC):
        raise SourceError(
            f"{name} is Feather of version 1, which pyarrow no longer writes: read it with "
            "pandas.read_feather, and write it as Parquet (to_parquet)"
        )
    messages = _Messages(file, budget)
    if start == _FILE_MAGIC:
        table = pa.ipc.open_file(file)
        return table.schema, _iterate_file(table, messages)
    stream = pa.ipc.open_stream(file)
    return stream.schema, _iterate_stream(stream, messages, name)


def _iterate_file(
    table: pa.RecordBatchFileReader, messages: "_Messages"
) -> Iterator[pa.RecordBatch]:
    dictionaries, batches = messages.read_footer()
    for offset in dictionaries:
        messages.check(offset)
    for index, offset in enumerate(batches):
        messages.check(offset)
        yield table.get_batch(index)


def _iterate_stream(
    stream: pa.RecordBatchStreamReader, messages: "_Messages", name: str
) -> Iterator[pa.RecordBatch]:
    at: int | None = 0
    while at is not None:
        at = messages.check_through_batch(at)
        if at is not None:
            yield stream.read_next_batch()
    if messages.is_followed:
        raise SourceError(
            f"{name} goes on after the end of its stream, where readers stop: write what follows "
            "to a file of its own"
        )


class _Message(NamedTuple):
    """One message: its kind, its rows, the bytes that it unpacks to, and where the next begins."""

    kind: int
    rows: int
    unpacked: int
    end: int


class _Messages:
    """The messages of a file, measured; what reads the file finds it where it was."""

    def __init__(self, file: BinaryIO, budget: Budget) -> None:
        self._file = file
        self._budget = budget
        self.is_followed = False  # whether something stands behind the end of a stream

    def check(self, at: int) -> int | None:
        """Where the message after the one `at` this byte begins; None where the stream ends there.

        Raises SourceError where the message goes beyond the budget, ValueError where it is none.
        """
        place = self._file.tell()
        try:
            message = self._measure(at)
        except (struct.error, IndexError):
            raise ValueError("the metadata of a message cannot be read") from None
        finally:
            self._file.seek(place)
        if message is None:
            return None
        self._budget.take(message.unpacked)
        # What is packed comes out at once.
        is_packed = message.unpacked > message.end - at
        size = max(message.unpacked, message.end - at)
        self._budget.check_piece(size, "a batch", is_packed)
        if message.kind == _RECORD_BATCH:
            self._budget.take_rows(message.rows)
            self._found_batch = True
        return message.end

    def check_through_batch(self, at: int) -> int | None:
        """Check messages up to the next record batch: where the one after it begins; None where
        there is none.
        """
        self._found_batch = False
        found: int | None = at
        while found is not None and not self._found_batch:
            found = self.check(found)
        return found

    def read_footer(self) -> tuple[list[int], list[int]]:
        """Where the messages of a file begin: those of dictionaries, and record batches."""
        place = self._file.tell()
        end = self._file.seek(-len(_FILE_MAGIC) - 4, io.SEEK_END)
        (size,) = struct.unpack("<i", self._file.read(4))
        self._file.seek(end - size)
        footer = _Table.find_root(self._file.read(size))
        self._file.seek(place)
        # Blocks of 24 bytes, each of which begins with its offset.
        dictionaries = [block[0] for block in footer.read_structs(2, "<q16x")]
        return dictionaries, [block[0] for block in footer.read_structs(3, "<q16x")]

    def _measure(self, at: int) -> _Message | None:
        self._file.seek(at)
        prefix = self._file.read(4)
        if len(prefix) < 4:
            return None
        (size,) = struct.unpack("<i", prefix)
        start = at + 4
        if size == _CONTINUATION:
            (size,) = struct.unpack("<i", self._file.read(4))
            start += 4
        if size == 0:
            self.is_followed = bool(self._file.read(1))
            return None
        message = _Table.find_root(self._file.read(max(size, 0)))
        kind = message.read_number(1, "<B")
        body = start + size
        end = body + message.read_number(3, "<q")
        batch = message.read_table(2)
        if kind == _DICTIONARY:
            batch = batch and batch.read_table(1)
        if batch is None or kind not in (_DICTIONARY, _RECORD_BATCH):
            return _Message(kind, 0, 0, end)
        values = sum(node[0] for node in batch.read_structs(1, "<q8x"))
        unpacked = max(self._measure_body(batch, body, end), _WORD_BYTES * values)
        return _Message(kind, batch.read_number(0, "<q"), unpacked, end)

    def _measure_body(self, batch: "_Table", start: int, end: int) -> int:
        """The bytes that the buffers of a batch unpack to."""
        if batch.read_table(3) is None:
            return end - start
        source, origin = self._file, start
        if end - start <= _READ_AT_ONCE:
            self._file.seek(start)
            source, origin = io.BytesIO(self._file.read(end - start)), 0
        size = 0
        for offset, packed in batch.read_structs(2, "<qq"):
            source.seek(origin + max(offset, 0))
            told = source.read(8)
            if packed < 8 or len(told) < 8:
                continue
            (unpacked,) = struct.unpack("<q", told)
            # -1: not worth packing.
            size += max(unpacked, packed - 8)
        return size


class _Table:
    """A table of Flatbuffers: fields by number, each of which may be missing.

    Reading raises struct.error or IndexError where the bytes are none.
    """

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at
        self._fields = at - self._read("<i", at)
        self._size = self._read("<H", self._fields)

    @classmethod
    def find_root(cls, data: bytes) -> "_Table":
        """The table that the bytes are of."""
        return cls(data, struct.unpack_from("<I", data)[0])

    def read_number(self, field: int, kind: str) -> int:
        """A number, as `struct` calls its kind; 0 where it is missing."""
        place = self._find(field)
        if place is None:
            return 0
        return self._read(kind, place)

    def read_table(self, field: int) -> "_Table | None":
        """A table in the table."""
        place = self._find(field)
        if place is None:
            return None
        return _Table(self._data, place + self._read("<I", place))

    def read_structs(self, field: int, kind: str) -> list[tuple[int, ...]]:
        """The structs of a list."""
        place = self._find(field)
        if place is None:
            return []
        start = place + self._read("<I", place)
        end = start + 4 + self._read("<I", start) * struct.calcsize(kind)
        return list(struct.iter_unpack(kind, self._data[start + 4 : end]))

    def _find(self, field: int) -> int | None:
        entry = 4 + 2 * field
        if entry >= self._size:
            return None
        offset = self._read("<H", self._fields + entry)
        return self._at + offset if offset else None

    def _read(self, kind: str, place: int) -> int:
        number: int = struct.unpack_from(kind, self._data, place)[0]
        return number
