"""The driver: shards go out to an actor pool of Ray Data, a model an actor, and counts come back.

    rows, meter --> shared folder --> actors: model, rows, records --> shared folder --> reduction

Records are what the local engine writes, bit for bit, where device and threads are the same: which
rows share a batch depends on the rows alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from poisonwatch import errors
from poisonwatch.compute_config import ComputeConfig
from poisonwatch.config import ModelConfig
from poisonwatch.errors import OperationError
from poisonwatch.integrations.ray.cluster import Pool, connect, plan_pool
from poisonwatch.integrations.ray.job import PackedShard, open_job_folder, write_job
from poisonwatch.integrations.ray.worker import ShardWorker, WorkerOrders, list_versions
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.stride.streamed import ShardEngine, ShardWork
from poisonwatch.text.display import get_first_line

# Shards that wait at an actor while it measures one, so that it need not wait for the driver.
SHARDS_IN_FLIGHT = 2

KEPT = "what was measured is kept, and the next audit goes on from it"


@contextmanager
def open_ray_engine(
    compute: ComputeConfig, config: ModelConfig, model: Pretrained
) -> Iterator[ShardEngine]:
    """An engine whose workers load the `model` by its `config`; the cluster is joined, or started,
    while the block lasts.

    Raises as `connect` does. The engine raises OperationError where a worker fails, ModelError
    where one lacks the model; shards that were measured are kept.
    """
    with connect(compute):

        def measure_remotely(work: ShardWork) -> Iterator[int]:
            if work.shards:
                yield from _spread(work, compute, config, model)

        yield measure_remotely


def _spread(
    work: ShardWork, compute: ComputeConfig, config: ModelConfig, model: Pretrained
) -> Iterator[int]:
    """Let workers measure the shards; yields the rows of each shard that is done."""
    device = model.device.type
    pool = plan_pool(compute, len(work.shards), device, may_use_gpus=config.device != "cpu")
    with open_job_folder(work.store.folder) as job:
        shards = write_job(job, work)
        products = "bfloat16" if "bfloat16 products" in model.precision else "float32"
        dtype = str(model.model.dtype).removeprefix("torch.")
        told = {"device": device, "dtype": dtype, "products": products}
        # The template itself: its file may be on this machine alone.
        template = {"chat_template": model.rendering.source}
        orders = WorkerOrders(
            model=config.model_copy(update=told | template),
            fingerprint=model.fingerprint,
            reading=model.reading,
            precision=model.precision,
            layer=work.meter.model.layer,
            further=work.meter.model.further,
            max_tokens=work.meter.encoder.max_tokens,
            threads=compute.threads,
            records=work.store.folder.absolute(),
            job=job.absolute(),
            versions=list_versions(),
        )
        for report in _run(shards, orders, pool):
            if report["kind"]:
                raise _make_error(report)
            yield int(report["rows"])


def _run(shards: list[PackedShard], orders: WorkerOrders, pool: Pool) -> Iterator[dict[str, Any]]:
    """The reports of the workers, in the order in which they come."""
    import ray
    import ray.data

    items = [asdict(shard) for shard in shards]
    reports = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        ShardWorker,
        fn_constructor_args=(orders,),
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(
            size=pool.workers, max_tasks_in_flight_per_actor=SHARDS_IN_FLIGHT
        ),
        num_cpus=pool.cpus,
        num_gpus=pool.gpus,
    )
    try:
        yield from reports.iter_rows()
    except ray.exceptions.RayError as error:
        raise OperationError(
            f"Ray gave the workers up ({get_first_line(error)}): "
            f"see whether the cluster is well; {KEPT}"
        ) from error


def _make_error(report: dict[str, Any]) -> errors.PoisonwatchError:
    """What a worker raised, to be raised here; its traceback is the cause."""
    kind = getattr(errors, str(report["kind"]), OperationError)
    message = str(report["message"])
    if "is kept" not in message:
        message += f"; {KEPT}"
    error: errors.PoisonwatchError = kind(message)
    error.__cause__ = RuntimeError(str(report["trace"]))
    return error
