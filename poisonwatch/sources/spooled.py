"""Rows of a source that is read once, whatever its size: kept in a file without a name.

Several look at the rows, one after the other, and a server or a query may not be asked again.
"""

import pickle
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Generic, Protocol, TypeVar, overload

from poisonwatch.examples import RawRow
from poisonwatch.formats.format import Draft
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.base import MIB
from poisonwatch.sources.open import SourceRows, stream_source

T = TypeVar("T")
MEMORY_BYTES = 32 * MIB  # above, rows go to a file


@contextmanager
def spool_source(source: SourceConfig) -> Iterator["SpooledRows"]:
    """Every row of a source, in memory while they are few, else on disk, until the block ends.
    Raises what `read_source` raises.
    """
    with tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES) as file:
        rows = SpooledRows(file)
        for row, draft in stream_source(source, rows.formats):
            rows.add(row, draft)
        yield rows


class SpooledRows(SourceRows):
    """Rows in a file of this process's own (`spool_source`)."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._starts: array[int] = array("q")
        super().__init__(
            RowColumn(self, lambda read: read[0]), RowColumn(self, lambda read: read[1]), {}
        )

    def add(self, row: RawRow, draft: Draft) -> None:
        """Put a row behind the others; before any is looked at."""
        self._starts.append(self._file.tell())
        pickle.dump((row, draft), self._file, pickle.HIGHEST_PROTOCOL)

    def get(self, place: int) -> tuple[RawRow, Draft]:
        """The row at a place, from 0."""
        self._file.seek(self._starts[place])
        # Of a file without a name: what is read from it was written here.
        found: tuple[RawRow, Draft] = pickle.load(self._file)  # noqa: S301
        return found

    def read(self, start: int, stop: int) -> Iterator[tuple[RawRow, Draft]]:
        """The rows from `start` to `stop`."""
        return map(self.get, range(start, stop))

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[tuple[RawRow, Draft]]:
        return map(self.get, range(len(self)))


class ReadableRows(Protocol):
    """Rows that are read when they are looked at."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Iterator[tuple[RawRow, Draft]]: ...


class RowColumn(Sequence[T], Generic[T]):
    """One side of the rows: as they were found, or what was read of them."""

    def __init__(self, rows: ReadableRows, choose: Callable[[tuple[RawRow, Draft]], T]) -> None:
        self._rows, self._choose = rows, choose

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> list[T]: ...
    def __getitem__(self, place: int | slice) -> T | list[T]:
        chosen = range(len(self))[place]
        if isinstance(chosen, int):
            (only,) = self._rows.read(chosen, chosen + 1)
            return self._choose(only)
        if chosen.step == 1:
            return list(map(self._choose, self._rows.read(chosen.start, chosen.stop)))
        return [self[i] for i in chosen]
