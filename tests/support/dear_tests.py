"""Which tests are dear: functions whose cases together, with what is set up for each, take more
than a quarter of a second of a processor. `make quick` leaves them out.

`dear_tests.txt` names them, and dear fixtures that tests share, with which goes whoever uses one.
`make dear` measures the tests anew, and writes it.
"""

import os
from collections import Counter
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

LISTED = Path(__file__).parent / "dear_tests.txt"
# Of a processor, in seconds.
DEAR_S = 0.25
DEAR_FIXTURE_S = 1.0
STANDS_OUT_S = 1.0  # in `make quick`: on a busy machine all takes twice what it does on an idle one
# What was measured travels to the process that gives out the tests as properties of their reports.
OF_TEST, OF_FIXTURE = "processor_s of ", "fixture_processor_s of "


def read_dear() -> set[str]:
    """The names of functions and fixtures that are dear."""
    return set(LISTED.read_text(encoding="utf-8").split())


def is_dear(item: pytest.Item, dear: set[str]) -> bool:
    """Whether a test's function is among the `dear`, or one of its fixtures."""
    fixtures = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]
    names = {_name_test(item)}
    for definitions in fixtures.values():
        names.update(_name_fixture(definition) for definition in definitions)
    return not dear.isdisjoint(names)


def choose_dear(listed: set[str], costs: Mapping[str, float]) -> list[str]:
    """The names to be listed, where these were: of what was measured those that are dear, by their
    `costs` in seconds of a processor, and of all else what was listed.
    """
    measured: set[str] = set()
    dear: set[str] = set()
    for what, cost in costs.items():
        name = what.removeprefix(OF_TEST).removeprefix(OF_FIXTURE)
        measured.add(name)
        if cost > (DEAR_S if what.startswith(OF_TEST) else DEAR_FIXTURE_S):
            dear.add(name)
    return sorted((listed - measured) | dear)


class Meter:
    """Measures what tests take of a processor, processes that ended included. Where it `writes`,
    the list has what was measured now of those that ran; else it says which stand out.
    """

    def __init__(self, writes: bool) -> None:
        self._writes = writes
        self._costs: Counter[str] = Counter()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Measure a test."""
        start = _count_seconds()
        try:
            return (yield)
        finally:
            _note(item, OF_TEST + _name_test(item), start)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """Measure a fixture: of one test, to whose cost it belongs, or of many."""
        start, item = _count_seconds(), request._pyfuncitem
        name = OF_FIXTURE + _name_fixture(fixturedef)
        if fixturedef.scope == "function":
            name = OF_TEST + _name_test(item)
        try:
            return (yield)
        finally:
            _note(item, name, start)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Gather what was measured, here or by a worker."""
        if report.when == "call":
            for name, value in report.user_properties:
                if name.startswith((OF_TEST, OF_FIXTURE)):
                    self._costs[name] += float(str(value))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Write which are dear, or say which stand out."""
        if self._writes:
            names = choose_dear(read_dear(), self._costs)
            LISTED.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
            return
        for name, cost in self._costs.most_common():
            if cost > STANDS_OUT_S:
                terminalreporter.write_line(f"{cost:.1f} {name}: see `make dear`")


def _name_test(item: pytest.Item) -> str:
    """Its function's name, whatever the case."""
    return item.nodeid.partition("[")[0]


def _name_fixture(definition: pytest.FixtureDef[Any]) -> str:
    return f"{definition.baseid}::{definition.argname}"


def _count_seconds() -> float:
    """What this process took of a processor so far, and those it waited for."""
    return sum(os.times()[:4])


def _note(item: pytest.Item, name: str, start: float) -> None:
    item.user_properties.append((name, round(_count_seconds() - start, 3)))
