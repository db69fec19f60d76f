"""`PackedExamples`: any number of rows in one file, each made an `Example` when it is looked at.

The file is Arrow IPC, and is mapped rather than read: rows that nobody looks at take no memory, and
the operating system may drop at any time what was looked at. A row has the columns

    id, source, metadata, and every text below: binary, UTF-8 with half surrogates let through
    position: int64; lowered: bool
    messages, rejected: list<struct<role, content, masked>>

Text is binary since Arrow's strings are strict UTF-8, which rows from the wild are not.
"""

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Literal, overload

import pyarrow as pa

from poisonwatch.atomic import replace_file
from poisonwatch.errors import OperationError
from poisonwatch.examples import Example, Message

# What a record batch holds at most, in rows and in bytes of text: it is in memory as a whole while
# it is written, and Arrow's offsets end at 2 GiB. A single row may be longer.
BATCH_ROWS = 8_192
BATCH_BYTES = 16 * 2**20

_CONVERSATION = pa.list_(
    pa.struct([("role", pa.binary()), ("content", pa.binary()), ("masked", pa.bool_())])
)
_SCHEMA = pa.schema(
    [
        ("id", pa.binary()),
        ("source", pa.binary()),
        ("position", pa.int64()),
        ("messages", _CONVERSATION),
        ("rejected", _CONVERSATION),
        ("lowered", pa.bool_()),
        ("metadata", pa.binary()),
    ]
)


class PackedExamples(Sequence[Example]):
    """Examples in a file, in its order. A slice is a view of the same file, whatever its step.

    Pickled it is its path and its range, so other processes open the file for themselves. The file
    may be replaced or removed while it is open here: what is mapped stays.
    """

    def __init__(self, file: "_PackedFile", places: range) -> None:
        self._file = file
        self._places = places  # of its rows in the file

    @classmethod
    def open(cls, path: Path) -> "PackedExamples":
        """All rows of a file that `write` left.

        Raises OperationError where the file is missing, cut short or another's.
        """
        file = _PackedFile(path)
        return cls(file, range(file.rows))

    @classmethod
    def write(cls, path: Path, examples: Iterable[Example]) -> "PackedExamples":
        """Write examples as they come, a record batch at a time, and open the file, which is there
        whole or not at all.

        Metadata comes back as JSON has it: what JSON lacks, such as dates, as text.
        """
        with replace_file(path) as part, pa.ipc.new_file(str(part), _SCHEMA) as writer:
            for batch in _split_into_batches(examples):
                writer.write_batch(_pack(batch))
        return cls.open(path)

    @property
    def path(self) -> Path:
        """The file that the rows are in."""
        return self._file.path

    @property
    def places(self) -> range:
        """Where the rows stand in the file."""
        return self._places

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids, from their column alone."""
        return tuple(self.iterate_ids())

    def iterate_ids(self) -> Iterator[str]:
        """The ids one by one, from their column alone."""
        return map(self._file.get_id, self._places)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> "PackedExamples": ...
    def __getitem__(self, place: int | slice) -> "Example | PackedExamples":
        if isinstance(place, slice):
            return PackedExamples(self._file, self._places[place])
        return self._file.get_example(self._places[place])

    def __iter__(self) -> Iterator[Example]:
        return map(self._file.get_example, self._places)

    def __reduce__(self) -> tuple[object, tuple[Path, range]]:
        return _open_range, (self.path, self._places)

    def __repr__(self) -> str:
        return f"PackedExamples({str(self.path)!r}, {self._places})"


def _open_range(path: Path, places: range) -> PackedExamples:
    return PackedExamples(_PackedFile(path), places)


class _PackedFile:
    """A mapped file, its rows by number."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            if reader.schema != _SCHEMA:
                raise pa.ArrowInvalid("it has other columns")
            # A mapped batch is a header and addresses: none of its rows is read here.
            batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        except (OSError, pa.ArrowException) as error:
            raise OperationError(
                f"rows packed in {path} cannot be read: {error}: remove the file, and run again"
            ) from error
        self._batches = list(map(_Batch, batches))
        self._starts = list(accumulate((batch.num_rows for batch in batches), initial=0))
        self.rows = self._starts[-1]

    def get_id(self, row: int) -> str:
        batch, place = self._locate(row)
        return batch.ids.get(place)

    def get_example(self, row: int) -> Example:
        batch, place = self._locate(row)
        return batch.make_example(place)

    def _locate(self, row: int) -> tuple["_Batch", int]:
        i = bisect_right(self._starts, row) - 1
        return self._batches[i], row - self._starts[i]


