"""Logs and errors that nobody here caught hold no secrets."""

import io
import logging
import traceback
from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from poisonwatch.concealment import conceal_all, conceal_errors, conceal_logs, guard
from poisonwatch.text.secrets import Secrets

PASSWORD = "hunter2/secret"
SECRETS = Secrets([f"postgresql://ann:{PASSWORD}@db/x"])


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What a library's logger writes, with the stacks of errors."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    logger = logging.getLogger("somebodys.package")
    logger.addHandler(handler)
    yield written
    logger.removeHandler(handler)


def fail() -> None:
    try:
        raise ConnectionError(f"no answer to {PASSWORD}")
    except ConnectionError as error:
        raise OSError(2, f"bad {PASSWORD}", f"/data/{PASSWORD}") from error


def test_a_log_holds_no_secret_while_an_audit_is_at_work(logged: io.StringIO) -> None:
    """Neither in the message and what is put into it, nor in the stack of an error; before and
    after, logs are as they are.
    """
    logger = logging.getLogger("somebodys.package")
    before = logging.getLogRecordFactory()
    with conceal_logs(SECRETS), conceal_logs(Secrets(["https://tok3n-tok3n@host"])):
        logger.warning("connecting with %s to %s", PASSWORD, "db")
        logger.warning("login tok3n-tok3n")
        try:
            fail()
        except OSError:
            logger.exception("it failed")
    assert logging.getLogRecordFactory() is before
    said = logged.getvalue()
    assert "connecting with *** to db" in said
    assert "login ***" in said
    assert "no answer to ***" in said
    for secret in (PASSWORD, "tok3n-tok3n"):
        assert secret not in said
    logger.warning("after: %s", PASSWORD)
    assert PASSWORD in logged.getvalue()


def test_an_error_and_what_led_to_it_hold_no_secret() -> None:
    """Of whatever kind; it stays the error that it was."""
    with pytest.raises(OSError, match=r"bad \*\*\*") as caught, conceal_errors(SECRETS):
        fail()
    assert caught.value.errno == 2
    shown = "".join(traceback.format_exception(caught.value))
    assert "no answer to ***" in shown
    assert PASSWORD not in shown


def test_a_guarded_function_is_the_function() -> None:
    """It returns what it does, and what it raises holds no secret."""
    assert guard(divmod, SECRETS)(7, 3) == (2, 1)
    engine = create_engine("sqlite://")

    @conceal_all(SECRETS)
    def ask() -> None:
        with engine.connect() as connection:
            connection.execute(text(f"SELECT '{PASSWORD}' FROM nowhere"))

    with pytest.raises(SQLAlchemyError, match="nowhere") as caught:
        ask()
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))
