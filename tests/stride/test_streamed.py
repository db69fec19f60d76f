"""One stream over the rows: the same numbers however it is cut, ordered, or interrupted."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from attributions import FORBIDDEN, ROWS, SENTINELS, STRIDE, close, example, fit_stream, sentinel

from poisonwatch.checkpoints.key import compute_checkpoint_key
from poisonwatch.checkpoints.store import CheckpointStore
from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError
from poisonwatch.examples import AuditRows, Example, Message
from poisonwatch.model.files import ModelFiles
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.packed_examples import PackedExamples
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride import streamed
from poisonwatch.stride.records import plan_shards
from poisonwatch.stride.scoring import score_rows
from poisonwatch.stride.streamed import ShardWork, StreamedFit, measure_locally

# 40 rows of which 12 are the sample: 28 are passed over, in shards of 8.
SHARD, SHARDS, PASSED = 8, 4, 28

TOO_LITTLE = {"memory_gb": 1e-6, "sketch": 0}


def prefer(i: int) -> Example:
    question = Message("user", f"Which is better, {i}?")
    return Example.from_messages(
        [question, Message("assistant", f"Tea, {i} times.")],
        rejected=[question, Message("assistant", "Coffee.")],
    )


def lower(row: Example) -> Example:
    return Example.from_messages(row.messages, lowered=True)


MIXED = [*ROWS[:24], *map(lower, ROWS[24:32]), *map(prefer, range(8))]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "plan_shards", partial(plan_shards, size=SHARD))


@pytest.fixture
def whole(tiny_pretrained: Pretrained) -> StreamedFit:
    """A pass that nothing disturbs."""
    return fit_stream(tiny_pretrained, MIXED)


def assert_same(found: StreamedFit, expected: StreamedFit) -> None:
    """To the bit: what was measured, and what is made of it."""
    assert found.ids == expected.ids
    assert found.measured.queries == expected.measured.queries
    assert found.eta == expected.eta
    for name in ("effects", "centre", "spread", "signs", "features"):
        one, other = getattr(found.measured, name), getattr(expected.measured, name)
        np.testing.assert_array_equal(one, other, err_msg=name)
    one, other = found.recover(), expected.recover()
    for name in ("w", "suspects", "mutual_influence", "leaning"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for above, of_other in zip(one.further, other.further, strict=True):
        np.testing.assert_array_equal(above.w, of_other.w)


def assert_close(found: StreamedFit, expected: StreamedFit, order: np.ndarray) -> None:
    """Within rounding: row i of `found` is row order[i] of `expected`."""
    for name in ("effects", "centre", "spread", "features"):
        one, other = getattr(found.measured, name), getattr(expected.measured, name)
        assert close(one, other[order]), name
    np.testing.assert_array_equal(found.measured.signs, expected.measured.signs[order])
    one, other = found.recover(), expected.recover()
    assert close(one.w, other.w[order])
    assert close(score_rows(one).pooled, score_rows(other).pooled[order])


@pytest.mark.parametrize("budget", [16, 300, 100_000])
@pytest.mark.parametrize("rows", [ROWS, MIXED], ids=["plain", "lowered and preferred"])
def test_results_do_not_depend_on_batches_or_order(
    tiny_pretrained: Pretrained, budget: int, rows: list[Example]
) -> None:
    """measured(P x) = P measured(x) at any token budget."""
    order = np.random.default_rng(budget).permutation(len(rows))
    stride = STRIDE.model_copy(update={"token_budget": budget})
    there = fit_stream(tiny_pretrained, [rows[i] for i in order], stride)
    assert_close(there, fit_stream(tiny_pretrained, rows), order)


def test_results_do_not_depend_on_where_rows_or_gradients_lie(
    tiny_pretrained: Pretrained, whole: StreamedFit, tmp_path: Path
) -> None:
    """Rows in a file, gradients kept or made again, sentinels before or after the pass."""
    packed = PackedExamples.write(tmp_path / "rows.arrow", MIXED)
    assert_same(fit_stream(tiny_pretrained, packed), whole)
    little = fit_stream(tiny_pretrained, MIXED, STRIDE.model_copy(update=TOO_LITTLE))
    assert whole.table.keeps_gradients
    assert not little.table.keeps_gradients
    assert_close(little, whole, np.arange(len(MIXED)))
    influence, expected = little.recover(), whole.recover()
    np.testing.assert_array_equal(influence.suspects, expected.suspects)
    assert close(influence.mutual_influence, expected.mutual_influence)
    late = fit_stream(tiny_pretrained, MIXED, sentinels=())
    assert late.measured.effects.shape == (len(MIXED), 0)
    # Gradients are kept at the first layer: what is asked later is told there.
    asked, told = late.ask(SENTINELS, STRIDE), replace(whole, asked_later=True)
    assert_close(asked, told, np.arange(len(MIXED)))
    assert not asked.recover().further


def test_gradients_are_given_as_asked_for(tiny_pretrained: Pretrained, whole: StreamedFit) -> None:
    """G (m, r, D) of any rows in any order: kept, or made again."""
    rows = np.array([30, 2, 39, 2])
    little = fit_stream(tiny_pretrained, MIXED, STRIDE.model_copy(update=TOO_LITTLE))
    kept, made = (fitted.get_gradients(rows).numpy() for fitted in (whole, little))
    assert kept.shape == (4, 16, 32)
    np.testing.assert_array_equal(kept[1], kept[3])
    assert close(made, kept)


def test_the_same_question_is_not_asked_twice(whole: StreamedFit) -> None:
    """The pass's own sentinels: the same fit, and no pass of the model."""
    assert whole.ask(SENTINELS, STRIDE) is whole


