"""Records on disk: whole or not at all, and never another row's."""

import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import ipc
from slow_tests import slow

from poisonwatch.errors import OperationError
from poisonwatch.stride.records import (
    RecordStore,
    RowRecords,
    pack_ids,
    plan_shards,
)


def make_ids(m: int, first: int = 0) -> list[str]:
    return [f"{first + i:064x}" for i in range(m)]


def make_records(
    m: int = 7, Q: int = 3, f: int = 6, rD: int | None = 8, first: int = 0, seed: int = 0
) -> RowRecords:
    draw = np.random.default_rng(seed)

    def draw_floats(*shape: int) -> np.ndarray:
        return draw.standard_normal(shape).astype(np.float32)

    spread = draw_floats(m) ** 2
    spread[:1] = np.inf
    return RowRecords(
        ids=pack_ids(make_ids(m, first)),
        effects=draw_floats(m, Q),
        centre=draw_floats(m),
        spread=spread,
        signs=np.where(np.arange(m) % 3, 1.0, -1.0).astype(np.float32),
        faults=(np.arange(m) % 5 == 4).astype(np.uint8),
        views=draw_floats(m, f),
        gradients=None if rD is None else draw_floats(m, rD),
    )


FIELDS = ("ids", "effects", "centre", "spread", "signs", "faults", "views", "gradients")


def assert_same(found: RowRecords | None, expected: RowRecords) -> None:
    """To the bit, of the same type and shape."""
    assert found is not None
    for name in FIELDS:
        one, other = getattr(found, name), getattr(expected, name)
        if other is None:
            assert one is None
        else:
            assert (one.dtype, one.shape) == (other.dtype, other.shape), name
            assert one.tobytes() == other.tobytes(), name


@settings(max_examples=15)
@given(
    m=st.integers(1, 5),
    Q=st.integers(0, 3),
    r=st.integers(1, 3),
    kept=st.booleans(),
    seed=st.integers(0, 99),
)
def test_records_come_back_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, m: int, Q: int, r: int, kept: bool, seed: int
) -> None:
    """Whatever their sizes: also of no queries (Q = 0), and without views (r = 1)."""
    store = RecordStore(tmp_path_factory.mktemp("records"))
    written = make_records(m, Q, 3 * (r - 1), 4 * r if kept else None, seed=seed)
    store.write("shard", written)
    assert_same(store.read("shard", make_ids(m)), written)


def test_gradients_are_mapped_and_not_read_into_memory(tmp_path: Path) -> None:
    """What is read cannot be written to: it is the file."""
    store = RecordStore(tmp_path)
    store.write("shard", make_records())
    found = store.read("shard", make_ids(7))
    assert found is not None
    assert found.gradients is not None
    assert not found.gradients.flags.writeable
    assert not found.gradients.flags.owndata


def test_what_is_not_there_is_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And nobody is warned of it."""
    assert RecordStore(tmp_path / "records").read("shard", make_ids(7)) is None
    assert not caplog.records


@pytest.mark.parametrize("m", [6, 8], ids=["fewer", "more"])
def test_a_shard_of_other_rows_is_measured_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, m: int
) -> None:
    """Fewer of them, more, or others; one warning, and the file is gone."""
    for ids in (make_ids(m), make_ids(7, first=1)):
        caplog.clear()
        store = RecordStore(tmp_path)
        store.write("shard", make_records())
        assert store.read("shard", ids) is None
        (warning,) = caplog.messages
        assert "it holds other rows" in warning
        assert store.read("shard", ids) is None
        assert caplog.messages == [warning]


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_shard_cut_short_is_measured_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, part: float
) -> None:
    """A machine that lost power may leave one; one warning of one line."""
    store = RecordStore(tmp_path)
    store.write("shard", make_records())
    path = tmp_path / "shard.arrow"
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    assert store.read("shard", make_ids(7)) is None
    (warning,) = caplog.messages
    assert "its rows are measured anew" in warning
    assert "\n" not in warning
    assert not path.exists()


def test_no_flipped_bit_changes_a_number(tmp_path: Path) -> None:
    """The highest of any byte of the file: what is read is what was written, or nothing; also where Arrow would
    believe that an array has -2^63 numbers.
    """
    store, written = RecordStore(tmp_path), make_records(m=3, Q=2, f=3, rD=None)
    store.write("shard", written)
    path = tmp_path / "shard.arrow"
    content = path.read_bytes()
    damaged = 0
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x80]) + content[at + 1 :])
        found = store.read("shard", make_ids(3))
        if found is None:
            damaged += 1
        else:
            assert_same(found, written)
    # What is left is padding.
    assert damaged > len(content) / 3


def test_a_shard_of_several_batches_or_columns_that_do_not_belong_is_no_shard(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Arrow files that somebody else put there."""
    table = pa.table({"ids": pa.array([1, 2, 3])})
    for name, copies in (("strange", 1), ("twice", 2)):
        with ipc.new_file(tmp_path / f"{name}.arrow", table.schema) as file:
            for _ in range(copies):
                file.write_table(table)
        assert RecordStore(tmp_path).read(name, make_ids(3)) is None
    assert len(caplog.messages) == 2


