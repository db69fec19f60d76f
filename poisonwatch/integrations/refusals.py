"""Why a message was not taken: what that says of the target, and what of the message."""

from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """What kept a message from a target."""

    UNREACHABLE = "unreachable"
    """Nobody is there."""
    LATE = "late"
    """Somebody is, and did not answer in time."""
    BUSY = "busy"
    """The target asks to come back, or is broken."""
    DENIED = "denied"
    """The target takes nothing from us: credentials, encryption, an address that is gone."""
    REFUSED = "refused"
    """The target does not take this message, and may take the next."""
    UNKNOWN = "unknown"
    """The message was not taken, and nobody says why."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message was not taken, in `words` that follow the target's name and hold no address; the
    target asks to be left alone for `retry_after` seconds, where it says so.
    """

    cause: Cause
    words: str
    retry_after: float | None = None


# Answers that say something of whoever asks, or of the address.
DENIALS = frozenset({401, 402, 403, 404, 405, 407, 410})
# Of the server, at this moment.
DELAYS = frozenset({408, 425, 429})


def judge_status(status: int, retry_after: float | None = None) -> Refusal:
    """What an HTTP status from 400 says."""
    words = f"answered {status}"
    if status in DELAYS or status >= 500:
        if retry_after is not None:
            words += f" (asks for {retry_after:.0f} s)"
        return Refusal(Cause.BUSY, words, retry_after)
    if status in DENIALS:
        return Refusal(Cause.DENIED, words)
    return Refusal(Cause.REFUSED, words)
