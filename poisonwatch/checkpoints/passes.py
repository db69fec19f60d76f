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
from poisonwatch.checkpoints.store import DAMAGE, CheckpointStore
from poisonwatch.model.encoding import Batch

PassArray = Tensor | NDArray[np.float64] | NDArray[np.float32]
PassArrays = dict[
    str, tuple[PassArray, RowIndices | None]
]  # arrays by name, with the places in them that belong to each row of a pass

EVERY_S = 30.0  # between two shards, at least
SHARE = 0.02  # of the time that writing them may take
REWRITE = 2  # times the arrays' size that the shards may come to
# times the arrays' size that must be free on the disk: for as many shards, and for the one that
# replaces them
ROOM = 3


class PassCheckpoint:
    """One pass, by its `name` within the work.

    `filled` names the arrays: each with the places (m,) or (m, d) in it that belong to the pass's m
    rows, or None where it is written as a whole. An earlier attempt's shards are put into the
    arrays at once: `rows` says how many rows are done.
    """

    def __init__(self, work: CheckpointStore | None, name: str, filled: PassArrays) -> None:
        self.work = work or CheckpointStore()
        self.name = name
        self.arrays = {of: torch.as_tensor(array) for of, (array, _) in filled.items()}
        self.places = {of: places for of, (_, places) in filled.items()}
        self.batches = self.rows = 0
        self._size = sum(array.nbytes for array in self.arrays.values())
        self._written = 0  # bytes, since all was
        self._number, self._last = 0, ""
        self._unwritten: list[RowIndices] = []
        self._due = EVERY_S
        self._started = time.monotonic()
        m = max((len(places) for places in self.places.values() if places is not None), default=0)
        self._enabled = m > 0 and self.work.has_room(ROOM * self._size)
        if m > 0:
            self._restore()
        self.work.rows_reused += self.rows

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
            self.work.newly_computed += len(rows)
            if time.monotonic() - self._started >= self._due:
                self._write_shard()
        if self._unwritten:
            self._write_shard()

    def _write_shard(self) -> None:
        """Write a shard of what has changed, or of everything."""
        if not self._enabled or not self.work.writable:
            return
        started = time.monotonic()
        rows = np.concatenate(self._unwritten)
        tensors = self._collect_changed(rows)
        size = sum(tensor.nbytes for tensor in tensors.values())
        anew = self._written + size > REWRITE * self._size
        if anew:
            tensors = self._collect_all()
        link = uuid4().hex
        facts = {
            "link": link,
            "after": "" if anew else self._last,
            "batches": str(self.batches),
            "rows": str(self.rows),
        }
        if self.work.write(self._file(self._number), tensors, facts):
            if anew:
                self.work.delete(
                    *(
                        name
                        for name in self.work.names(f"{self.name}-")
                        if name < self._file(self._number)
                    )
                )
            self._written = 0 if anew else self._written + size
            self._number, self._last, self._unwritten = self._number + 1, link, []
        now = time.monotonic()
        self._due, self._started = max(EVERY_S, (now - started) / SHARE), now

    def _file(self, number: int) -> str:
        return f"{self.name}-{number:06d}"

    def _collect_changed(self, rows: RowIndices) -> dict[str, Tensor]:
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
        tensors = {name: array.cpu().contiguous() for name, array in self.arrays.items()}
        return tensors | {
            f"{name}.at": torch.arange(len(self.arrays[name]))
            for name, of in self.places.items()
            if of is not None
        }

    def _restore(self) -> None:
        """Put what shards hold into the arrays, from the last that began anew up to the first that
        does not follow.
        """
        names = self.work.names(f"{self.name}-")
        first = max(
            (i for i, name in enumerate(names) if self.work.read_metadata(name).get("after") == ""),
            default=len(names),
        )
        for name in names[first:]:
            found = self.work.read(name)
            try:
                if found is None or found[1]["after"] != self._last:
                    return
                self._load_shard(*found)
            except DAMAGE as error:
                self.work.discard(name, error)
                return
            self._number = int(name.rpartition("-")[2]) + 1

    def _load_shard(self, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
        """Raises ValueError or KeyError where a shard does not fit the arrays; these are untouched
        then.
        """
        batches, rows, link = int(facts["batches"]), int(facts["rows"]), facts["link"]
        at = {}
        for name, array in self.arrays.items():
            value = tensors[name]
            if self.places[name] is None:
                fits = value.shape == array.shape
            else:
                at[name] = tensors[f"{name}.at"]
                whole = (
                    at[name].dtype == torch.int64
                    and at[name].shape == value.shape[:1]
                    and value.shape[1:] == array.shape[1:]
                )
                fits = whole and bool(((at[name] >= 0) & (at[name] < len(array))).all())
            if not fits or value.dtype != array.dtype:
                raise ValueError(f"it holds another {name}")
        for name, array in self.arrays.items():
            if name in at:
                array[at[name].to(array.device)] = tensors[name].to(array.device)
            else:
                array.copy_(tensors[name])
        self.batches, self.rows, self._last = batches, rows, link
        self._written += sum(tensor.nbytes for tensor in tensors.values())