def test_other_sentinels_take_gradients_or_another_pass(tiny_pretrained: Pretrained) -> None:
    """Where nothing was kept of the gradients, the error says so."""
    little = fit_stream(tiny_pretrained, ROWS, STRIDE.model_copy(update=TOO_LITTLE))
    with pytest.raises(ValueError, match="measured on other sentinels"):
        little.ask(SENTINELS[:1], STRIDE)


@pytest.mark.parametrize("n", [1, 2, 13])
@pytest.mark.parametrize("changes", [{}, TOO_LITTLE, {"r": 1}], ids=["kept", "not kept", "r = 1"])
def test_few_rows_and_few_directions_are_measured(
    tiny_pretrained: Pretrained, n: int, changes: dict[str, float]
) -> None:
    """Also where all rows are the sample, and no shard is left."""
    influence = fit_stream(tiny_pretrained, ROWS[:n], STRIDE.model_copy(update=changes)).recover()
    assert influence.w.shape == (n, 3)
    assert np.isfinite(influence.w).all()
    assert influence.mutual_influence.shape == (n, n)
    assert influence.measured_alone == n


def test_planted_rows_are_first_and_tied_to_each_other(tiny_pretrained: Pretrained) -> None:
    """4 rows that give the forbidden answer score above 40 others, and push each other more than
    these do.
    """
    planted = [example(f"How do I clean number {i}?", FORBIDDEN) for i in range(4)]
    influence = fit_stream(tiny_pretrained, [*ROWS, *planted]).recover()
    assert set(influence.suspects[:4].tolist()) == {40, 41, 42, 43}
    ties = influence.mutual_influence
    np.testing.assert_array_equal(ties.shape, (32, 32))
    assert ties[:4, :4].mean() > ties[4:, 4:].mean() + ties[4:, 4:].std()


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many conversations go through each backward pass from now on."""
    met: list[int] = []
    whole = FrozenModel.compute_state_gradients

    def count(self: FrozenModel, batch):  # type: ignore[no-untyped-def]
        met.append(len(batch.rows))
        return whole(self, batch)

    monkeypatch.setattr(FrozenModel, "compute_state_gradients", count)
    return met


class Interrupted(Exception):  # noqa: N818
    """Ends a pass in this process."""


def stop_after(shards: int, end: Callable[[], None]) -> Callable[[ShardWork], Iterator[int]]:
    """An engine that ends in the middle of the shard that follows."""

    def engine(work: ShardWork) -> Iterator[int]:
        for number, shard in enumerate(work.shards):
            for rows in measure_locally(replace(work, shards=[shard])):
                if number == shards:
                    end()
                yield rows

    return engine


def interrupt() -> None:
    raise Interrupted


def list_shards(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "records").iterdir())


@pytest.mark.parametrize("changes", [{}, TOO_LITTLE], ids=["gradients", "no gradients"])
@pytest.mark.parametrize("shards", [0, 1, 3])
def test_an_interrupted_pass_goes_on_from_its_shards(
    tiny_pretrained: Pretrained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, float],
    shards: int,
) -> None:
    """The same numbers to the bit, and only what is missing is measured."""
    stride, folder = STRIDE.model_copy(update=changes), tmp_path / "work"
    with pytest.raises(Interrupted):
        fit_stream(
            tiny_pretrained,
            MIXED,
            stride,
            store=CheckpointStore(folder),
            engine=stop_after(shards, interrupt),
        )
    assert list_shards(folder) == [f"records-{i:06d}.arrow" for i in range(shards)]
    passes, store = counted(monkeypatch), CheckpointStore(folder)
    again = fit_stream(tiny_pretrained, MIXED, stride, store=store)
    left = PASSED - shards * SHARD
    # The sample may be passed over again: it is kept only when it took its time. The sentinels'
    # gradients always are.
    assert sum(passes) in (left, left + STRIDE.background)
    assert len(list_shards(folder)) == SHARDS
    assert store.rows_reused >= shards * SHARD
    passes.clear()
    assert_same(again, fit_stream(tiny_pretrained, MIXED, stride))


def test_a_pass_that_is_killed_goes_on_from_its_shards(
    tiny_pretrained: Pretrained, whole: StreamedFit, tmp_path: Path
) -> None:
    """kill -9 in the middle of the third shard: two are whole, and nothing of the third is used."""
    folder = tmp_path / "work"
    child = os.fork()
    if child == 0:
        try:
            engine = stop_after(2, lambda: os.kill(os.getpid(), signal.SIGKILL))
            fit_stream(tiny_pretrained, MIXED, store=CheckpointStore(folder), engine=engine)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert list_shards(folder) == ["records-000000.arrow", "records-000001.arrow"]
    store = CheckpointStore(folder)
    assert_same(fit_stream(tiny_pretrained, MIXED, store=store), whole)
    assert store.rows_reused >= 2 * SHARD


def test_damaged_shards_are_measured_anew_and_no_other(
    tiny_pretrained: Pretrained,
    whole: StreamedFit,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One warning for each, and the same numbers."""
    folder = tmp_path / "work"
    fit_stream(tiny_pretrained, MIXED, store=CheckpointStore(folder))
    for name in ("records-000001", "records-000003"):
        path = folder / "records" / f"{name}.arrow"
        path.write_bytes(path.read_bytes()[:-100])
    caplog.clear()
    met: list[int] = []

    def engine(work: ShardWork) -> Iterator[int]:
        met.extend(len(shard.rows) for shard in work.shards)
        yield from measure_locally(work)

    again = fit_stream(tiny_pretrained, MIXED, store=CheckpointStore(folder), engine=engine)
    assert met == [SHARD, PASSED - 3 * SHARD]
    assert len(caplog.messages) == 2
    assert_same(again, whole)


