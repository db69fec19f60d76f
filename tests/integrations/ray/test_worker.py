"""A worker without Ray: what it reports of a shard, and of whatever keeps it from one."""

import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from attributions import benign
from faulty_models import UNANSWERED
from patience import PATIENCE_S
from slow_tests import slow
from spread import capture_work, load_tiny, read_files, split_work

from poisonwatch.config import ModelConfig
from poisonwatch.integrations.ray.job import METER, ROWS, PackedShard, write_job
from poisonwatch.integrations.ray.worker import (
    MOST_TRIES,
    ShardWorker,
    WorkerOrders,
    list_versions,
)
from poisonwatch.model.fault import Fault
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.stride.streamed import ShardWork, measure_locally


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> tuple[ModelConfig, Pretrained]:
    return load_tiny(tiny_folder)


@pytest.fixture(scope="module")
def captured(
    tiny: tuple[ModelConfig, Pretrained], tmp_path_factory: pytest.TempPathFactory
) -> ShardWork:
    rows = [*benign(240), UNANSWERED]
    return capture_work(tiny[1], tmp_path_factory.mktemp("captured"), rows=rows)


@pytest.fixture
def work(captured: ShardWork, tmp_path: Path) -> ShardWork:
    """The same rows, and records in a folder of the test's own."""
    return split_work(captured, tmp_path / "records")


@pytest.fixture
def job(work: ShardWork, tmp_path: Path) -> list[PackedShard]:
    """What the driver leaves for its workers."""
    (tmp_path / "job").mkdir()
    return write_job(tmp_path / "job", work)


@pytest.fixture
def orders(tiny: tuple[ModelConfig, Pretrained], work: ShardWork, tmp_path: Path) -> WorkerOrders:
    config, model = tiny
    return WorkerOrders(
        model=config,
        fingerprint=model.fingerprint,
        reading=model.reading,
        precision=model.precision,
        layer=work.meter.model.layer,
        further=work.meter.model.further,
        max_tokens=work.meter.encoder.max_tokens,
        threads=1,
        records=work.store.folder,
        job=tmp_path / "job",
        versions=list_versions(),
    )


def test_a_worker_leaves_what_the_local_engine_leaves(
    captured: ShardWork,
    work: ShardWork,
    job: list[PackedShard],
    orders: WorkerOrders,
    tmp_path: Path,
) -> None:
    """Byte for byte, a row that cannot be measured among them; it reports counts alone."""
    here = split_work(captured, tmp_path / "here")
    assert sum(measure_locally(here)) == sum(len(shard.rows) for shard in here.shards)
    worker = ShardWorker(orders)
    for shard in job:
        batch = {name: np.array([value]) for name, value in asdict(shard).items()}
        report = worker(batch)
        assert report == {
            "rows": [shard.stop - shard.start],
            "kind": [""],
            "message": [""],
            "trace": [""],
        }
    assert read_files(orders.records) == read_files(here.store.folder)
    faults = []
    for shard in here.shards:
        records = here.store.read(shard.name, [row.id for row in here.get_rows(shard)])
        assert records is not None
        faults += records.faults.tolist()
    assert sorted(faults)[-2:] == [Fault.NONE, Fault.NO_ANSWER]
    assert {path.name for path in orders.job.iterdir()} == {ROWS, f"{METER}.safetensors"}


def test_a_shard_that_is_there_is_not_measured_again(
    job: list[PackedShard], orders: WorkerOrders
) -> None:
    """It was written by a worker that died before it could say so; one that is damaged is."""
    ShardWorker(orders).measure(job[0])
    path = orders.records / f"{job[0].name}.arrow"
    written = path.stat().st_ino
    again = ShardWorker(orders)
    assert again.report_on(job[0]).rows == 16
    assert path.stat().st_ino == written
    held = path.read_bytes()
    path.write_bytes(held[:-100])
    assert again.report_on(job[0]).rows == 16
    assert path.read_bytes() == held


