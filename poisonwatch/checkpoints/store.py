"""The checkpoints of one audit, kept until it is committed: one that died or failed goes on where
it stopped.

They lie in the user's cache, in a folder of their own below `work`, named by a key:

    recover.safetensors           what a stage came to
    fit-000003.safetensors        a shard of a pass over the rows, see `passes`

The key (see `key`) is a SHA-256 of all that the results depend on: another row, sentinel, setting
or model, or another Poisonwatch, is another key. A file holds tensors and
JSON: nothing in it is ever run. One that is damaged is left out, and what it held is computed anew.
A full disk costs what would have been kept, not the audit.
"""

import json
import logging
import shutil
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from poisonwatch.atomic import replace_file
from poisonwatch.checkpoints.serialise import pack, unpack
from poisonwatch.model.cache import get_cache_folder
from poisonwatch.permissions import make_private_folder
from poisonwatch.text.words import plural

logger = logging.getLogger(__name__)

T = TypeVar("T")

OUTDATED_S = 7 * 24 * 3600.0  # seconds after which nobody goes on with a checkpoint
AT_WORK_S = 3600.0  # seconds within which somebody may be at work with one
MOST_STORES = 4  # audits whose checkpoints are kept; the one that stopped longest ago goes first
FREE_SPACE_FACTOR = 2  # times a file's size that must be free on the disk for it to be written

# What reading a damaged file raises, wherever the damage is noticed: in the file system, in
# safetensors, in JSON, or where values do not fit their types.
DAMAGE = (OSError, SafetensorError, ValueError, TypeError, KeyError, RuntimeError)


def count_bytes(tensors: Mapping[str, Tensor]) -> int:
    """What the tensors' numbers take, in memory and in a file."""
    return sum(tensor.nbytes for tensor in tensors.values())


def ignore(_: str) -> None:
    """Tell nobody."""


def always() -> bool:
    """Whatever was computed is kept."""
    return True


