"""Shards measured by Ray workers are the local engine's, byte for byte, whatever befalls them.

One Ray for all tests: to start it takes ten seconds and more.
"""

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from audits import write_audit
from slow_tests import slow
from spread import capture_work, load_tiny, read_files, split_work

from poisonwatch.compute_config import ComputeConfig
from poisonwatch.config import ModelConfig
from poisonwatch.config_file import load_config
from poisonwatch.errors import ConfigError, ModelError, OperationError
from poisonwatch.flows.audit import audit_inline
from poisonwatch.integrations.ray.cluster import connect, plan_pool
from poisonwatch.integrations.ray.engine import open_ray_engine
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.stride.streamed import ShardWork, measure_locally

# a Ray, for each of them
pytestmark = pytest.mark.starts

TWO = ComputeConfig(engine="ray", workers=2, threads=1)


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> tuple[ModelConfig, Pretrained]:
    return load_tiny(tiny_folder)


@pytest.fixture(scope="module")
def local(
    tiny: tuple[ModelConfig, Pretrained], tmp_path_factory: pytest.TempPathFactory
) -> ShardWork:
    """A pass that this process has measured."""
    work = capture_work(tiny[1], tmp_path_factory.mktemp("local"))
    for _ in measure_locally(work):
        pass
    return work


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """A Ray of two workers' cores, of this machine alone; nothing of it stays."""
    before = signal.getsignal(signal.SIGTERM)
    with connect(TWO):
        assert signal.getsignal(signal.SIGTERM) is before
        yield
    assert not find_workers()


def find_workers() -> list[psutil.Process]:
    """The actors of this process's Ray."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "ShardWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def measure(
    work: ShardWork, tiny: tuple[ModelConfig, Pretrained], compute: ComputeConfig = TWO
) -> Iterator[int]:
    config, model = tiny
    with open_ray_engine(compute, config, model) as engine:
        yield from engine(work)


@slow
def test_two_workers_leave_what_the_local_engine_leaves(
    tiny: tuple[ModelConfig, Pretrained],
    local: ShardWork,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Every shard is the same file, each is counted once, and nobody hears of Ray."""
    work = split_work(local, tmp_path / "records")
    workers = set()
    done = []
    for rows in measure(work, tiny):
        done.append(rows)
        workers |= {process.pid for process in find_workers()}
    assert len(workers) == 2
    assert sorted(done) == sorted(len(shard.rows) for shard in work.shards)
    assert read_files(work.store.folder) == read_files(local.store.folder)
    assert capfd.readouterr() == ("", "")


@slow
def test_a_worker_that_is_killed_is_replaced(
    tiny: tuple[ModelConfig, Pretrained], local: ShardWork, tmp_path: Path
) -> None:
    """kill -9 in mid-run: nothing is lost, and nothing counted twice."""
    work = split_work(local, tmp_path / "records")
    done = []
    for rows in measure(work, tiny, ComputeConfig(engine="ray", workers=1)):
        if not done:
            (worker,) = find_workers()
            os.kill(worker.pid, signal.SIGKILL)
        done.append(rows)
    assert sum(done) == sum(len(shard.rows) for shard in work.shards)
    whole = {
        name: held for name, held in read_files(work.store.folder).items() if ".part" not in name
    }
    assert whole == read_files(local.store.folder)


@slow
def test_a_failure_keeps_what_was_measured(
    tiny: tuple[ModelConfig, Pretrained], local: ShardWork, tmp_path: Path
) -> None:
    """Records that cannot be written at one shard: one error, the workers end, and the next pass
    measures what is left.
    """
    work = split_work(local, tmp_path / "records")
    hindered = work.shards[8].name
    place = work.store.folder / f"{hindered}.arrow"
    place.mkdir()
    with pytest.raises(OperationError, match=rf"a worker on .*{hindered}.*the next audit goes on"):
        list(measure(work, tiny))
    assert not list(work.store.folder.glob("spread-*"))
    place.rmdir()
    kept = read_files(work.store.folder)
    assert 0 < len(kept) < len(work.shards)
    left = [shard for shard in work.shards if f"{shard.name}.arrow" not in kept]
    list(measure(replace(work, shards=left), tiny))
    assert read_files(work.store.folder) == read_files(local.store.folder)


@slow
def test_a_worker_without_the_model_says_so(
    tiny: tuple[ModelConfig, Pretrained], local: ShardWork, tmp_path: Path
) -> None:
    """The folder is not on its machine, here since it is gone."""
    config, model = tiny
    away = tmp_path / "model"
    shutil.copytree(config.name, away)
    gone = config.model_copy(update={"name": str(away)})
    shutil.rmtree(away)
    work = split_work(local, tmp_path / "records")
    with pytest.raises(ModelError, match=r"a worker on .* is without the model: .*does not exist"):
        list(measure(work, (gone, model)))


def test_an_audit_on_ray_finds_what_one_in_this_process_finds(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same flags; of the folder that machines share nothing is left."""
    monkeypatch.setenv("POISONWATCH_CACHE", str(tmp_path / "cache"))
    outcomes = []
    for name, compute in {
        "here": "local",
        "there": {"engine": "ray", "workers": 2, "folder": "shared"},
    }.items():
        path = write_audit(
            tmp_path / name, tiny_folder, compute=compute, detection={"false_discovery_rate": 0.9}
        )
        outcomes.append(audit_inline(load_config(path), tmp_path / name / "run"))
    here, there = outcomes
    assert here.flags == there.flags
    assert here.flags
    assert not list((tmp_path / "there" / "shared" / "poisonwatch-work").iterdir())


def test_settings_that_ray_cannot_spread_are_refused(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Subsets that rows share are solved for in one process."""
    monkeypatch.setenv("POISONWATCH_CACHE", str(tmp_path / "cache"))
    path = write_audit(tmp_path, tiny_folder, compute="ray", stride={"K": 20})
    with pytest.raises(ConfigError, match="compute: ray spreads rows that are measured alone"):
        audit_inline(load_config(path), tmp_path / "run")


def test_there_are_as_many_workers_as_cores_and_shards() -> None:
    """One for every `threads` cores; never more than shards."""
    assert plan_pool(ComputeConfig(engine="ray"), 9, "cpu", True).workers == 2
    assert plan_pool(ComputeConfig(engine="ray", threads=2), 9, "cpu", True).workers == 1
    assert plan_pool(ComputeConfig(engine="ray"), 1, "cpu", True).workers == 1
    with pytest.raises(OperationError, match=r"2 CPUs, fewer than compute.threads, 3"):
        plan_pool(ComputeConfig(engine="ray", threads=3), 9, "cpu", True)
    with pytest.raises(OperationError, match="has none to give"):
        plan_pool(ComputeConfig(engine="ray"), 9, "cuda", True)
