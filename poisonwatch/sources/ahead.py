"""Small files on servers, fetched side by side before they are asked for: a file of one row takes a
server ten times longer to find than to send.

Rows still come in the order of the files. What is fetched and not yet read is bounded, by count and
by bytes; a file that cannot be fetched is read as any other, which says why.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from poisonwatch.sources.base import MIB, SourceFile

MOST_AT_ONCE = 16  # requests to a server
MOST_WAITING = 128  # files that are fetched, or being fetched, and not yet read
MOST_BYTES = 64 * MIB  # of such files


class ReadAhead:
    """Fetches the units that it is to `plan`, in their order, and waits for one that is to be read
    (`bring`). Use it in a `with`: what was not read is dropped at its end.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._planned: deque[SourceFile] = deque()
        self._fetching: dict[SourceFile, Future[None]] = {}
        self._bytes = 0

    def __enter__(self) -> "ReadAhead":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        for unit in self._fetching:
            unit.drop()

    def plan(self, units: Iterable[SourceFile]) -> None:
        """These units will be read next, behind those planned before, in this order."""
        self._planned.extend(unit for unit in units if unit.fetched_bytes is not None)
        self._start()

    def bring(self, unit: SourceFile) -> None:
        """Wait until a unit is fetched, if it is one of those."""
        fetching = self._fetching.pop(unit, None)
        if fetching is None:
            # It is read before its turn came.
            if self._planned and self._planned[0] is unit:
                self._planned.popleft()
            return
        self._bytes -= unit.fetched_bytes or 0
        self._start()
        fetching.result()

    def _start(self) -> None:
        """Begin to fetch what there is room for."""
        while self._planned and len(self._fetching) < MOST_WAITING:
            unit = self._planned[0]
            size = unit.fetched_bytes or 0
            if self._fetching and self._bytes + size > MOST_BYTES:
                return
            self._planned.popleft()
            self._bytes += size
            if self._pool is None:
                self._pool = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="fetch")
            self._fetching[unit] = self._pool.submit(unit.fetch)


def fetch_ahead(units: Sequence[SourceFile]) -> Iterator[SourceFile]:
    """The units in order, the small ones on servers fetched before their turn."""
    with ReadAhead() as ahead:
        # One alone is not waited for by another.
        if len(units) > 1:
            ahead.plan(units)
        for unit in units:
            ahead.bring(unit)
            yield unit