def test_a_full_disk_ends_in_one_line_and_finished_shards_stay(tmp_path: Path) -> None:
    """ENOSPC, here from a device that is always full: an OperationError; what was there is whole,
    and nothing half written is left.
    """
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    store = RecordStore(tmp_path)
    store.write("first", make_records())
    (tmp_path / f"second.arrow.{os.getpid()}.part").symlink_to("/dev/full")
    with pytest.raises(OperationError, match="No space left on device") as stopped:
        store.write("second", make_records(first=7))
    assert "\n" not in str(stopped.value)
    assert re.search(r"free space there: .* the next audit goes on from it", str(stopped.value))
    assert [path.name for path in tmp_path.iterdir()] == ["first.arrow"]
    assert_same(store.read("first", make_ids(7)), make_records())


def test_a_shard_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interruption before the last byte leaves the shard of before."""
    store = RecordStore(tmp_path)
    store.write("shard", make_records())

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        store.write("shard", make_records(seed=1))
    assert [path.name for path in tmp_path.iterdir()] == ["shard.arrow"]
    assert_same(store.read("shard", make_ids(7)), make_records())


WRITE_AGAIN_AND_AGAIN = """
import pickle
import sys
from pathlib import Path
from poisonwatch.stride.records import RecordStore

records = pickle.loads(Path(sys.argv[1]).read_bytes())
for _ in range(60):
    RecordStore(Path(sys.argv[2])).write("shard", records)
"""


@slow
def test_two_processes_that_write_the_same_shard_do_not_mix_it(tmp_path: Path) -> None:
    """Whoever is last has written it, whole; a reader never sees anything between."""
    folder = tmp_path / "records"
    expected = {seed: make_records(m=200, seed=seed) for seed in (1, 2)}
    RecordStore(folder).write("shard", expected[1])
    writers = []
    for seed, records in expected.items():
        source = tmp_path / f"{seed}.pickle"
        source.write_bytes(pickle.dumps(records))
        command = [sys.executable, "-c", WRITE_AGAIN_AND_AGAIN, source, folder]
        writers.append(subprocess.Popen(command))
    reads = 0
    while reads < 20 or any(writer.poll() is None for writer in writers):
        found = RecordStore(folder).read("shard", make_ids(200))
        assert found is not None
        seed = 1 if np.array_equal(found.effects, expected[1].effects) else 2
        assert_same(found, expected[seed])
        reads += 1
    assert [writer.wait() for writer in writers] == [0, 0]
    assert [path.name for path in folder.iterdir()] == ["shard.arrow"]


def test_records_are_for_this_user_alone(tmp_path: Path) -> None:
    """They tell of the rows."""
    store = RecordStore(tmp_path / "records")
    assert store.folder == tmp_path / "records"
    assert store.folder.stat().st_mode & 0o077 == 0


def test_where_no_folder_can_be_made_records_lie_elsewhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file stands in the way: one warning, and the pass goes on."""
    (tmp_path / "file").write_text("in the way")
    store = RecordStore(tmp_path / "file" / "records")
    (warning,) = caplog.messages
    assert "an interruption loses them" in warning
    store.write("shard", make_records())
    assert_same(store.read("shard", make_ids(7)), make_records())


def test_a_folder_of_its_own_goes_with_the_store() -> None:
    """Where none is given."""
    store = RecordStore()
    folder = store.folder
    assert folder.is_dir()
    store.write("shard", make_records())
    del store
    assert not folder.exists()


@settings(max_examples=30)
@given(n=st.integers(0, 50), size=st.integers(1, 9))
def test_shards_hold_every_row_once_in_order(n: int, size: int) -> None:
    """None is larger than it may be, and all but the last are full."""
    rows = np.random.default_rng(n).permutation(n)
    shards = plan_shards(rows, size)
    assert [i for shard in shards for i in shard.tolist()] == rows.tolist()
    assert [len(shard) for shard in shards[:-1]] == [size] * (len(shards) - 1)
    assert all(1 <= len(shard) <= size for shard in shards)


def test_too_full_a_disk_is_said_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for ten records is enough for ten and not for eleven; the line says what would help."""
    records = make_records(m=4, Q=3, f=6, rD=8)
    assert records.row_bytes == 32 + 1 + 4 * (3 + 3 + 6 + 8)
    store = RecordStore(tmp_path / "records")
    usage = shutil.disk_usage(tmp_path)._replace(free=10 * records.row_bytes)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    store.require_room(10, like=records)
    store.require_room(0, like=records)
    with pytest.raises(OperationError, match="records of 11 rows take") as caught:
        store.require_room(11, like=records)
    message = str(caught.value)
    assert str(store.folder) in message
    assert "POISONWATCH_CACHE" in message
    assert "stride.memory_gb" in message
    with pytest.raises(OperationError, match=r"larger disk$"):
        store.require_room(20, like=make_records(rD=None))
