"""Interrupts that a callback swallowed, or that came out wrapped in another error."""

import signal
from collections.abc import Iterator

import pytest
from prefect.exceptions import TerminationSignal
from pydantic import BaseModel, field_serializer

from poisonwatch import interrupt
from poisonwatch.errors import InputError


@pytest.fixture
def handled() -> Iterator[None]:
    """Both signals are ours for one test, and nothing is remembered after it."""
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    interrupt.install_handler()
    yield
    interrupt.install_handler()
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.parametrize(
    ("number", "raised"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, interrupt.Terminated)],
)
@pytest.mark.usefixtures("handled")
def test_an_interrupt_that_was_lost_is_raised_at_the_next_stage(
    number: signal.Signals, raised: type[KeyboardInterrupt]
) -> None:
    """Where the first KeyboardInterrupt fell into a callback that swallowed it."""
    with pytest.raises(raised):
        signal.raise_signal(number)
    with pytest.raises(raised):
        interrupt.raise_if_interrupted()
    interrupt.install_handler()
    interrupt.raise_if_interrupted()


def test_an_interrupt_is_found_behind_what_it_caused() -> None:
    """A server that Ctrl-C ended refuses the report of the crash: that is no lost server."""
    error = RuntimeError("Failed to reach API")
    assert interrupt.find_interrupt(error) is None
    error.__context__ = ValueError()
    error.__context__.__context__ = KeyboardInterrupt()
    assert interrupt.find_interrupt(error) is KeyboardInterrupt
    # as Prefect raises SIGTERM while a flow runs
    error.__context__.__context__ = TerminationSignal(signal.SIGTERM)
    assert interrupt.find_interrupt(error) is interrupt.Terminated


class Settings(BaseModel):
    """While it is written as JSON, somebody ends the program."""

    every: int

    @field_serializer("every")
    def _end(self, every: int) -> int:
        signal.raise_signal(signal.SIGTERM)
        return every


@pytest.mark.usefixtures("handled")
def test_an_interrupt_that_a_library_wraps_comes_out_as_itself() -> None:
    """pydantic makes an error of its own of whatever a serializer raises."""
    with pytest.raises(interrupt.Terminated), interrupt.unwrapped():
        Settings(every=1).model_dump_json()


@pytest.mark.usefixtures("handled")
def test_what_no_interrupt_led_to_stays_what_it_is() -> None:
    """An error before any signal, and one of ours after one."""
    with pytest.raises(ZeroDivisionError), interrupt.unwrapped():
        print(1 / 0)
    with pytest.raises(interrupt.Terminated):
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(InputError), interrupt.unwrapped():
        raise InputError("no such row")
