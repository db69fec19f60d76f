"""Ctrl-C that is not lost: Python drops a KeyboardInterrupt that is raised inside a callback, of
garbage collection say. What was dropped is raised again at the next stage, or batch of rows.
"""

import signal
from typing import Any

# Of the process, as signal handlers are.
_interrupted = False


def install_handler() -> None:
    """From now on a SIGINT is remembered as well as raised."""
    global _interrupted
    _interrupted = False
    signal.signal(signal.SIGINT, _remember)


def _remember(number: int, frame: Any) -> None:
    """The handler: as Python's own, but that it leaves a note first."""
    global _interrupted
    _interrupted = True
    signal.default_int_handler(number, frame)


def raise_if_interrupted() -> None:
    """Raise the KeyboardInterrupt that was asked for, where it was lost: called between stages, and
    between batches of rows.
    """
    if _interrupted:
        raise KeyboardInterrupt


def was_interrupted(error: BaseException | None) -> bool:
    """Whether an interrupt led to an error: a temporary Prefect server gets Ctrl-C too, and what it
    then refuses hides what happened.
    """
    # the whole chain, since Prefect wraps what it fails to report in errors of its own
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return _interrupted
