"""A pass that is interrupted anywhere goes on where it stopped, to the same bits."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from poisonwatch.checkpoints import passes
from poisonwatch.checkpoints.passes import PassCheckpoint
from poisonwatch.checkpoints.store import CheckpointStore
from poisonwatch.model.encoding import Encoded, make_batches

N, K, D = 24, 10, 4
DRAW = np.random.default_rng(0)
SUBSETS = np.array(
    [DRAW.choice(K, 3, replace=False) for _ in range(N)]
)  # shared, so that sums depend on the order in the last digit
ROWS = torch.from_numpy(DRAW.standard_normal((N, D)).astype(np.float32))
BUDGET = 200


class _KilledError(Exception):
    pass


@pytest.fixture(autouse=True)
def after_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard for every batch, whatever it costs."""
    monkeypatch.setattr(passes, "EVERY_S", 0.0)
    monkeypatch.setattr(passes, "SHARE", math.inf)


@pytest.fixture
def work(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "work")


class Pass:
    """Sums rows into subsets and into a total; remembers which rows it passed over."""

    def __init__(
        self, work: CheckpointStore | None, encoded: list[Encoded], stop: int | None = None
    ) -> None:
        self.sums, self.total, self.seen = torch.zeros(K, D), torch.zeros(D), np.zeros(N)
        every = np.arange(N)
        self.checkpoint = PassCheckpoint(
            work,
            "fit",
            {"sums": (self.sums, SUBSETS), "total": (self.total, None), "seen": (self.seen, every)},
        )
        self.passed: list[int] = []
        for number, batch in enumerate(
            self.checkpoint.remaining_batches(make_batches(encoded, BUDGET))
        ):
            if number == stop:
                raise _KilledError
            for subsets in torch.from_numpy(SUBSETS[batch.rows.numpy()]).unbind(dim=1):
                self.sums.index_add_(0, subsets, ROWS[batch.rows])
            self.total += ROWS[batch.rows].sum(dim=0)
            self.seen[batch.rows.numpy()] += 1
            self.passed += batch.rows.tolist()

    def __eq__(self, other: object) -> bool:
        same = (
            isinstance(other, Pass)
            and torch.equal(self.sums, other.sums)
            and torch.equal(self.total, other.total)
        )
        return same and bool((self.seen == 1).all())

    __hash__ = None  # type: ignore[assignment]


def killed(work: CheckpointStore, encoded: list[Encoded], stop: int) -> None:
    with pytest.raises(_KilledError):
        Pass(work, encoded, stop)


def test_an_interrupted_pass_goes_on_to_the_same_bits(
    tmp_path: Path, encoded: list[Encoded]
) -> None:
    """Killed in every batch; what was passed before and after are all rows, each once."""
    whole, lengths = (
        Pass(None, encoded),
        [len(batch.rows) for batch in make_batches(encoded, BUDGET)],
    )
    assert len(lengths) > 4
    for stop in range(len(lengths)):
        work = CheckpointStore(tmp_path / str(stop))
        killed(work, encoded, stop)
        resumed = Pass(work, encoded)
        assert resumed == whole
        assert len(resumed.passed) == sum(lengths[stop:])
        assert work.rows_reused == sum(lengths[:stop])


def test_a_pass_that_is_done_is_not_passed_again(
    work: CheckpointStore, encoded: list[Encoded]
) -> None:
    """Its last shard reaches to the end."""
    whole = Pass(work, encoded)
    again = Pass(work, encoded)
    assert again == whole
    assert again.passed == []


def test_a_pass_interrupted_often_goes_on_each_time(
    work: CheckpointStore, encoded: list[Encoded]
) -> None:
    """Killed after one batch more, again and again."""
    count = len(list(make_batches(encoded, BUDGET)))
    for _ in range(count - 1):
        killed(work, encoded, 1)
    last = Pass(work, encoded)
    assert last == Pass(None, encoded)
    assert len(last.passed) == len(list(make_batches(encoded, BUDGET))[-1].rows)


