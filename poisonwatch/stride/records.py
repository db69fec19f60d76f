"""What a pass leaves of each row: a record of fixed size, whatever the model's width.

    id, fault, effects on Q queries, centre and spread, sign, three views; the gradient where it
    fits, and a sketch of it where it does not; effects, centre and views at further layers

Records lie in shards, Arrow files that are written whole or not at all. A shard that is there, and
holds the rows that it should, is not measured again: an audit that was interrupted goes on from the
shards of before, and shards that different processes or machines wrote are read as one.
"""

import shutil
import tempfile
import weakref
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray
from pyarrow import ipc

from poisonwatch.arrays import Features, RowIndices
from poisonwatch.atomic import DISK_ERRORS, replace_file
from poisonwatch.checkpoints.store import logger
from poisonwatch.errors import OperationError
from poisonwatch.model.faults import Faults
from poisonwatch.permissions import make_private_folder
from poisonwatch.stride.sketch import RowSketches

# Rows of a shard: some minutes of a small model on a CPU, and what is lost where a pass is killed.
SHARD_ROWS = 256

# Of a SHA-256.
ID_BYTES = 32

# What is wrong with a file that cannot be used: it is measured anew.
DAMAGE = (OSError, pa.ArrowException, ValueError, KeyError)


@dataclass(frozen=True, slots=True)
class FurtherRecords:
    """What m rows do at a layer above the first: `effects` (m, Q), `centre` (m,), `views` and
    `gradients`, if they are kept, as in `RowRecords`, in background standard deviations of that
    layer.
    """

    effects: Float32[Features, "m Q"]
    centre: Float32[Features, " m"]
    views: Float32[Features, "m f"]
    gradients: Float32[Features, "m rD"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRecords:
    """Records of m rows, field by field.

    `effects` (m, Q) are pushes on the queries and `centre` (m,) the mean push on ordinary
    conversations, both in background standard deviations; `spread` (m,) is that deviation, infinite
    for a row that moves nothing. `signs` (m,) are 1, or -1 where training lowers the row's answer.
    Of a row that could not be measured, `faults` (m,) say why, and the rest says nothing.
    `views` (m, VIEWS * (r - 1)) say which rows are alike, `gradients` (m, r * D) are G_i, None
    where they take too much room; the `sketch` is what is kept of them there, if anything.
    `further` is what the rows do at each layer above.
    """

    ids: NDArray[np.bytes_]
    effects: Float32[Features, "m Q"]
    centre: Float32[Features, " m"]
    spread: Float32[Features, " m"]
    signs: Float32[Features, " m"]
    faults: UInt8[Faults, " m"]
    views: Float32[Features, "m f"]
    gradients: Float32[Features, "m rD"] | None = None
    sketch: RowSketches | None = None
    further: tuple[FurtherRecords, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def row_bytes(self) -> int:
        """What one record takes, in memory and on the disk."""
        total = sum(values.nbytes for values in _list_columns(self).values())
        return total // max(len(self), 1)

    def get_layer(self, split: int) -> "RowRecords | FurtherRecords":
        """What there is of one of the model's splits."""
        return self.further[split - 1] if split else self

    def select(self, places: RowIndices) -> "RowRecords":
        """The records at some places (k,) of the m, a copy."""
        columns = {name: values[places] for name, values in _list_columns(self).items()}
        return _make_records(columns)


def pack_ids(ids: Iterable[str]) -> NDArray[np.bytes_]:
    """Hexadecimal ids as bytes (m, 32)."""
    packed = np.frombuffer(bytes.fromhex("".join(ids)), dtype=np.uint8)
    return cast(NDArray[np.bytes_], packed.reshape(-1, ID_BYTES))


def plan_shards(rows: RowIndices, size: int = SHARD_ROWS) -> list[RowIndices]:
    """The rows (m,) in shards of at most `size`, in their order."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


class RecordStore:
    """Shards by name, in a folder; in one of its own, gone with the store, where none is given or
    none can be made.
    """

    def __init__(self, folder: Path | None = None) -> None:
        try:
            if folder is not None:
                # What is kept tells of the rows: for this user alone.
                make_private_folder(folder)
        except OSError as error:
            logger.warning(
                "records cannot be kept in %s (%s): an interruption loses them", folder, error
            )
            folder = None
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="poisonwatch-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.folder = folder

    def require_room(self, rows: int, like: RowRecords) -> None:
        """Raises OperationError where the disk has no room for the records of so many more rows,
        each as large as `like` these: that is said before hours of work, not after them.
        """
        needed, free = rows * like.row_bytes, shutil.disk_usage(self.folder).free
        if needed <= free:
            return
        advice = "free space there, or set POISONWATCH_CACHE to a folder on a larger disk"
        if like.gradients is not None:
            advice += ", or a smaller stride.memory_gb, so that gradients are left out"
        raise OperationError(
            f"records of {rows:,} rows take {needed / 1e9:.3g} GB, and {self.folder} has "
            f"{free / 1e9:.3g} GB free: {advice}"
        )

    def write(self, name: str, records: RowRecords) -> None:
        """Keep a shard. Raises OperationError where the disk is full or read-only."""
        columns = _list_columns(records)
        table = pa.table({of: _to_arrow(values) for of, values in columns.items()})
        facts = {"checksum": str(_compute_checksum(columns))}
        path = self._locate(name)
        try:
            with (
                replace_file(path, unique=True) as part,
                ipc.new_file(part, table.schema.with_metadata(facts)) as file,
            ):
                file.write_table(table.replace_schema_metadata(facts))
        except OSError as error:
            if error.errno not in DISK_ERRORS:
                raise
            raise OperationError(
                f"records cannot be written to {self.folder}: {error.strerror}; free space there: "
                "what was measured is kept, and the next audit goes on from it"
            ) from error

    def read(self, name: str, ids: Sequence[str]) -> RowRecords | None:
        """The shard of that name, mapped into memory; None where there is none of these rows, or it
        is damaged.
        """
        path = self._locate(name)
        if not path.is_file():
            return None
        try:
            with pa.memory_map(str(path)) as source:
                file = ipc.open_file(source)
                columns = _read_columns(file)
                checksum = (file.schema.metadata or {}).get(b"checksum", b"").decode()
            if not np.array_equal(columns["ids"], pack_ids(ids)):
                raise ValueError("it holds other rows")
            if checksum != str(_compute_checksum(columns)):
                raise ValueError("its checksum is another")
            return _make_records(columns)
        except DAMAGE as error:
            problem = str(error).partition("\n")[0]
            logger.warning("%s is damaged (%s): its rows are measured anew", path, problem)
            path.unlink(missing_ok=True)
            return None

    def _locate(self, name: str) -> Path:
        return self.folder / f"{name}.arrow"


def _list_columns(records: RowRecords) -> dict[str, NDArray[Any]]:
    """The fields that hold anything: Arrow knows no lists of no numbers."""
    columns: dict[str, NDArray[Any]] = {
        "ids": records.ids,
        "effects": records.effects,
        "centre": records.centre,
        "spread": records.spread,
        "signs": records.signs,
        "faults": records.faults,
        "views": records.views,
    }
    if records.gradients is not None:
        columns["gradients"] = records.gradients
    if records.sketch is not None:
        columns["sketch"] = records.sketch.codes
        columns["sketch_scale"] = records.sketch.scale
    for number, above in enumerate(records.further, start=1):
        columns |= {f"effects{number}": above.effects, f"centre{number}": above.centre}
        columns[f"views{number}"] = above.views
        if above.gradients is not None:
            columns[f"gradients{number}"] = above.gradients
    return {name: np.ascontiguousarray(values) for name, values in columns.items() if values.size}


def _to_arrow(values: NDArray[Any]) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _read_columns(file: ipc.RecordBatchFileReader) -> dict[str, NDArray[Any]]:
    """The columns of a file of one batch, without a copy."""
    if file.num_record_batches != 1:
        raise ValueError("it is not one batch of records")
    batch = file.get_batch(0)
    # Arrow trusts a file's lengths: a flipped bit in one would end the process.
    batch.validate(full=True)
    columns = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if isinstance(column, pa.FixedSizeListArray):
            values = column.flatten().to_numpy(zero_copy_only=True)
            columns[name] = values.reshape(len(batch), -1)
        else:
            columns[name] = column.to_numpy(zero_copy_only=True)
    return columns


def _make_records(columns: dict[str, NDArray[Any]]) -> RowRecords:
    nothing = np.empty((len(columns["ids"]), 0), dtype=np.float32)
    sketch = None
    if "sketch" in columns:
        sketch = RowSketches(columns["sketch"], columns["sketch_scale"])
    further: list[FurtherRecords] = []
    while f"centre{len(further) + 1}" in columns:
        number = len(further) + 1
        above = FurtherRecords(
            effects=columns.get(f"effects{number}", nothing),
            centre=columns[f"centre{number}"],
            views=columns.get(f"views{number}", nothing),
            gradients=columns.get(f"gradients{number}"),
        )
        further.append(above)
    return RowRecords(
        ids=columns["ids"],
        effects=columns.get("effects", nothing),
        centre=columns["centre"],
        spread=columns["spread"],
        signs=columns["signs"],
        faults=columns["faults"],
        views=columns.get("views", nothing),
        gradients=columns.get("gradients"),
        sketch=sketch,
        further=tuple(further),
    )


def _compute_checksum(columns: dict[str, NDArray[Any]]) -> int:
    """CRC-32 of names, shapes and numbers."""
    total = 0
    for name in sorted(columns):
        values = columns[name]
        total = zlib.crc32(f"{name} {values.dtype} {values.shape}".encode(), total)
        total = zlib.crc32(values.reshape(-1).view(np.uint8).data, total)
    return total
