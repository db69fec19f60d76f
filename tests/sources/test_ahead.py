"""Files of servers are fetched before they are asked for, and come in order all the same."""

import threading
import time
from collections.abc import Iterator

from poisonwatch.examples import RawRow
from poisonwatch.sources.ahead import MOST_AT_ONCE, MOST_BYTES, ReadAhead, fetch_ahead
from poisonwatch.sources.base import SourceFile


class Far(SourceFile):
    """A unit of a server that counts who asks it."""

    at_once = most_at_once = held = most_held = 0
    lock = threading.Lock()

    def __init__(self, number: int, size: int | None = 1000) -> None:
        super().__init__(f"{number:04}", "1")
        self.size = size
        self.fetched = 0

    @property
    def fetched_bytes(self) -> int | None:
        return self.size

    def fetch(self) -> None:
        kind = type(self)
        with kind.lock:
            kind.at_once += 1
            kind.held += self.size or 0
            kind.most_at_once = max(kind.most_at_once, kind.at_once)
            kind.most_held = max(kind.most_held, kind.held)
        # Later ones are done sooner.
        time.sleep(0.001 * (9 - int(self.name) % 10))
        self.fetched += 1
        self._content = self.name.encode()
        with kind.lock:
            kind.at_once -= 1

    def read(self, after: str | None = None) -> Iterator[RawRow]:
        yield RawRow(self.name, 0, self.name, record={}, raw=self._content or b"")
        type(self).held -= self.size or 0
        self.drop()


def test_units_come_in_their_order_each_fetched_once_and_several_at_a_time() -> None:
    """Whichever is done first."""

    class Small(Far):
        pass

    units = [Small(number) for number in range(200)]
    read = [row.raw.decode() for unit in fetch_ahead(units) for row in unit.read()]
    assert read == [unit.name for unit in units]
    assert {unit.fetched for unit in units} == {1}
    assert 1 < Small.most_at_once <= MOST_AT_ONCE


def test_what_is_fetched_and_not_read_is_bounded_by_bytes() -> None:
    """Of large files few wait; one that is larger than the bound is fetched alone."""

    class Large(Far):
        pass

    units = [Large(number, MOST_BYTES // 4) for number in range(20)]
    for unit in fetch_ahead(units):
        list(unit.read())
    # The one that is being read is not waiting any more.
    assert Large.most_held <= MOST_BYTES + MOST_BYTES // 4
    assert {unit.fetched for unit in units} == {1}


def test_a_unit_that_is_not_to_be_fetched_holds_up_no_other() -> None:
    """Nor does one that was never asked for: what was fetched of it is dropped."""
    units = [Far(0), Far(1, None), Far(2), Far(3)]
    with ReadAhead() as ahead:
        ahead.plan(units)
        for unit in units[:3]:
            ahead.bring(unit)
    assert [unit.fetched for unit in units[:3]] == [1, 0, 1]
    assert [unit._content for unit in units] == [b"0000", None, b"0002", None]


def test_units_of_this_machine_start_no_thread() -> None:
    """They are read as they are."""
    before = threading.active_count()
    units = [Far(number, None) for number in range(5)]
    assert list(fetch_ahead(units)) == units
    assert threading.active_count() == before