def test_shards_that_have_grown_too_large_are_written_anew(
    work: CheckpointStore, encoded: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for nothing but the arrays themselves there is one file at a time, and it serves as
    well.
    """
    monkeypatch.setattr(passes, "REWRITE", 0)
    killed(work, encoded, 4)
    assert work.list_names("fit-") == ["fit-000003"]
    assert Pass(work, encoded) == Pass(None, encoded)


def test_shards_together_stay_within_what_they_may_come_to(
    tmp_path: Path, encoded: list[Encoded]
) -> None:
    """At most REWRITE times the arrays, and once more for the one that replaces the others."""
    Pass(work := CheckpointStore(tmp_path), encoded)
    arrays = 4 * K * D + 4 * D + 8 * N
    kept = [work.read(name) for name in work.list_names("fit-")]
    size = sum(
        t.nbytes
        for found in kept
        if found is not None
        for name, t in found[0].items()
        if not name.endswith(".at")
    )
    assert 0 < size <= (passes.REWRITE + 1) * arrays


def test_a_pass_goes_on_from_before_a_damaged_shard(
    work: CheckpointStore, encoded: list[Encoded], caplog: pytest.LogCaptureFixture
) -> None:
    """Those after it are of no use without it."""
    killed(work, encoded, 3)
    _, second, _ = (work.folder / f"{name}.safetensors" for name in work.list_names("fit-"))  # type: ignore[operator]
    second.write_bytes(second.read_bytes()[:-1])
    resumed = Pass(work, encoded)
    assert resumed == Pass(None, encoded)
    assert len(resumed.passed) == N - len(next(make_batches(encoded, BUDGET)).rows)
    assert "fit-000001.safetensors is damaged" in caplog.text


def test_a_damaged_beginning_does_not_stay_in_the_way(
    work: CheckpointStore, encoded: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept after it is found again: the damaged file is gone."""
    monkeypatch.setattr(passes, "REWRITE", 0)
    killed(work, encoded, 3)
    monkeypatch.setattr(passes, "REWRITE", 100)
    (name,) = work.list_names("fit-")
    path = work.folder / f"{name}.safetensors"  # type: ignore[operator]
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    killed(work, encoded, 2)
    resumed = Pass(work, encoded)
    assert resumed == Pass(None, encoded)
    assert work.rows_reused == sum(
        len(batch.rows) for batch in list(make_batches(encoded, BUDGET))[:2]
    )


def test_shards_of_two_processes_are_not_taken_for_one_pass(
    tmp_path: Path, encoded: list[Encoded]
) -> None:
    """The second has written over the first shard of the first: the others do not follow from it."""
    one, other = CheckpointStore(tmp_path / "one"), CheckpointStore(tmp_path / "other")
    killed(one, encoded, 3)
    killed(other, encoded, 1)
    (tmp_path / "other" / "fit-000000.safetensors").rename(
        tmp_path / "one" / "fit-000000.safetensors"
    )
    resumed = Pass(one, encoded)
    assert resumed == Pass(None, encoded)
    assert len(resumed.passed) == N - len(next(make_batches(encoded, BUDGET)).rows)


def test_a_shard_of_other_arrays_is_left_out(work: CheckpointStore, encoded: list[Encoded]) -> None:
    """Places beyond the arrays, and arrays of another shape or type."""
    killed(work, encoded, 1)
    tensors, facts = work.read("fit-000000") or ({}, {})
    facts.pop("checksum", None)
    wrong = [
        {"sums.at": tensors["sums.at"] + K},
        {"sums.at": tensors["sums.at"].float()},
        {"sums": tensors["sums"].double()},
        {"total": torch.zeros(D + 1)},
    ]
    for change in wrong:
        assert work.write("fit-000000", {**tensors, **change}, facts)
        assert len(Pass(work, encoded).passed) == N
        work.delete(*work.list_names("fit-"))


def test_where_the_disk_is_full_nothing_is_kept(
    work: CheckpointStore, encoded: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pass costs what it costs without."""
    monkeypatch.setattr(passes, "ROOM", 10**15)
    assert Pass(work, encoded) == Pass(None, encoded)
    assert work.list_names("fit-") == []


def test_shards_are_written_as_rarely_as_they_may(
    work: CheckpointStore, encoded: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour apart: the pass is over before; a share of nothing: one, then never again before the
    end.
    """
    monkeypatch.setattr(passes, "EVERY_S", 3600.0)
    Pass(work, encoded)
    assert work.list_names("fit-") == ["fit-000000"]
    work.clear()
    monkeypatch.setattr(passes, "EVERY_S", 0.0)
    monkeypatch.setattr(passes, "SHARE", 1e-12)
    monkeypatch.setattr(passes, "REWRITE", 100)
    Pass(work, encoded)
    assert work.list_names("fit-") == ["fit-000000", "fit-000001"]