class CheckpointStore:
    """The checkpoints of one audit, in a folder that may hold some already; without a folder
    nothing is kept.

    `notify` is told what is reused of an earlier attempt, whose tensors go to the `device`. Records
    of rows go below it, or into the folder `shared`.
    """

    def __init__(
        self,
        folder: Path | None = None,
        notify: Callable[[str], None] = ignore,
        device: torch.device | str = "cpu",
        shared: Path | None = None,
    ) -> None:
        self.folder = folder
        # Of a pass over rows; not this store's own where other machines are to see them.
        self.records = folder / "records" if folder is not None else None
        if shared is not None:
            self.records = shared
        self.notify = notify
        self.device = device
        self.writable = folder is not None  # until something cannot be written
        # Since `report_reuse` last spoke: of passes the rows, of anything else the results.
        self.rows_reused = 0
        self.results_reused = 0
        self.newly_computed = 0

    @classmethod
    def open(
        cls,
        key: str,
        notify: Callable[[str], None] = ignore,
        device: torch.device | str = "cpu",
        shared: Path | None = None,
    ) -> "CheckpointStore":
        """The store under a key; clears away those that others left longer than a week ago, and the
        oldest of too many. Records lie under the same key below `shared`, where it is given.
        """
        root = get_cache_folder() / "work"
        # Another audit may clear away the same folders at this moment: whoever comes second leaves
        # the rest to the next audit.
        with suppress(OSError):
            _clear_outdated(root, key, MOST_STORES)
        if shared is None:
            return cls(root / key, notify, device)
        # Any number of audits may be at work there, on other machines.
        work = shared / "poisonwatch-work"
        with suppress(OSError):
            _clear_outdated(work, key)
        return cls(root / key, notify, device, work / key)

    def clear(self) -> None:
        """Clear everything away: the audit is committed."""
        for folder in (self.folder, self.records):
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def get_or_compute(
        self,
        name: str,
        kind: type[T],
        compute: Callable[[], T],
        is_worth_keeping: Callable[[], bool] = always,
    ) -> T:
        """What an earlier attempt kept under a name, a value of this `kind` (see `serialise`); else
        what is computed now, and kept, where that then `is_worth_keeping`.
        """
        found = self.read(name)
        if found is not None:
            tensors, facts = found
            try:
                value = unpack(kind, json.loads(facts["value"]), tensors, self.device)
            except DAMAGE as error:
                self.discard(name, error)
            else:
                self.results_reused += 1
                return value
        value = compute()
        self.newly_computed += 1
        if self.writable and is_worth_keeping():
            tree, tensors = pack(value)
            self.write(name, tensors, {"value": json.dumps(tree)})
        return value

    def get_or_compute_stage(
        self,
        name: str,
        kind: type[T],
        compute: Callable[[], T],
        is_worth_keeping: Callable[[], bool] = always,
    ) -> T:
        """`get_or_compute` under a stage's name; says where an earlier attempt had come to it."""
        value = self.get_or_compute(name, kind, compute, is_worth_keeping)
        self.report_reuse(name)
        return value

    def report_reuse(self, stage: str) -> None:
        """Say what of the stage that ends was taken from an earlier attempt."""
        reused = self.results_reused or self.rows_reused
        if reused and not self.newly_computed:
            self.notify(f"{stage}: taken from an interrupted attempt")
        elif self.rows_reused:
            rows = plural(self.rows_reused, "row")
            self.notify(f"{stage}: gone on with after {rows} of an interrupted attempt")
        self.rows_reused = 0
        self.results_reused = 0
        self.newly_computed = 0

    def list_names(self, beginning: str) -> list[str]:
        """The names kept that begin so, in order."""
        if self.folder is None:
            return []
        return sorted(path.stem for path in self.folder.glob(f"{beginning}*.safetensors"))

    def delete(self, *names: str) -> None:
        """Clear single files away."""
        for name in names:
            path = self._locate(name)
            if path is not None:
                with suppress(OSError):
                    path.unlink()

    def has_room(self, size: int) -> bool:
        """Whether checkpoints are kept, and the disk has so many bytes to spare."""
        if self.folder is None or not self.writable:
            return False
        # The folder comes with the first file: what is free is asked of the nearest one that is
        # there already.
        there = next(path for path in self.folder.absolute().parents if path.exists())
        return shutil.disk_usage(there).free >= size

    def write(self, name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> bool:
        """Keep contiguous tensors on the CPU, and texts beside them; says whether it could. After a
        failure nothing more is kept.
        """
        path = self._locate(name)
        size = count_bytes(tensors)
        if path is None or not self.has_room(FREE_SPACE_FACTOR * size):
            return False
        try:
            # What is kept tells of the rows: for this user alone.
            make_private_folder(path.parent)
            checksum = str(_compute_checksum(tensors, facts))
            with replace_file(path, unique=True) as part:
                save_file(dict(tensors), part, {**facts, "checksum": checksum})
        except (OSError, SafetensorError) as error:
            logger.warning(
                "work cannot be kept in %s (%s): should this audit be interrupted, it starts anew",
                path.parent,
                error,
            )
            self.writable = False
            return False
        return True

    def read(self, name: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """What was kept under a name; None where nothing is, or the file is damaged."""
        path = self._locate(name)
        if path is None or not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                facts = dict(file.metadata() or {})
                # The file itself cannot be iterated.
                names = file.keys()
                tensors = {of: file.get_tensor(of) for of in names}
            if facts.pop("checksum", None) != str(_compute_checksum(tensors, facts)):
                raise ValueError("its checksum is another")
        # A checkpoint only ever saves time, so nothing that is wrong with one ends an audit.
        except DAMAGE as error:
            self.discard(name, error)
            return None
        return tensors, facts

    def read_metadata(self, name: str) -> dict[str, str]:
        """The texts kept under a name, unchecked; none where there is no such file, or it is
        damaged.
        """
        path = self._locate(name)
        with suppress(*DAMAGE):
            if path is not None:
                with safe_open(path, "pt") as file:
                    return dict(file.metadata() or {})
        return {}

    def discard(self, name: str, error: Exception) -> None:
        """Clear a file away that is of no use, and say so."""
        # safetensors' errors go on for lines; the first says what is wrong.
        problem = str(error).partition("\n")[0]
        logger.warning(
            "%s is damaged (%s): what it held is worked out anew", self._locate(name), problem
        )
        self.delete(name)

    def _locate(self, name: str) -> Path | None:
        if self.folder is None:
            return None
        return self.folder / f"{name}.safetensors"


def _clear_outdated(root: Path, key: str, most: int | None = None) -> None:
    """Clear away what lies below `root` under other keys than this one and is old, or the oldest of
    more than `most`, unless an audit may be at work with it.
    """
    now = time.time()
    ages = {path: now - _find_last_write(path) for path in root.iterdir() if path.name != key}
    for place, (path, age) in enumerate(sorted(ages.items(), key=lambda each: each[1])):
        # One place is for the key itself, whether its folder is there yet or not.
        too_many = most is not None and place >= most - 1
        if age > OUTDATED_S or (too_many and age > AT_WORK_S):
            shutil.rmtree(path, ignore_errors=True)


def _find_last_write(store: Path) -> float:
    """When something was last put into a store, in seconds since the epoch: a stage's result, or a
    shard of records.
    """
    last = store.stat().st_mtime
    with suppress(FileNotFoundError):
        last = max(last, (store / "records").stat().st_mtime)
    return last


def _compute_checksum(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> int:
    """CRC-32 of names, types, shapes, numbers and texts."""
    # A machine that loses power can leave files of the right length and the wrong content.
    total = zlib.crc32(json.dumps(sorted(facts.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), total)
        # A tensor without numbers has no bytes to be viewed.
        if tensor.numel():
            total = zlib.crc32(tensor.flatten().view(torch.uint8).numpy().data, total)
    return total
