"""What the workers of a pass read, in a folder that they share with the driver:

    rows.arrow           the rows that are left to measure, shard by shard
    meter.safetensors    what they are measured with: basis, background, queries, sketch

The folder lies beside the records and goes when the pass is over. What comes from it is data alone:
which model is loaded the driver says itself.
"""

import json
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from poisonwatch.atomic import DISK_ERRORS
from poisonwatch.checkpoints.serialise import pack, unpack
from poisonwatch.checkpoints.store import DAMAGE, CheckpointStore
from poisonwatch.errors import OperationError
from poisonwatch.examples import Example
from poisonwatch.packed_examples import PackedExamples
from poisonwatch.stride.row_pass import RowMeter, Yardsticks
from poisonwatch.stride.sketch import Sketch
from poisonwatch.stride.streamed import ShardWork

FOLDER_PREFIX = "spread-"
ROWS = "rows.arrow"
METER = "meter"


@dataclass(frozen=True, slots=True)
class PackedShard:
    """A shard: its `name`, its rows' places in the file, `start` to `stop`, and their `digest`."""

    name: str
    start: int
    stop: int
    digest: int


@dataclass(frozen=True, slots=True)
class MeterParts:
    """A `RowMeter` without its model: what is the same on every machine."""

    yardsticks: tuple[Yardsticks, ...]
    token_budget: int
    keep_gradients: bool
    sketch: Sketch | None


@contextmanager
def open_job_folder(records: Path) -> Iterator[Path]:
    """A folder for the workers' input below that of the records, gone with the block; those of
    drivers that were killed go now.
    """
    try:
        for left in records.glob(f"{FOLDER_PREFIX}*"):
            shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=records))
    except OSError as error:
        raise OperationError(f"{records} cannot be written: {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_job(folder: Path, work: ShardWork) -> list[PackedShard]:
    """Write rows and meter for the workers. Raises OperationError where the disk is full."""
    shards: list[PackedShard] = []
    try:
        PackedExamples.write(folder / ROWS, _take_shards(work, shards))
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise OperationError(
            f"rows cannot be written to {folder} for the workers: {error.strerror}; "
            "free space there, and run again"
        ) from error
    meter = work.meter
    parts = MeterParts(meter.yardsticks, meter.token_budget, meter.keep_gradients, meter.sketch)
    tree, tensors = pack(parts)
    if not CheckpointStore(folder).write(METER, tensors, {"value": json.dumps(tree)}):
        raise OperationError(
            f"{folder} has no room for what the workers need: free space there, and run again"
        )
    return shards


def _take_shards(work: ShardWork, shards: list[PackedShard]) -> Iterator[Example]:
    """The rows of all shards in order; notes in `shards` where each lies."""
    start = 0
    for shard in work.shards:
        rows = work.get_rows(shard)
        shards.append(PackedShard(shard.name, start, start + len(rows), compute_digest(rows)))
        start += len(rows)
        yield from rows


def read_rows(folder: Path, shard: PackedShard) -> list[Example]:
    """The rows of a shard. Raises OperationError where the file cannot be read, or holds others."""
    problem: object = "they are not those that were written"
    try:
        rows = list(PackedExamples.open(folder / ROWS)[shard.start : shard.stop])
        if compute_digest(rows) == shard.digest:
            return rows
    # A damaged file fails wherever the damage is met: in Arrow, in UTF-8, or in JSON.
    except (*DAMAGE, LookupError, OperationError) as error:
        problem = error
    raise OperationError(f"the rows of {shard.name} cannot be read from {folder / ROWS}: {problem}")


def read_meter(folder: Path, device: torch.device) -> MeterParts:
    """What rows are measured with. Raises OperationError where it cannot be read."""
    found = CheckpointStore(folder).read(METER)
    if found is None:
        raise OperationError(f"what rows are measured with cannot be read from {folder}")
    tensors, facts = found
    # Copies of torch's own: where an array begins in memory can change the last digit of sums.
    own = {name: tensor.clone() for name, tensor in tensors.items()}
    return unpack(MeterParts, json.loads(facts["value"]), own, device)


def compute_digest(rows: Iterable[Example]) -> int:
    """CRC-32 of the rows' ids and of what the model reads of them."""
    total = 0
    for row in rows:
        read: tuple[Any, ...] = (row.id, row.messages, row.rejected, row.lowered)
        # Python writes half surrogates as escapes.
        total = zlib.crc32(repr(read).encode(), total)
    return total


def build_meter(parts: MeterParts, model: Any, encoder: Any) -> RowMeter:
    """The meter, with this machine's model and its encoder."""
    return RowMeter(
        model=model,
        encoder=encoder,
        yardsticks=parts.yardsticks,
        token_budget=parts.token_budget,
        keep_gradients=parts.keep_gradients,
        sketch=parts.sketch,
    )
