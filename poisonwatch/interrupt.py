"""Ctrl-C that is not lost, and SIGTERM heard as it: Python drops a KeyboardInterrupt that is raised
inside a callback, of garbage collection say. What was dropped is raised again at the next stage, or
batch of rows.

`docker stop`, systemd, Kubernetes and batch systems end a program with SIGTERM, which would kill it
where it stands, and as the first process of a container it would not be heard at all.
"""

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import Any

from poisonwatch.errors import PoisonwatchError


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


# Of the process, as signal handlers are.
_interrupt: type[KeyboardInterrupt] | None = None


def install_handler() -> None:
    """From now on SIGINT and SIGTERM are raised as KeyboardInterrupt, and remembered."""
    global _interrupt
    _interrupt = None
    sys.unraisablehook = _tell_of_dropped
    signal.signal(signal.SIGINT, _remember)
    signal.signal(signal.SIGTERM, _remember)


def _tell_of_dropped(dropped: "sys.UnraisableHookArgs") -> None:
    """An error that Python drops is shown, but for an interrupt: that one is raised again."""
    if not issubclass(dropped.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(dropped)


def _remember(number: int, _: Any) -> None:
    """The handler: as Python's own for SIGINT, but that it leaves a note first."""
    global _interrupt
    _interrupt = KeyboardInterrupt
    if number == signal.SIGTERM:
        _interrupt = Terminated
    raise _interrupt


def raise_if_interrupted() -> None:
    """Raise the KeyboardInterrupt that was asked for, where it was lost: called between stages, and
    between batches of rows.
    """
    if _interrupt is not None:
        raise _interrupt


def find_interrupt(error: BaseException | None) -> type[KeyboardInterrupt] | None:
    """The interrupt that led to an error, if one did: a temporary Prefect server gets the signal,
    too, and what it then refuses hides what happened.
    """
    # the whole chain, since Prefect wraps what it fails to report in errors of its own
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return type(error)
        # while a flow runs, Prefect makes a TerminationSignal of SIGTERM
        if getattr(error, "signal", None) == signal.SIGTERM:
            return Terminated
        error = error.__cause__ or error.__context__
    return _interrupt


@contextlib.contextmanager
def unwrapped() -> Iterator[None]:
    """An error that an interrupt led to leaves this block as that interrupt: a library that calls
    back wraps whatever is raised there, as pydantic does where it writes JSON. What we say of an
    error ourselves stays what it is.
    """
    try:
        yield
    except PoisonwatchError:
        raise
    except Exception as error:
        ended_by = find_interrupt(error)
        if ended_by is None:
            raise
        raise ended_by from error
