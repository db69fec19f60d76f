"""A worker: a model, and one shard after another, measured by the code of the local engine.

Nothing here knows of Ray: a worker in this process does the same. Only names, counts and errors go
through Ray's object store; rows are read from a file, records written to files.
"""

import platform
import socket
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from numpy.typing import NDArray

from poisonwatch import __version__
from poisonwatch.config import ModelConfig
from poisonwatch.errors import ModelError, OperationError, PoisonwatchError
from poisonwatch.integrations.ray.job import (
    MeterParts,
    PackedShard,
    build_meter,
    read_meter,
    read_rows,
)
from poisonwatch.model.files import find_model_files
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.pretrained import load_pretrained
from poisonwatch.stride.records import RecordStore
from poisonwatch.stride.row_pass import RowMeter
from poisonwatch.stride.streamed import Shard, ShardWork, measure_one_shard
from poisonwatch.text.display import get_first_line

# Ray replaces a worker that was killed, without end, and its shard is begun again: one that dies so
# often has too little memory, or meets a row that ends it.
MOST_TRIES = 4

# What torch says of memory on the CPU, as a plain RuntimeError.
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOrders:
    """What a worker is told by its driver: the `model` to load, whose `fingerprint`, `reading` and
    `precision` must be the driver's, its splits at `layer` and the layers `further`, and the
    folders of `records` and of the `job`.
    """

    model: ModelConfig
    fingerprint: str
    reading: str
    precision: str
    layer: int
    further: tuple[int, ...]
    max_tokens: int
    threads: int
    records: Path
    job: Path
    versions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShardReport:
    """What became of a shard: how many `rows` were measured, or an error's `kind` (its class),
    its `message` and where it was raised.
    """

    rows: int
    kind: str = ""
    message: str = ""
    trace: str = ""


def list_versions() -> tuple[str, ...]:
    """What records depend on beside the model: versions that driver and workers must share."""
    return (
        f"poisonwatch {__version__}",
        f"Python {platform.python_version()}",
        f"tokenizers {tokenizers.__version__}",
        f"torch {torch.__version__}",
        f"transformers {transformers.__version__}",
    )


class ShardWorker:
    """Measures shards by its `orders`; loads the model with the first."""

    def __init__(self, orders: WorkerOrders) -> None:
        self.orders = orders
        self._meter: RowMeter | None = None

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, list[Any]]:
        """Measure the one shard of a batch, its fields as columns; its report, as columns too."""
        fields = {name: column[0] for name, column in batch.items()}
        shard = PackedShard(
            str(fields["name"]), int(fields["start"]), int(fields["stop"]), int(fields["digest"])
        )
        report = self.report_on(shard)
        return {
            "rows": [report.rows],
            "kind": [report.kind],
            "message": [report.message],
            "trace": [report.trace],
        }

    def report_on(self, shard: PackedShard) -> ShardReport:
        """Measure a shard; an error is part of the report, for Ray would measure it again."""
        try:
            return ShardReport(self.measure(shard))
        except Exception as error:  # whatever it is, the driver says it
            kind, message = _describe(error, shard)
            where = f"a worker on {socket.gethostname()}"
            return ShardReport(0, kind, f"{where}: {message}", traceback.format_exc())

    def measure(self, shard: PackedShard) -> int:
        """Measure a shard, and keep its records: how many. One that is there already is not
        measured again.

        Raises ModelError where the driver's model is not here, OperationError where rows cannot be
        read or records not be written.
        """
        orders = self.orders
        if not orders.job.is_dir():
            raise OperationError(
                f"it does not see the folder {orders.records}: "
                "compute.folder must be on storage that all machines share"
            )
        rows = read_rows(orders.job, shard)
        store = RecordStore(orders.records)
        # A worker that was killed may have come as far as this.
        if store.read(shard.name, [row.id for row in rows]) is None:
            tries = _count_tries(orders.job, shard)
            if self._meter is None:
                self._meter = load_meter(orders)
            own = Shard(shard.name, np.arange(len(rows)))
            work = ShardWork(shards=[own], rows=rows, meter=self._meter, store=store)
            for _ in measure_one_shard(work, own):
                pass
            tries.unlink(missing_ok=True)
        return len(rows)


def _count_tries(job: Path, shard: PackedShard) -> Path:
    """The file whose length counts how often the shard was begun, this time included. Raises
    OperationError where it was too often.
    """
    path = job / f"{shard.name}.tries"
    with path.open("ab") as file:
        file.write(b".")
    if path.stat().st_size > MOST_TRIES:
        raise OperationError(
            f"workers died {MOST_TRIES} times at {shard.name}: give them more memory, or fewer of "
            "them a machine (compute.workers), or lower stride.token_budget"
        )
    return path


def load_meter(orders: WorkerOrders) -> RowMeter:
    """The model of the orders, and what it measures with. Raises ModelError where it is not here,
    OperationError where the software is other than the driver's.
    """
    if list_versions() != orders.versions:
        others = sorted(set(list_versions()) - set(orders.versions))
        raise OperationError(
            f"it has {', '.join(others)}, and the audit {', '.join(orders.versions)}: "
            "install the same on all machines"
        )
    try:
        files = find_model_files(orders.model)
        if files.fingerprint != orders.fingerprint:
            raise ModelError(f"{orders.model.name} is another model there")
        if files.reading != orders.reading:
            raise ModelError(f"{orders.model.name} has another tokenizer or chat template there")
        pretrained = load_pretrained(orders.model, files)
    except PoisonwatchError as error:
        raise ModelError(f"it is without the model: {error}") from error
    if pretrained.precision != orders.precision:
        raise OperationError(
            f"it computes in {pretrained.precision}, and the audit in {orders.precision}: "
            "set model.dtype and model.products to what all machines can do"
        )
    torch.set_num_threads(orders.threads)
    parts: MeterParts = read_meter(orders.job, pretrained.device)
    encoder = pretrained.make_encoder(orders.max_tokens)
    model = FrozenModel(pretrained.model, orders.layer, orders.further)
    return build_meter(parts, model, encoder)


def _describe(error: Exception, shard: PackedShard) -> tuple[str, str]:
    """Class and message of the error that the driver is to raise."""
    if isinstance(error, PoisonwatchError):
        return type(error).__name__, str(error)
    said = get_first_line(error)
    short = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    if short or any(text in said for text in OUT_OF_MEMORY):
        return "OperationError", (
            f"it is out of memory at {shard.name}: give workers more, or fewer of them a machine "
            "(compute.workers), or lower stride.token_budget"
        )
    return "OperationError", f"{shard.name} failed: {type(error).__name__}: {said}"
