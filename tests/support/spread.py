"""A pass over rows that is left to measure, for engines that spread it."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from attributions import SENTINELS, STRIDE, benign, example

from poisonwatch.config import ModelConfig, StrideConfig
from poisonwatch.examples import Example
from poisonwatch.model.pretrained import Pretrained, load_pretrained
from poisonwatch.stride.attribution import fit
from poisonwatch.stride.records import RecordStore
from poisonwatch.stride.streamed import Shard, ShardWork

# As a loaded model has them: some preferred, some lowered, some long.
ROWS = benign(240)
SHARD_ROWS = 16


def load_tiny(folder: Path) -> tuple[ModelConfig, Pretrained]:
    """The tiny model, as an audit loads it."""
    config = ModelConfig(name=str(folder))
    return config, load_pretrained(config)


class _StopError(Exception):
    """Work was seen."""


def capture_work(
    model: Pretrained,
    records: Path,
    stride: StrideConfig = STRIDE,
    rows: list[Example] = ROWS,
) -> ShardWork:
    """The work of a pass over these rows, in small shards, with its records below a folder."""
    seen: list[ShardWork] = []

    def keep(work: ShardWork) -> Iterator[int]:
        seen.append(work)
        raise _StopError
        yield

    with suppress(_StopError):
        fit(model, rows, stride, sentinels=SENTINELS, engine=keep)
    (work,) = seen
    return split_work(work, records)


def split_work(work: ShardWork, records: Path) -> ShardWork:
    """The same rows in shards of SHARD_ROWS, and records in another folder."""
    rows = np.concatenate([shard.rows for shard in work.shards])
    shards = []
    for number, start in enumerate(range(0, len(rows), SHARD_ROWS)):
        shards.append(Shard(f"records-{number:06d}", rows[start : start + SHARD_ROWS]))
    return replace(work, shards=shards, store=RecordStore(records))


def read_files(folder: Path) -> dict[str, bytes]:
    """What lies in a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def check_out_of_memory(model: str, folder: str) -> None:
    """Print how many rows a worker measures whose process may take little more memory than it has,
    of how many, and what it says of them.
    """
    import resource

    import psutil

    from poisonwatch.integrations.ray.job import write_job
    from poisonwatch.integrations.ray.worker import ShardWorker, WorkerOrders, list_versions

    config, loaded = load_tiny(Path(model))
    # One batch of all rows, each as long as may be: a gigabyte of attention.
    long = [example(f"Question {i}? " + "why " * 120, "Because. " * 50) for i in range(140)]
    work = capture_work(
        loaded, Path(folder) / "records", StrideConfig(r=16, background=8, token_budget=600), long
    )
    whole = Shard("records-000000", np.concatenate([shard.rows for shard in work.shards]))
    work = replace(work, shards=[whole], meter=replace(work.meter, token_budget=10**6))
    job = Path(folder) / "job"
    job.mkdir()
    shards = write_job(job, work)
    orders = WorkerOrders(
        model=config,
        fingerprint=loaded.fingerprint,
        reading=loaded.reading,
        precision=loaded.precision,
        layer=work.meter.model.layer,
        further=work.meter.model.further,
        max_tokens=work.meter.encoder.max_tokens,
        threads=1,
        records=work.store.folder,
        job=job,
        versions=list_versions(),
    )
    most = psutil.Process().memory_info().vms + 200 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    report = ShardWorker(orders).report_on(shards[0])
    print(report.rows, "of", len(whole.rows), report.message)
