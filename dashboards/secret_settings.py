"""Secrets that a service is given: by an environment variable, or by a file that another names, as
container platforms mount them. Never by an option: a command line is seen by everybody on the
machine.
"""

import os
from pathlib import Path

from poisonwatch.errors import InputError

FILE_SUFFIX = "_FILE"
MOST_BYTES = 64 * 1024


def read_secret(variable: str) -> str | None:
    """The secret in the environment variable, or in the file that `<variable>_FILE` names, without
    the line end at its end; None where neither is set.

    Raises InputError where both are, or the file cannot be read; the message never holds the
    secret.
    """
    given = os.environ.get(variable)
    path = os.environ.get(variable + FILE_SUFFIX)
    if path is None:
        return given
    if given is not None:
        raise InputError(f"both {variable} and {variable}{FILE_SUFFIX} are set: leave one out")
    try:
        with Path(path).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"the file that {variable}{FILE_SUFFIX} names cannot be read: {error.strerror}"
        ) from None
    if len(content) > MOST_BYTES:
        raise InputError(
            f"the file that {variable}{FILE_SUFFIX} names holds more than a secret: "
            f"at most {MOST_BYTES:,} bytes are read"
        )
    # as the environment does: bytes that are no UTF-8 must not fail here
    text = content.decode("utf-8", "surrogateescape")
    return text.removesuffix("\n").removesuffix("\r")
