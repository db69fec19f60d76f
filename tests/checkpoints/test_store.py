"""What an audit has come to is kept, reused and cleared away, and a file can do no harm."""

import os
import pickle
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from poisonwatch.checkpoints import store as module
from poisonwatch.checkpoints.store import MOST_STORES, CheckpointStore
from poisonwatch.sentinels.sentinel import SentinelProblem
from poisonwatch.stride.operators import Basis

PROBLEMS = [SentinelProblem("a", "says nothing")]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("POISONWATCH_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def work(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "work" / "key")


class Making:
    """Makes a value, and counts how often."""

    def __init__(self, value: Any = PROBLEMS) -> None:
        self.value, self.times = value, 0

    def __call__(self) -> Any:
        self.times += 1
        return self.value


def test_what_is_kept_is_not_made_again(work: CheckpointStore, tmp_path: Path) -> None:
    """Not by another process either; under another name it is."""
    make = Making()
    for again in (work, CheckpointStore(tmp_path / "work" / "key")):
        assert again.get_or_compute("problems", list[SentinelProblem], make) == PROBLEMS
    assert make.times == 1
    work.get_or_compute("others", list[SentinelProblem], make)
    assert make.times == 2


def test_what_is_not_worth_keeping_is_made_again(work: CheckpointStore) -> None:
    """It is asked once the value is there."""
    make = Making()
    for worth in (False, True, True):
        work.get_or_compute(
            "problems", list[SentinelProblem], make, lambda worth=worth: worth and make.times > 1
        )
    assert make.times == 2


def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    """Every value is made."""
    make = Making()
    for _ in range(2):
        assert CheckpointStore().get_or_compute("problems", list[SentinelProblem], make) == PROBLEMS
    assert make.times == 2
    assert list(tmp_path.iterdir()) == []


def test_tensors_are_kept_to_the_bit(work: CheckpointStore) -> None:
    """Float32, on their device."""
    basis = Basis(torch.randn(7, 3, generator=torch.manual_seed(0)) / 3)
    work.get_or_compute("basis", Basis, lambda: basis)
    assert torch.equal(work.get_or_compute("basis", Basis, Making()).directions, basis.directions)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(bytes(content))


def _zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [_cut, _flip, _zero, _empty])
def test_a_damaged_file_is_made_anew(
    work: CheckpointStore, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Cut short, one bit flipped, zeros, nothing: said, made, and kept again."""
    basis, make = Basis(torch.ones(7, 3)), Making(Basis(torch.ones(7, 3)))
    work.get_or_compute("basis", Basis, lambda: basis)
    damage(work.folder / "basis.safetensors")  # type: ignore[operator]
    assert torch.equal(work.get_or_compute("basis", Basis, make).directions, basis.directions)
    assert "basis.safetensors is damaged" in caplog.text
    work.get_or_compute("basis", Basis, make)
    assert make.times == 1


class _Exploit:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def test_nothing_in_a_file_is_ever_run(work: CheckpointStore, tmp_path: Path) -> None:
    """A pickle that would make a file, as such and as PyTorch packs it, in the place of what was
    kept.
    """
    make, marker = Making(), tmp_path / "executed"
    work.get_or_compute("problems", list[SentinelProblem], lambda: PROBLEMS)
    path = tmp_path / "work" / "key" / "problems.safetensors"
    path.write_bytes(pickle.dumps(_Exploit(marker)))
    assert work.get_or_compute("problems", list[SentinelProblem], make) == PROBLEMS
    torch.save(_Exploit(marker), path)
    assert work.get_or_compute("problems", list[SentinelProblem], make) == PROBLEMS
    assert make.times == 2
    assert not marker.exists()


def test_a_file_of_another_kind_is_made_anew(work: CheckpointStore) -> None:
    """Well kept, but not what is asked for."""
    make = Making()
    work.get_or_compute("problems", Basis, lambda: Basis(torch.ones(2, 1)))
    assert work.get_or_compute("problems", list[SentinelProblem], make) == PROBLEMS
    assert make.times == 1


def test_a_disk_that_cannot_be_written_costs_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file stands where the folder should be; it is said once."""
    (tmp_path / "taken").write_text("in the way")
    work, make = CheckpointStore(tmp_path / "taken" / "key"), Making()
    for _ in range(3):
        assert work.get_or_compute("problems", list[SentinelProblem], make) == PROBLEMS
    assert caplog.text.count("work cannot be kept") == 1


def test_a_disk_without_room_is_left_alone(
    work: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice a file's size must be free; here, much more."""
    monkeypatch.setattr(module, "FREE_SPACE_FACTOR", 10**15)
    work.get_or_compute("basis", Basis, lambda: Basis(torch.ones(7, 3)))
    assert not work.folder.exists()  # type: ignore[union-attr]


def test_forgotten_work_is_gone(work: CheckpointStore) -> None:
    """The folder with it; there is nothing to forget where nothing was kept."""
    work.get_or_compute("problems", list[SentinelProblem], Making())
    work.clear()
    assert not work.folder.exists()  # type: ignore[union-attr]
    work.clear()
    CheckpointStore().clear()


def test_work_that_nobody_takes_up_is_cleared_away(cache: Path) -> None:
    """After a week, and where too many audits have left some: the oldest first. One's own stays,
    however old.
    """
    old, own = cache / "work" / "old", cache / "work" / "own"
    for place, path in enumerate(
        [own, old, *(cache / "work" / str(i) for i in range(MOST_STORES))]
    ):
        path.mkdir(parents=True)
        age = (8 * 24 * 3600.0) if place < 2 else 3600.0 * place
        os.utime(path, (time.time() - age,) * 2)
    CheckpointStore.open("own")
    assert {path.name for path in (cache / "work").iterdir()} == {
        "own",
        *map(str, range(MOST_STORES - 1)),
    }


def test_what_an_audit_may_be_at_work_with_is_left_however_many_there_are(cache: Path) -> None:
    """By what was written last, of results or records."""
    names = [str(i) for i in range(2 * MOST_STORES)]
    for name in names:
        (cache / "work" / name / "records").mkdir(parents=True)
        os.utime(cache / "work" / name, (time.time() - 24 * 3600.0,) * 2)
    CheckpointStore.open("own")
    assert {path.name for path in (cache / "work").iterdir()} == set(names)


def test_it_is_said_what_was_taken(tmp_path: Path) -> None:
    """All of a stage, or some rows of it; nothing where nothing was."""
    said: list[str] = []
    for _ in range(2):
        CheckpointStore(tmp_path, said.append).get_or_compute_stage(
            "check", list[SentinelProblem], Making()
        )
    assert said == ["check: taken from an interrupted attempt"]
    work = CheckpointStore(tmp_path, said.append)
    work.rows_reused, work.newly_computed = 256, 3
    work.report_reuse("fit")
    work.report_reuse("next")
    assert said[1:] == ["fit: gone on with after 256 rows of an interrupted attempt"]