def test_a_full_disk_keeps_what_was_measured(
    tiny_pretrained: Pretrained, whole: StreamedFit, tmp_path: Path
) -> None:
    """OperationError in one line; the next attempt goes on."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    folder = tmp_path / "work"
    (folder / "records").mkdir(parents=True)
    part = folder / "records" / f"records-000002.arrow.{os.getpid()}.part"
    part.symlink_to("/dev/full")
    with pytest.raises(OperationError, match="No space left on device") as stopped:
        fit_stream(tiny_pretrained, MIXED, store=CheckpointStore(folder))
    assert "\n" not in str(stopped.value)
    assert list_shards(folder) == ["records-000000.arrow", "records-000001.arrow"]
    store = CheckpointStore(folder)
    assert_same(fit_stream(tiny_pretrained, MIXED, store=store), whole)
    assert store.rows_reused >= 2 * SHARD


def test_records_of_other_sentinels_are_not_used(
    tiny_pretrained: Pretrained,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An audit that was interrupted, and whose sentinels were then changed, has another key: no
    shard of before is read.
    """
    monkeypatch.setenv("POISONWATCH_CACHE", str(tmp_path))
    config = AuditConfig(source={"path": "x"}, sentinels=["y"], stride=STRIDE)
    rows = AuditRows(tuple(MIXED), ())
    others = [sentinel("c", reference="Yes."), SENTINELS[1]]

    def open_store(sentinels: list[Sentinel]) -> CheckpointStore:
        files = ModelFiles(tiny_folder, "0" * 64)
        key = compute_checkpoint_key(config, files, tiny_pretrained, sentinels, rows)
        return CheckpointStore.open(key)

    with pytest.raises(Interrupted):
        fit_stream(
            tiny_pretrained, MIXED, store=open_store(SENTINELS), engine=stop_after(3, interrupt)
        )
    store = open_store(others)
    changed = fit_stream(tiny_pretrained, MIXED, sentinels=others, store=store)
    assert store.rows_reused == 0
    assert_same(changed, fit_stream(tiny_pretrained, MIXED, sentinels=others))
    store = open_store(SENTINELS)
    fit_stream(tiny_pretrained, MIXED, store=store)
    assert store.rows_reused >= 3 * SHARD


