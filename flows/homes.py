"""Folders that other libraries write below a person's home, where there is no home to write to: in
containers with a read-only file system, for users that nobody listed, under service managers.

Set before these libraries are imported, which read them once; what a user has set stays.
"""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from poisonwatch.permissions import make_private_folder

# Where each is by default, by the variable that says otherwise. Caches of models are not among
# them: what is there already may be read, though nothing can be added.
HOMES = {
    "PREFECT_HOME": Path(".prefect"),
    "MPLCONFIGDIR": Path(".config", "matplotlib"),
}


def find_homes() -> None:
    """Have what cannot be written at home lie with temporary files instead."""
    for variable, place in HOMES.items():
        if os.environ.get(variable) or _can_write(_find_home() / place):
            continue
        # Without such a folder either, whoever needs it says so.
        with suppress(OSError):
            os.environ[variable] = str(_make_folder(variable.lower()))


def _find_home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        # A user id that nobody listed, and no HOME.
        return Path("/nonexistent")


def _can_write(folder: Path) -> bool:
    """Whether files can be made in a folder, which may have to be made first."""
    for place in (folder, *folder.parents):
        if place.exists():
            return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    return False


def _make_folder(name: str) -> Path:
    """The folder of this name among temporary files: the same for all processes of a user, and
    nobody else's.
    """
    folder = Path(tempfile.gettempdir(), f"poisonwatch-{os.getuid()}")
    with suppress(OSError):
        make_private_folder(folder)
    status = folder.lstat() if folder.exists() or folder.is_symlink() else None
    is_ours = status is not None and status.st_uid == os.getuid() and not folder.is_symlink()
    if not is_ours or not os.access(folder, os.W_OK | os.X_OK):
        # Somebody else was there first.
        folder = Path(tempfile.mkdtemp(prefix="poisonwatch-"))
    made = folder / name
    make_private_folder(made)
    return made
