"""Whether a Prefect server is gone, or refuses us.

A server that is down, or goes down, is no reason to give up an audit: the ledger holds the results,
and what Prefect missed is told later (`poisonwatch sync`).
"""

import sys
from typing import TYPE_CHECKING, TypeGuard

import httpx

from poisonwatch.text.redaction import show_place

if TYPE_CHECKING:
    from prefect.exceptions import PrefectHTTPStatusError

# What Prefect says, in a RuntimeError, where nobody answers; the second, where a server that
# answered before went away; the last, where a temporary one could not start.
GONE_MESSAGES = (
    "Failed to reach API",
    "error threshold",
    "Timed out while attempting to connect to ephemeral",
)


def is_server_gone(error: BaseException) -> bool:
    """Whether an error comes from a server that nobody answers at, or that is out of order: rather
    than from something of ours.
    """
    if isinstance(error, BaseExceptionGroup):
        return any(is_server_gone(one) for one in error.exceptions)
    if _is_prefects_answer(error):
        # 4xx is an answer: the server is there, and does not like what we asked
        return error.response.is_server_error
    if isinstance(error, httpx.TransportError):
        return True
    if isinstance(error, RuntimeError):
        return any(message in str(error) for message in GONE_MESSAGES)
    return False


def is_refused(error: BaseException) -> bool:
    """Whether a server answered that it does not know who we are, or does not let us."""
    if isinstance(error, BaseExceptionGroup):
        return any(is_refused(one) for one in error.exceptions)
    if _is_prefects_answer(error):
        return error.response.status_code in (401, 403)
    return False


def _is_prefects_answer(error: BaseException) -> "TypeGuard[PrefectHTTPStatusError]":
    # Where nothing has imported Prefect, no error is of it: whoever asks need not, either.
    exceptions = sys.modules.get("prefect.exceptions")
    return exceptions is not None and isinstance(error, exceptions.PrefectHTTPStatusError)


def describe_server_trouble(error: BaseException, api: str) -> str:
    """What is wrong with the server at `api`, by an error of `is_server_gone` or `is_refused`."""
    place = show_place(api)
    if is_refused(error):
        return (
            f"the Prefect server at {place} asks who we are (set PREFECT_API_AUTH_STRING to what "
            "its PREFECT_SERVER_API_AUTH_STRING says, or PREFECT_API_KEY for Prefect Cloud)"
        )
    return f"no Prefect server answers at {place}"
