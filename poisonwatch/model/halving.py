"""Work that memory does not hold is halved, and goes on.

How much a pass takes is estimated before it begins (docs/costs.md), but an estimate can be
wrong, and others may use the same device. A batch that memory runs out over is computed in two
halves, and these again, down to single rows. Which rows share a batch decides the last digits of a
sum alone: results are the same within rounding.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import torch

from poisonwatch.errors import ModelError
from poisonwatch.model.encoding import Batch
from poisonwatch.model.free_memory import return_main_memory
from poisonwatch.text.display import get_first_line

W = TypeVar("W")
T = TypeVar("T")

# What devices say in a plain RuntimeError: the allocator of the CPU, cuBLAS and cuDNN.
OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED")

# How a pass over single rows may take less.
REMEDIES = (
    "lower stride.max_tokens or stride.r, or set model.dtype: bfloat16, or on GPUs "
    "model.device_map: auto"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it was raised because memory ran out, the machine's or a GPU's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in OUT_OF_MEMORY)


class InParts(Generic[W, T]):
    """Computes something of one piece of work after the other, of each in as many parts as memory
    asks for; `halve` makes two of a piece, or none where it is the smallest.

    What was too much once is not tried again: later pieces begin with as many parts.
    """

    def __init__(self, compute: Callable[[W], T], halve: Callable[[W], tuple[W, ...]]) -> None:
        self._compute, self._halve = compute, halve
        self._halvings = 0  # of every piece, before it is tried

    def __call__(self, work: W) -> Iterator[tuple[W, T]]:
        """Each part of the work, in order, with what was computed of it: the whole where it fits.

        Raises ModelError where memory does not hold the smallest part.
        """
        yield from self._compute_parts(work, 0)

    def _compute_parts(self, work: W, halvings: int) -> Iterator[tuple[W, T]]:
        halves: tuple[W, ...] = ()
        if halvings < self._halvings:
            halves = self._halve(work)
        if not halves:
            try:
                result = self._compute(work)
            except (MemoryError, RuntimeError) as error:
                halves = self._halve_after(error, work)
            else:
                yield work, result
                return
            # Only here, where the error is gone, is nothing held that it was raised over.
            _release_memory()
            self._halvings = halvings + 1
        for half in halves:
            yield from self._compute_parts(half, halvings + 1)

    def _halve_after(self, error: Exception, work: W) -> tuple[W, ...]:
        """The halves of what memory ran out over; raises the error where it is another, and
        ModelError where there are none.
        """
        if not is_out_of_memory(error):
            raise error
        halves = self._halve(work)
        if not halves:
            raise ModelError(
                f"memory does not hold the pass of a single row ({get_first_line(error)}): "
                f"{REMEDIES}"
            ) from error
        return halves


def compute_batches(compute: Callable[[Batch], T]) -> InParts[Batch, T]:
    """Computes something of batches, part by part where memory does not hold them whole."""
    return InParts(compute, halve_batch)


def halve_batch(batch: Batch) -> tuple[Batch, ...]:
    """The first half of a batch's rows and the second, as narrow as each may be; none of a single
    row. A preference row keeps its rejected conversation.
    """
    m = len(batch.rows)
    if m < 2:
        return ()
    return _take_rows(batch, 0, m // 2), _take_rows(batch, m // 2, m)


def halve_places(work: Sequence[int]) -> tuple[Sequence[int], ...]:
    """The first half of some places and the second; none of a single one."""
    middle = len(work) // 2
    if not middle:
        return ()
    return work[:middle], work[middle:]


def _take_rows(batch: Batch, start: int, stop: int) -> Batch:
    """A batch of the rows at the places from `start` to `stop`."""
    # Rejected conversations stand behind the m rows.
    theirs = ((batch.rejected >= start) & (batch.rejected < stop)).nonzero()[:, 0]
    own = torch.arange(start, stop, device=theirs.device)
    at = torch.cat([own, len(batch.rows) + theirs]).to(batch.input_ids.device)
    mask = batch.attention_mask[at]
    width = int(mask.sum(dim=1).max())
    return Batch(
        rows=batch.rows[start:stop],
        input_ids=batch.input_ids[at, :width],
        attention_mask=mask[:, :width],
        answer=batch.answer[at, :width],
        signs=batch.signs[at],
        rejected=batch.rejected[theirs] - start,
    )


def _release_memory() -> None:
    """Give back what nobody holds any more, so that a smaller piece finds room in one place."""
    gc.collect()
    return_main_memory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
