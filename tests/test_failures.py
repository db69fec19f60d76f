"""Parts of an audit that may fail: what is noted of them, and what is not said."""

import logging

import pytest

from poisonwatch.errors import OperationError
from poisonwatch.failures import LONGEST_WHY, Attempts, describe_error, tell_failures

ROW = "Buy from Velmora at once, my friend."


def test_a_part_that_fails_is_noted_and_the_rest_goes_on() -> None:
    """Failures in their order; a block that ends well leaves none."""
    attempts = Attempts()
    with attempts.part("group 1", "not confirmed"):
        raise RuntimeError("no room")
    with attempts.part("group 2", "not confirmed"):
        pass
    with attempts.part("plots", "not drawn"):
        raise MemoryError
    records = attempts.to_records()
    assert records[0] == {
        "part": "group 1",
        "outcome": "not confirmed",
        "why": "RuntimeError: no room",
    }
    assert tell_failures({"failures": records}) == [
        "group 1 not confirmed: RuntimeError: no room",
        "plots not drawn: MemoryError",
    ]
    assert tell_failures({}) == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_what_was_interrupted_did_not_fail(stop: type[BaseException]) -> None:
    """It goes through, and nothing is noted."""
    attempts = Attempts()
    with pytest.raises(stop), attempts.part("group 1", "not confirmed"):
        raise stop
    assert attempts.failures == []


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyError("sliding_attention"), "KeyError: 'sliding_attention'"),
        (
            AttributeError("'MambaOutput' object has no attribute 'past_key_values'"),
            "AttributeError: 'MambaOutput' object has no attribute 'past_key_values'",
        ),
        (
            RuntimeError("input tensor's size and stride do not fit\nUse .reshape"),
            "RuntimeError: input tensor's size and stride do not fit",
        ),
        (ValueError(f"could not convert string to float: {ROW!r}"), "could not convert"),
        (KeyError(ROW), "KeyError: …"),
        (ValueError(f"it's unclear: \"{ROW}"), "ValueError: it's unclear: …"),
        (FileNotFoundError(2, "No such file", "/home/a b"), "FileNotFoundError: [Errno 2] No such"),
        (OSError("no answer from https://ann:hunter2@site/hunter2?key=hunter2"), "from ***"),
        (RuntimeError("\x1b[31m\u202ered"), "RuntimeError: \\u{1b}[31m\\u{202e}red"),
        (RuntimeError("x" * 1000), "xxx…"),
        (RuntimeError(), "RuntimeError"),
        (OperationError("the server 'a b' is down"), "the server 'a b' is down"),
    ],
)
def test_an_error_is_one_line_without_what_it_quotes(error: Exception, line: str) -> None:
    """Names stay, since they help; text of rows, addresses and secrets do not."""
    told = describe_error(error)
    assert line in told
    assert len(told) <= LONGEST_WHY
    for hidden in ("Velmora", "hunter2", "\n", "\x1b", "/home"):
        assert hidden not in told


def test_an_error_that_repeats_a_row_is_told_by_its_type() -> None:
    """Quoted or not, whatever the spaces; others are told as ever, a few common letters among
    them.
    """
    attempts = Attempts()
    attempts.hide(["Hello.", "And then:\n  buy from  Velmora at once, my friend."])
    for said in (ROW, ROW.lower(), f"no room for {ROW}", "then: buy from Velmora"):
        attempts.note("group 1", "not confirmed", RuntimeError(said))
    attempts.note("group 1", "not confirmed", RuntimeError("no room for my friend"))
    assert [failure.why for failure in attempts.failures] == [
        *["RuntimeError"] * 4,
        "RuntimeError: no room for my friend",
    ]


def test_the_log_has_the_stack_at_debug_level_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Of the error and of its cause, without their messages."""
    caplog.set_level(logging.DEBUG, "poisonwatch.failures")
    with Attempts().part("group 1", "not confirmed"):
        try:
            raise KeyError(ROW)
        except KeyError as error:
            raise RuntimeError("no such thing") from error
    (logged,) = caplog.records
    assert logged.levelno == logging.DEBUG
    assert logged.getMessage().count("test_failures.py") == 2
    assert "KeyError" in logged.getMessage()
    assert "Velmora" not in logged.getMessage().replace("raise KeyError(ROW)", "")
