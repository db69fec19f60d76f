"""What becomes of an error that nobody foresaw: one line on stderr, and a file with the traceback.

The file is for its owner alone. It lies beside the ledger of the audit that the command is about,
or, where that cannot be written or there is none, in the folder for temporary files. Neither the
line nor the file holds a secret of the audit or of the environment.
"""

import os
import platform
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import poisonwatch
from poisonwatch.failures import describe_error
from poisonwatch.permissions import make_private_file
from poisonwatch.text.display import make_visible
from poisonwatch.text.secrets import Secrets
from poisonwatch.text.sqlite_files import find_sqlite_file

if TYPE_CHECKING:
    from poisonwatch.config import AuditConfig

MOST_LINES = 2000  # of a traceback: an endless recursion through many modules has more


def write_crash(error: BaseException, arguments: Sequence[str]) -> str:
    """Keep the traceback of an error that ended the command with these arguments; returns the line
    that tells of it.
    """
    config = _find_config(arguments)
    secrets = Secrets() if config is None else config.find_secrets()
    said = f"unexpected {_describe(error, secrets)}"
    text = _format(error, arguments, secrets)
    for folder in _list_folders(config):
        with suppress(OSError):
            path = _write(folder, text)
            return (
                f"{said}; the traceback is in {path}: if it says nothing that you can mend, "
                "report it with that file"
            )
    return f"{said}; no folder could be written for its traceback: make room in {_name_temporary()}"


def _describe(error: BaseException, secrets: Secrets) -> str:
    """The error's type and what it says; where even that fails, its type."""
    try:
        return describe_error(error, secrets)
    except Exception:
        return type(error).__name__


def _find_config(arguments: Sequence[str]) -> "AuditConfig | None":
    """The settings of the audit file among the arguments: they know the secrets, and the ledger."""
    from poisonwatch.config_file import load_config

    for argument in arguments:
        # Whatever is wrong with it is not what the command ended by.
        with suppress(Exception):
            if not argument.startswith("-") and Path(argument).is_file():
                return load_config(argument)
    return None


def _list_folders(config: "AuditConfig | None") -> Iterator[Path]:
    """Where the file may lie, the best place first."""
    if config is not None:
        with suppress(Exception):
            from poisonwatch.sources.sql import parse_database_url

            ledger = find_sqlite_file(parse_database_url(config.state, "state").database)
            if ledger is not None:
                yield ledger.parent
    with suppress(OSError):
        yield Path(tempfile.gettempdir())


def _name_temporary() -> str:
    try:
        return tempfile.gettempdir()
    except OSError:
        return "/tmp, or name another folder in TMPDIR"  # noqa: S108  (a word to people)


def _write(folder: Path, text: str) -> Path:
    at = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    path = folder / f"poisonwatch-crash-{at}-{os.getpid()}.txt"
    make_private_file(path)
    # No link that somebody else put in its place is followed.
    descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return path


def _format(error: BaseException, arguments: Sequence[str], secrets: Secrets) -> str:
    """What the file holds: versions, the command's name, and the traceback."""
    lines = [
        f"poisonwatch {poisonwatch.__version__}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}",
        # What follows the name may hold secrets that no settings know.
        f"command: {arguments[0] if arguments else 'none'}",
        "",
    ]
    # Whole: a secret that holds the end of a line would be cut in two.
    whole = secrets.conceal_known("".join(traceback.format_exception(error)))
    found = whole.splitlines()
    if len(found) > MOST_LINES:
        half = MOST_LINES // 2
        found = [*found[:half], f"... {len(found) - MOST_LINES:,} lines ...", *found[-half:]]
    lines += [make_visible(secrets.conceal(line)) for line in found]
    return "\n".join(lines) + "\n"
