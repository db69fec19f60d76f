"""Secrets kept out of what others write down: logs, and errors that nobody here caught.

Whoever takes a log or a failure (the terminal, a Prefect server, a service manager) gets it without
the secrets of the audit at work.
"""

import functools
import logging
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from poisonwatch.text.secrets import Secrets

P = ParamSpec("P")
R = TypeVar("R")

MOST_CAUSES = 20  # of an error: a chain that closes on itself has no end

_installing = threading.RLock()
_at_work: list[Secrets] = []


@contextmanager
def conceal_logs(secrets: Secrets) -> Iterator[None]:
    """Take the secrets out of every record that is logged while the block lasts, by whomever and
    for whatever handler.
    """
    with _installing:
        before = logging.getLogRecordFactory()
        if not _at_work:
            logging.setLogRecordFactory(functools.partial(_make_record, before))
        _at_work.append(secrets)
    try:
        yield
    finally:
        with _installing:
            _at_work.remove(secrets)
            if not _at_work:
                _restore_factory()


def _restore_factory() -> None:
    factory = logging.getLogRecordFactory()
    # Somebody else's, set since, stays.
    if isinstance(factory, functools.partial) and factory.func is _make_record:
        logging.setLogRecordFactory(factory.args[0])


def _make_record(
    make: Callable[..., logging.LogRecord], *args: Any, **kwargs: Any
) -> logging.LogRecord:
    record = make(*args, **kwargs)
    try:
        message = record.getMessage()
    except (TypeError, ValueError):
        # Arguments that do not fit: whoever handles it says so.
        return record
    concealed = _conceal(message)
    if concealed != message:
        record.msg, record.args = concealed, ()
    if record.exc_info and record.exc_info[1] is not None:
        # Formatters take this where it is there, and ask the error itself otherwise.
        lines = traceback.format_exception(*record.exc_info)
        record.exc_text = _conceal("".join(lines)).rstrip("\n")
    return record


def _conceal(text: str) -> str:
    for secrets in list(_at_work):
        text = secrets.conceal_known(text)
    return text


@contextmanager
def conceal_errors(secrets: Secrets) -> Iterator[None]:
    """Take the secrets out of an error that leaves the block, and of those that led to it."""
    try:
        yield
    except Exception as error:
        take_secrets_out(error, secrets)
        raise


@contextmanager
def conceal_all(secrets: Secrets) -> Iterator[None]:
    """`conceal_logs` and `conceal_errors`."""
    with conceal_logs(secrets), conceal_errors(secrets):
        yield


def guard(function: Callable[P, R], secrets: Secrets) -> Callable[P, R]:
    """The function, whose errors hold no secrets."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with conceal_errors(secrets):
            return function(*args, **kwargs)

    return call


def take_secrets_out(error: BaseException, secrets: Secrets) -> None:
    """Change what an error says, and what those say that led to it."""
    cause: BaseException | None = error
    for _ in range(MOST_CAUSES):
        if cause is None:
            return
        cause.args = tuple(_clean(value, secrets) for value in cause.args)
        # What errors of the system, of HTTP and of databases say is not in their arguments alone.
        for name in ("filename", "filename2", "strerror", "message", "statement", "msg"):
            value = getattr(cause, name, None)
            if isinstance(value, str):
                _set(cause, name, _clean(value, secrets))
        cause = cause.__cause__ or cause.__context__


def _clean(value: Any, secrets: Secrets) -> Any:
    if isinstance(value, str):
        return secrets.conceal_known(value)
    if isinstance(value, BaseException):
        take_secrets_out(value, secrets)
    return value


def _set(error: BaseException, name: str, value: str) -> None:
    try:
        setattr(error, name, value)
    except (AttributeError, TypeError):
        # Of a class that lets nobody change it.
        return
