"""Who may read what Poisonwatch writes: new files and folders that hold rows, or tell of them, are
for their owner alone (0600, 0700).

`POISONWATCH_UMASK` is for those who share them: 007 lets the group read and write, 027 lets it
read. It is an octal umask, as that of a shell.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

from poisonwatch.errors import ConfigError

UMASK_VARIABLE = "POISONWATCH_UMASK"
OWNER_ALONE = 0o077
_OCTAL = re.compile("0?[0-7]{3}")


def read_umask() -> int:
    """The rights that new files do not give. Raises ConfigError where the environment's umask is
    none, or would take the owner's own.
    """
    text = os.environ.get(UMASK_VARIABLE, "")
    if not text:
        return OWNER_ALONE
    umask = OWNER_ALONE
    if _OCTAL.fullmatch(text):
        umask = int(text, 8)
    if not _OCTAL.fullmatch(text) or umask & 0o700:
        raise ConfigError(
            f"{UMASK_VARIABLE} is no umask that leaves the owner everything: give three octal "
            "digits, as 077 (the owner alone) or 007 (the group, too)"
        )
    return umask


def restrict_process() -> None:
    """All that this process writes from now on, and the processes it starts, is for its owner
    alone. Of the command line and flows: a library does not change its caller's process.

    Raises ConfigError as `read_umask` does.
    """
    os.umask(read_umask())


def make_private_folder(path: Path) -> None:
    """Make a folder, and those above it, where there are none. One that is there keeps its rights:
    it is whoever made it that shares it.
    """
    rights = 0o777 & ~read_umask()
    missing = []
    for folder in (path, *path.parents):
        if folder.exists():
            break
        missing.append(folder)
    for folder in reversed(missing):
        folder.mkdir(mode=rights, exist_ok=True)
        # What the process's own umask took.
        _set_rights(folder, rights)
    if not missing:
        # A file in its place is no folder.
        path.mkdir(exist_ok=True)


def make_private_file(path: Path) -> None:
    """Make an empty file where there is none, so that it is never anybody else's to open."""
    rights = 0o666 & ~read_umask()
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, rights))
        _set_rights(path, rights)


def restrict_file(path: Path) -> None:
    """Take away from a file what others may do with it."""
    _set_rights(path, 0o666 & ~read_umask())


def restrict_folder(path: Path) -> None:
    """Take away from a folder what others may do in it."""
    _set_rights(path, 0o777 & ~read_umask())


def _set_rights(path: Path, rights: int) -> None:
    # Some file systems know no rights, as those of USB sticks and of other systems' shares.
    with suppress(PermissionError, NotImplementedError):
        path.chmod(rights)