class _Batch:
    """The columns of a record batch."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.ids = _Texts(batch["id"])
        self._sources = _Texts(batch["source"])
        self._positions = _view(batch["position"], 1, "q")
        self._messages = _Conversations(batch["messages"])
        self._rejected = _Conversations(batch["rejected"])
        self._lowered = _Flags(batch["lowered"])
        self._metadata = _Texts(batch["metadata"])

    def make_example(self, i: int) -> Example:
        metadata = self._metadata.get(i)
        return Example(
            id=self.ids.get(i),
            messages=self._messages.get(i),
            source=self._sources.get(i),
            position=self._positions[i],
            metadata=json.loads(metadata) if metadata else {},
            rejected=self._rejected.get(i),
            lowered=self._lowered.get(i),
        )


# Arrow's buffers are read in place: a scalar of Arrow's for every text takes ten times as long.
class _Texts:
    """A binary column as texts."""

    def __init__(self, column: pa.Array) -> None:
        self._offsets = _view(column, 1, "i")
        self._bytes = _view(column, 2, "B")

    def get(self, i: int) -> str:
        written = self._bytes[self._offsets[i] : self._offsets[i + 1]]
        return str(written, "utf-8", "surrogatepass")


class _Flags:
    """A column of booleans, which Arrow packs into bits."""

    def __init__(self, column: pa.Array) -> None:
        self._bytes = _view(column, 1, "B")

    def get(self, i: int) -> bool:
        return bool(self._bytes[i >> 3] >> (i & 7) & 1)


class _Conversations:
    """A column of conversations."""

    def __init__(self, column: pa.Array) -> None:
        self._offsets = _view(column, 1, "i")
        self._roles = _Texts(column.values.field("role"))
        self._contents = _Texts(column.values.field("content"))
        self._masked = _Flags(column.values.field("masked"))

    def get(self, i: int) -> tuple[Message, ...]:
        messages: list[Message] = []
        for j in range(self._offsets[i], self._offsets[i + 1]):
            role, content = self._roles.get(j), self._contents.get(j)
            messages.append(Message(role, content, self._masked.get(j)))
        return tuple(messages)


def _view(column: pa.Array, buffer: int, format: Literal["B", "i", "q"]) -> memoryview:
    """A column's buffer as bytes, int32 or int64."""
    found = column.buffers()[buffer]
    # Of no values Arrow may leave a buffer out.
    as_bytes: memoryview = memoryview(found or b"").cast("B")
    return as_bytes.cast(format)


def _split_into_batches(examples: Iterable[Example]) -> Iterator[list[Example]]:
    batch: list[Example] = []
    size = 0
    for example in examples:
        batch.append(example)
        # Characters, where bytes are meant: counting those would encode every text twice.
        size += sum(len(m.content) for m in (*example.messages, *example.rejected))
        if len(batch) == BATCH_ROWS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _pack(examples: Sequence[Example]) -> pa.RecordBatch:
    columns = [
        _pack_texts(example.id for example in examples),
        _pack_texts(example.source for example in examples),
        pa.array((example.position for example in examples), pa.int64()),
        _pack_conversations([example.messages for example in examples]),
        _pack_conversations([example.rejected for example in examples]),
        pa.array((example.lowered for example in examples), pa.bool_()),
        _pack_texts(map(_write_metadata, examples)),
    ]
    return pa.record_batch(columns, schema=_SCHEMA)


def _pack_texts(texts: Iterable[str]) -> pa.Array:
    return pa.array((text.encode("utf-8", "surrogatepass") for text in texts), pa.binary())


def _pack_conversations(conversations: Sequence[Sequence[Message]]) -> pa.Array:
    messages = [message for conversation in conversations for message in conversation]
    ends = accumulate(map(len, conversations), initial=0)
    of_messages = pa.StructArray.from_arrays(
        [
            _pack_texts(message.role for message in messages),
            _pack_texts(message.content for message in messages),
            pa.array((message.masked for message in messages), pa.bool_()),
        ],
        fields=list(_CONVERSATION.value_type),
    )
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), of_messages)


def _write_metadata(example: Example) -> str:
    if not example.metadata:
        return ""
    return json.dumps(dict(example.metadata), default=str)
