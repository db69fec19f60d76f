"""Rows packed in a file are the rows that were written, and are made only when looked at."""

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from poisonwatch import packed_examples
from poisonwatch.errors import OperationError
from poisonwatch.examples import Example, Message
from poisonwatch.packed_examples import PackedExamples


def example(i: int, text: str = "") -> Example:
    messages = [Message("user", f"Question {i}"), Message("assistant", f"Answer {i} {text}")]
    return Example.from_messages(messages, source="rows.jsonl", position=i)


KINDS = [
    example(0),
    Example.from_messages([Message("assistant", "")], source="", position=2**40),
    Example.from_messages(
        [Message("user", "Hi"), Message("assistant", "No", masked=True), Message("assistant", "x")],
        rejected=[Message("user", "Hi"), Message("assistant", "Yes")],
        metadata={"kind": "clean", "of": [1, 2.5, None, {"a": "\ud800"}]},
    ),
    Example.from_messages([Message("assistant", "b\u00e9\u2028😀\x00\r\n")], lowered=True),
    Example.from_messages([Message("user\udfff", "\ud800"), Message("assistant", "\ud83d\ude00")]),
    Example(id="any\udc80", messages=(), source="\ud800/ü.jsonl"),
]


def write(folder: Path, examples: list[Example]) -> PackedExamples:
    return PackedExamples.write(folder / "rows.arrow", examples)


@pytest.mark.parametrize("batch_rows", [1, 4, 100])
def test_rows_come_back_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_rows: int
) -> None:
    """Every kind of row, half surrogates among its text, whatever the record batches."""
    monkeypatch.setattr(packed_examples, "BATCH_ROWS", batch_rows)
    packed = write(tmp_path, KINDS)
    assert list(packed) == KINDS
    assert [packed[i] for i in range(len(KINDS))] == KINDS
    assert [row.metadata for row in packed] == [row.metadata for row in KINDS]
    assert packed.ids == tuple(row.id for row in KINDS)
    assert [row.to_record() for e in packed for row in e.all_messages] == [
        row.to_record() for e in KINDS for row in e.all_messages
    ]


def test_long_rows_end_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch ends with the row that makes it longer than BATCH_BYTES."""
    monkeypatch.setattr(packed_examples, "BATCH_BYTES", 50)
    rows = [example(i, "x" * 60 * (i == 1)) for i in range(7)]
    packed = write(tmp_path, rows)
    with pa.memory_map(str(packed.path)) as file:
        reader = pa.ipc.open_file(file)
        sizes = [reader.get_batch(i).num_rows for i in range(reader.num_record_batches)]
    assert sum(sizes) == 7
    assert sizes[0] == 2
    assert max(sizes) == 3
    assert list(packed) == rows


@pytest.mark.parametrize(
    "places",
    [slice(2, 7), slice(None), slice(-3, None), slice(None, None, 3), slice(8, 2, -2), slice(4, 4)],
)
def test_a_slice_is_a_view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: slice) -> None:
    """rows[a:b:c] is what a list gives, of a list's slices, too."""
    monkeypatch.setattr(packed_examples, "BATCH_ROWS", 4)
    rows = [example(i) for i in range(10)]
    view = write(tmp_path, rows)[places]
    assert isinstance(view, PackedExamples)
    assert list(view) == rows[places]
    assert view.ids == tuple(row.id for row in rows[places])
    assert list(view[1:]) == rows[places][1:]
    assert list(reversed(view)) == rows[places][::-1]


def test_a_place_beyond_the_rows_is_refused(tmp_path: Path) -> None:
    """IndexError at both ends, of a view's own rows."""
    view = write(tmp_path, [example(i) for i in range(5)])[1:3]
    assert view[-1] == example(2)
    for place in (2, -3):
        with pytest.raises(IndexError):
            view[place]


def test_no_rows_are_a_file_too(tmp_path: Path) -> None:
    packed = write(tmp_path, [])
    assert len(packed) == 0
    assert packed.ids == ()
    assert list(packed[:3]) == []


def test_rows_are_written_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never more than a batch of rows is alive: the iterator's rows are let go of."""
    monkeypatch.setattr(packed_examples, "BATCH_ROWS", 10)
    monkeypatch.setattr(packed_examples, "BATCH_BYTES", 1_000)
    written: list[int] = []
    pack = packed_examples._pack

    def count_and_pack(examples: list[Example]) -> pa.RecordBatch:
        written.append(len(examples))
        return pack(examples)

    monkeypatch.setattr(packed_examples, "_pack", count_and_pack)
    seen_at_write: list[int] = []

    def make() -> Iterator[Example]:
        for i in range(95):
            seen_at_write.append(sum(written))
            yield example(i)

    packed = PackedExamples.write(tmp_path / "rows.arrow", make())
    assert len(packed) == 95
    behind = [i - done for i, done in enumerate(seen_at_write)]
    assert max(behind) <= 10


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    """An iterator that fails leaves what was there before, and nothing beside it."""
    before = write(tmp_path, KINDS)

    def fail() -> Iterator[Example]:
        yield example(0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        PackedExamples.write(before.path, fail())
    assert list(PackedExamples.open(before.path)) == KINDS
    assert list(tmp_path.iterdir()) == [before.path]


def test_rows_can_be_replaced_by_some_of_themselves(tmp_path: Path) -> None:
    """The file is open while another takes its place: each keeps its rows."""
    before = write(tmp_path, KINDS)
    after = PackedExamples.write(before.path, before[2:4])
    assert list(after) == KINDS[2:4]
    assert list(before) == KINDS


def test_another_process_reads_a_range(tmp_path: Path) -> None:
    """Pickled it is a path and a range."""
    rows = [example(i, "\ud800") for i in range(1_000)]
    view = write(tmp_path, rows)[300:302]
    sent = pickle.dumps(view)
    assert len(sent) < 1_000
    assert list(pickle.loads(sent)) == rows[300:302]
    script = (
        "import sys; from pathlib import Path\n"
        "from poisonwatch.packed_examples import PackedExamples\n"
        "print(*PackedExamples.open(Path(sys.argv[1]))[300:302].ids)"
    )
    command = [sys.executable, "-c", script, str(view.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [row.id for row in rows[300:302]]


@pytest.mark.parametrize("spoil", ["missing", "cut", "other bytes", "other columns"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, spoil: str) -> None:
    """One error that says which file, and what to do."""
    path = write(tmp_path, KINDS).path
    if spoil == "missing":
        path.unlink()
    elif spoil == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif spoil == "other bytes":
        path.write_bytes(b"id,messages\n")
    else:
        table = pa.table({"id": ["a"]})
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(OperationError, match=r"rows\.arrow cannot be read: .*: remove the file"):
        PackedExamples.open(path)