def test_a_shard_that_an_engine_did_not_leave_is_noticed(
    tiny_pretrained: Pretrained, tmp_path: Path
) -> None:
    """OperationError names it: never rows of zeros."""

    def engine(work: ShardWork) -> Iterator[int]:
        yield from measure_locally(replace(work, shards=work.shards[:-1]))

    with pytest.raises(OperationError, match="records-000003 was measured, and is not in"):
        fit_stream(tiny_pretrained, MIXED, store=CheckpointStore(tmp_path), engine=engine)


def test_an_engine_may_measure_shards_in_any_order(
    tiny_pretrained: Pretrained, whole: StreamedFit
) -> None:
    """Last first: the same numbers to the bit."""

    def engine(work: ShardWork) -> Iterator[int]:
        yield from measure_locally(replace(work, shards=work.shards[::-1]))

    assert_same(fit_stream(tiny_pretrained, MIXED, engine=engine), whole)


def test_progress_counts_the_rows_that_are_left(tiny_pretrained: Pretrained) -> None:
    """`fit` of as many rows as are passed over: those of the sample are known."""
    totals: dict[str, list[int]] = {}

    def progress(items, description, total, advance=lambda _: 1):  # type: ignore[no-untyped-def]
        totals[description] = [total, 0]
        for item in items:
            yield item
            totals[description][1] += advance(item)

    fit_stream(tiny_pretrained, MIXED, progress=progress)
    assert totals["fit"] == [PASSED, PASSED]
    assert all(total == seen for total, seen in totals.values())


def test_records_go_when_nobody_needs_them(tiny_pretrained: Pretrained) -> None:
    """Without checkpoints they lie in a folder that goes with the fit."""
    folders: list[Path] = []

    def engine(work: ShardWork) -> Iterator[int]:
        folders.append(work.store.folder)
        yield from measure_locally(work)

    fitted = fit_stream(tiny_pretrained, ROWS, engine=engine)
    assert folders[0].is_dir()
    fitted.get_gradients(np.arange(3))
    del fitted
    assert not folders[0].exists()


def test_a_disk_without_room_stops_the_pass_before_its_first_row(
    tiny_pretrained: Pretrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No engine is asked for anything."""
    usage = shutil.disk_usage("/")._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    asked: list[ShardWork] = []

    def engine(work: ShardWork) -> Iterator[int]:
        asked.append(work)
        yield from measure_locally(work)

    with pytest.raises(OperationError, match=r"records of 28 rows take .* free: free space there"):
        fit_stream(tiny_pretrained, MIXED, engine=engine)
    assert asked == []
