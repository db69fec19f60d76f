"""Which errors mean that a Prefect server is gone, and which are ours to raise."""

import httpx
import pytest
from prefect.exceptions import PrefectHTTPStatusError

from poisonwatch.flows.prefect_server import is_refused, is_server_gone


def answer(status: int) -> PrefectHTTPStatusError:
    """What Prefect raises where its server answers with an error."""
    request = httpx.Request("POST", "http://127.0.0.1:4200/api/flows/")
    response = httpx.Response(status, request=request)
    return PrefectHTTPStatusError("an error", request=request, response=response)


GONE = [
    httpx.ConnectError("refused"),
    httpx.ReadTimeout("slow"),
    RuntimeError("Failed to reach API at http://127.0.0.1:4200/api/"),
    RuntimeError("Service exceeded error threshold."),
    answer(503),
    ExceptionGroup("tasks", [ValueError("ours"), httpx.ConnectError("refused")]),
]
OURS = [
    ValueError("Failed to reach API"),
    RuntimeError("something else"),
    answer(404),
    answer(422),
    ExceptionGroup("tasks", [ValueError("ours")]),
]


@pytest.mark.parametrize("error", GONE, ids=repr)
def test_a_server_that_nobody_answers_at_is_gone(error: Exception) -> None:
    """Or one that is out of order; also where the error is one of a group."""
    assert is_server_gone(error)


@pytest.mark.parametrize("error", OURS, ids=repr)
def test_a_server_that_answers_is_there(error: Exception) -> None:
    """What it does not like is our mistake, as any other error is."""
    assert not is_server_gone(error)


def test_a_server_that_asks_who_we_are_is_neither() -> None:
    """401 and 403 of Prefect's own server, and of no other."""
    assert is_refused(answer(401))
    assert is_refused(ExceptionGroup("tasks", [answer(403)]))
    assert not is_refused(answer(404))
    other = httpx.HTTPStatusError(
        "a hub's", request=answer(401).request, response=answer(401).response
    )
    assert not is_refused(other)