def test_a_disk_that_fills_is_said(job: list[PackedShard], orders: WorkerOrders) -> None:
    """Here a device that is always full; other shards are measured."""
    worker = ShardWorker(orders)
    part = orders.records / f"{job[1].name}.arrow.{os.getpid()}.part"
    part.symlink_to("/dev/full")
    report = worker.report_on(job[1])
    assert (report.rows, report.kind) == (0, "OperationError")
    assert "No space left on device; free space there" in report.message
    assert worker.report_on(job[2]).rows == 16


@pytest.mark.parametrize("damage", ["missing", "cut", "changed", "garbled"])
def test_rows_that_cannot_be_read_are_said(
    damage: str, job: list[PackedShard], orders: WorkerOrders
) -> None:
    """One line that names shard and file, whatever is wrong with it."""
    path = orders.job / ROWS
    held = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(held[: len(held) // 2])
    elif damage == "changed":
        path.write_bytes(held.replace(b"Question", b"Questien"))
    else:
        path.write_bytes(held.replace(b"Question", b"\xff\xff\xff\xff\xff\xff\xff\xff"))
    report = ShardWorker(orders).report_on(job[0])
    assert (report.rows, report.kind) == (0, "OperationError")
    assert f"the rows of {job[0].name} cannot be read from {path}" in report.message
    assert "\n" not in report.message
    assert not list(orders.records.iterdir())


def test_a_meter_that_cannot_be_read_is_said(job: list[PackedShard], orders: WorkerOrders) -> None:
    """Nothing is measured with what is damaged."""
    path = orders.job / f"{METER}.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    report = ShardWorker(orders).report_on(job[0])
    assert report.kind == "OperationError"
    assert "what rows are measured with cannot be read" in report.message


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"fingerprint": "1" * 64}, "ModelError", "is another model there"),
        ({"reading": "1" * 64}, "ModelError", "another tokenizer or chat template there"),
        ({"precision": "torch.bfloat16"}, "OperationError", "and the audit in torch.bfloat16"),
        ({"versions": ("poisonwatch 9",)}, "OperationError", "install the same on all machines"),
        ({"job": Path("/nowhere")}, "OperationError", "storage that all machines share"),
        ({"model": ModelConfig(name="/nowhere")}, "ModelError", "/nowhere does not exist"),
    ],
)
def test_a_worker_that_is_not_like_its_driver_says_so(
    change: dict[str, object], kind: str, said: str, job: list[PackedShard], orders: WorkerOrders
) -> None:
    """Model, precision, software, folder: nothing is measured."""
    report = ShardWorker(replace(orders, **change)).report_on(job[0])  # type: ignore[arg-type]
    assert (report.rows, report.kind) == (0, kind)
    assert said in report.message
    assert report.message.startswith("a worker on ")


def test_a_shard_that_kills_workers_is_given_up(
    job: list[PackedShard], orders: WorkerOrders
) -> None:
    """Ray would begin it again and again."""
    (orders.job / f"{job[0].name}.tries").write_bytes(b"." * MOST_TRIES)
    report = ShardWorker(orders).report_on(job[0])
    assert f"workers died {MOST_TRIES} times at {job[0].name}" in report.message
    assert ShardWorker(orders).report_on(job[1]).rows == 16


def test_a_worker_out_of_memory_says_so(
    job: list[PackedShard], orders: WorkerOrders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line with what to change, whoever ran out of it."""

    def run_out(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ShardWorker, "measure", run_out)
    report = ShardWorker(orders).report_on(job[0])
    assert report.kind == "OperationError"
    assert f"it is out of memory at {job[0].name}: give workers more" in report.message


@slow
def test_a_worker_short_of_memory_goes_on_in_smaller_batches(
    tiny: tuple[ModelConfig, Pretrained], tmp_path: Path
) -> None:
    """A process that may have little more than it has, and a batch of all rows: all are measured."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2] / "support")!r})
from spread import check_out_of_memory
check_out_of_memory({tiny[0].name!r}, {str(tmp_path)!r})
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["132", "of", "132"], done.stdout
