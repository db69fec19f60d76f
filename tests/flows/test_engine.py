"""Tasks that an audit can do without: what becomes of their failures."""

from typing import Any

import httpx
import pytest

from poisonwatch.errors import OperationError
from poisonwatch.flows.engine import Engine
from poisonwatch.tasks.options import PLAIN, task


@task(**PLAIN)
def send(error: BaseException | None) -> int:
    if error is not None:
        raise error
    return 3


class Through(Engine):
    """Calls tasks as one that is not inline does, but without a server."""

    def __call__(self, task: Any, *args: Any) -> Any:
        return task.fn(*args)


def test_a_task_that_fails_is_a_warning_and_no_end() -> None:
    """Whatever it raises: what the world did in its own words, a mistake of ours by its type,
    without what it quotes; the same once.
    """
    engine = Engine(inline=True)
    down = OperationError("MLflow at http://here cannot be reached")
    for error in (down, down, KeyError("the text of a row"), httpx.ConnectError("refused")):
        assert engine.attempt(send, error) is None
    assert engine.attempt(send, None) == 3
    assert engine.warnings == [
        "MLflow at http://here cannot be reached",
        "send failed: KeyError: …",
        "send failed: ConnectError: refused",
    ]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_ends_what_is_only_attempted(stop: type[BaseException]) -> None:
    engine = Engine(inline=True)
    with pytest.raises(stop):
        engine.attempt(send, stop())
    assert engine.warnings == []


def test_a_prefect_server_that_is_gone_is_no_task_s_failure() -> None:
    """Who started the flow goes on without it; a mistake of ours stays a warning."""
    engine = Through(inline=False)
    with pytest.raises(httpx.ConnectError):
        engine.attempt(send, httpx.ConnectError("refused"))
    assert engine.attempt(send, ZeroDivisionError()) is None
    assert engine.warnings == ["send failed: ZeroDivisionError"]
