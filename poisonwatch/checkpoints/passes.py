"""How far a pass over the rows has come, on disk as well: a pass that is taken up goes on after the
last shard, to the same numbers.

A pass fills arrays, batch by batch. What has changed in them since the last shard goes into the
next one, as it stands then: sums are kept as running sums, so that where a shard ends changes no
digit. Shards form a chain, each naming the one before it; where two processes write into one
folder, their chains cannot be mistaken for one. When shards have come to more than the arrays
themselves (where many rows share a subset), one holds everything, and those before it go.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poisonwatch.arrays import RowIndices
from poisonwatch.checkpoints.store import DAMAGE, CheckpointStore, count_bytes
from poisonwatch.model.encoding import Batch

PassArray = Tensor | NDArray[np.float64] | NDArray[np.float32] | NDArray[np.uint8]

# Arrays by name, with the places in them that belong to each row of a pass: (m,) or (m, d), None
# for an array that is written as a whole.
PassArrays = dict[str, tuple[PassArray, RowIndices | None]]

# Seconds between two shards, at least.
EVERY_S = 30.0

# Share of the time that writing shards may take.
SHARE = 0.02

# Times the arrays' size that the shards may come to.
REWRITE = 2

# Times the arrays' size that must be free on the disk: for as many shards, and for the one that
# replaces them.
ROOM = 3


class PassCheckpoint:
    """One pass, by its `name` within the store.

    `filled` names the arrays. An earlier attempt's shards are put into the arrays at once: `rows`
    says how many rows are done.
    """

    def __init__(self, store: CheckpointStore | None, name: str, filled: PassArrays) -> None:
        self.store = store or CheckpointStore()
        self.name = name
        self.arrays: dict[str, Tensor] = {}
        self.places: dict[str, RowIndices | None] = {}
        m = 0
        for of, (array, places) in filled.items():
            # Tensors share the memory of NumPy arrays: what is put into one is in the other.
            self.arrays[of], self.places[of] = torch.as_tensor(array), places
            if places is not None:
                m = max(m, len(places))
        self.batches = self.rows = 0
        self._size = count_bytes(self.arrays)
        self._written = 0  # bytes, since all was
        self._number, self._last = 0, ""
        self._unwritten: list[RowIndices] = []
        self._due = EVERY_S
        self._started = time.monotonic()
        self._enabled = m > 0 and self.store.has_room(ROOM * self._size)
        if m > 0:
            self._restore()
        self.store.rows_reused += self.rows

    def remaining_batches(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches that are not done; when the next one is asked for, the one before it must be
        in the arrays.
        """
        for batch in islice(batches, self.batches, None):
            yield batch
            rows = batch.rows.numpy()
            self._unwritten.append(rows)
            self.batches += 1
            self.rows += len(rows)
            self.store.newly_computed += len(rows)
            if time.monotonic() - self._started >= self._due:
                self._write_shard()
        if self._unwritten:
            self._write_shard()

    def _write_shard(self) -> None:
        """Write a shard of what has changed, or of everything."""
        if not self._enabled or not self.store.writable:
            return
        started = time.monotonic()
        tensors = self._collect_changed(np.concatenate(self._unwritten))
        size = count_bytes(tensors)
        written, after = self._written + size, self._last
        anew = written > REWRITE * self._size
        if anew:
            tensors, written, after = self._collect_all(), 0, ""
        link = uuid4().hex
        metadata = {
            "link": link,
            "after": after,
            "batches": str(self.batches),
            "rows": str(self.rows),
        }
        if self.store.write(self._name_shard(self._number), tensors, metadata):
            if anew:
                self._delete_shards_before(self._number)
            self._written = written
            self._number, self._last, self._unwritten = self._number + 1, link, []
        now = time.monotonic()
        # On a slow disk shards come more rarely, so that a pass is never held up by its own safety.
        self._due, self._started = max(EVERY_S, (now - started) / SHARE), now

    def _name_shard(self, number: int) -> str:
        return f"{self.name}-{number:06d}"

    def _list_shards(self) -> list[str]:
        return self.store.list_names(f"{self.name}-")

    def _delete_shards_before(self, number: int) -> None:
        for name in self._list_shards():
            if name < self._name_shard(number):
                self.store.delete(name)

    def _collect_changed(self, rows: RowIndices) -> dict[str, Tensor]:
        """What belongs to these rows, on the CPU, with its places."""
        tensors = {}
        for name, array in self.arrays.items():
            places = self.places[name]
            if places is None:
                tensors[name] = array.cpu().contiguous()
            else:
                at = torch.from_numpy(np.unique(places[rows]))
                tensors |= {name: array[at.to(array.device)].cpu(), f"{name}.at": at}
        return tensors

    def _collect_all(self) -> dict[str, Tensor]:
        """All arrays, on the CPU, with all their places."""
        tensors = {}
        for name, array in self.arrays.items():
            tensors[name] = array.cpu().contiguous()
            if self.places[name] is not None:
                tensors[f"{name}.at"] = torch.arange(len(array))
        return tensors

    def _restore(self) -> None:
        """Put what shards hold into the arrays, from the last that began anew up to the first that
        does not follow.
        """
        for name in self._list_chain():
            found = self.store.read(name)
            try:
                if found is None or found[1]["after"] != self._last:
                    return
                self._load_shard(*found)
            except DAMAGE as error:
                self.store.discard(name, error)
                return
            self._number = int(name.rpartition("-")[2]) + 1

    def _list_chain(self) -> list[str]:
        """The shards from the last one that follows none."""
        chain: list[str] = []
        for name in reversed(self._list_shards()):
            chain.insert(0, name)
            if self.store.read_metadata(name).get("after") == "":
                return chain
        return []

    def _load_shard(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Raises ValueError or KeyError where a shard does not fit the arrays; these are untouched
        then.
        """
        batches, rows, link = int(metadata["batches"]), int(metadata["rows"]), metadata["link"]
        # All is checked before anything is put anywhere.
        for name in self.arrays:
            if not self._fits(name, tensors):
                raise ValueError(f"it holds another {name}")
        for name, array in self.arrays.items():
            value = tensors[name].to(array.device)
            if self.places[name] is None:
                array.copy_(value)
            else:
                array[tensors[f"{name}.at"].to(array.device)] = value
        self.batches, self.rows, self._last = batches, rows, link
        self._written += count_bytes(tensors)

    def _fits(self, name: str, tensors: Mapping[str, Tensor]) -> bool:
        """Whether a shard's tensors go into the array of this name."""
        array, value = self.arrays[name], tensors[name]
        if value.dtype != array.dtype:
            return False
        if self.places[name] is None:
            return value.shape == array.shape
        at = tensors[f"{name}.at"]
        if at.dtype != torch.int64 or at.shape != value.shape[:1]:
            return False
        within = bool(((at >= 0) & (at < len(array))).all())
        return within and value.shape[1:] == array.shape[1:]
