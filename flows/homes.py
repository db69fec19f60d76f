"""Who runs this process, and where it may write, where the system does not say: in containers with
a read-only file system, under numbers that no user has, under service managers; and where a home is
on a disk that is full.

Set before libraries that read it once are imported; what a user has set stays. Of the command line:
a library does not change its caller's process.
"""

import getpass
import logging
import os
import shutil
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path

from poisonwatch.permissions import make_private_folder, read_umask

USER_VARIABLE = "LOGNAME"  # that Python asks first
HOME_VARIABLE = "HOME"
# Folders that other libraries write below a home, by the variable that says otherwise. Caches of
# models are not among them: what is there already may be read, though nothing can be added.
HOMES = {
    "PREFECT_HOME": Path(".prefect"),
    "MPLCONFIGDIR": Path(".config", "matplotlib"),
}
# Where a Prefect server is named. It may be read, though nothing can be written beside it.
PROFILES_VARIABLE, PROFILES = "PREFECT_PROFILES_PATH", "profiles.toml"
LEAST_ROOM = 16 * 2**20  # bytes: what a Prefect server writes before it answers, several times over
_WRITABLE_BY_OTHERS = 0o022


def name_user() -> None:
    """Have this process, and what it starts, know a user's name: of one without, `uid-NUMBER`."""
    try:
        getpass.getuser()
    # Python 3.13 raises OSError.
    except (KeyError, OSError):
        os.environ[USER_VARIABLE] = f"uid-{os.getuid()}"


def find_homes() -> None:
    """Have there be a home, and what cannot be written there lie with temporary files instead."""
    try:
        home = Path.home()
    except RuntimeError:
        # A number that no user has, and no HOME.
        home = _make_folder("home")
        os.environ[HOME_VARIABLE] = str(home)
    for variable, place in HOMES.items():
        if os.environ.get(variable) or _can_write(home / place):
            continue
        try:
            os.environ[variable] = str(_make_folder(variable.lower()))
        except OSError:
            # Without such a folder either, whoever needs it says so; these two say so always.
            warnings.filterwarnings("ignore", "Failed to create the Prefect home", UserWarning)
            logging.getLogger("matplotlib").setLevel(logging.ERROR)
        if variable == "PREFECT_HOME":
            _keep_profiles(home / place)


def has_room(folder: Path) -> bool:
    """Whether the disk of a folder, which may have to be made first, has room for what other
    libraries write below a home.
    """
    there = next((place for place in (folder, *folder.parents) if place.is_dir()), None)
    try:
        return there is not None and shutil.disk_usage(there).free >= LEAST_ROOM
    except OSError:
        return False


def _keep_profiles(folder: Path) -> None:
    """Have Prefect read its profiles where they are: else it would know of no server."""
    profiles = folder / PROFILES
    if os.access(profiles, os.R_OK):
        os.environ.setdefault(PROFILES_VARIABLE, str(profiles))


def _can_write(folder: Path) -> bool:
    """Whether files can be made in a folder, which may have to be made first, and filled."""
    for place in (folder, *folder.parents):
        if place.exists():
            return place.is_dir() and _is_writable(place) and has_room(place)
    return False


def _make_folder(name: str) -> Path:
    """The folder of this name among temporary files: the same for all processes of a user, and
    nobody else's.
    """
    folder = Path(tempfile.gettempdir(), f"poisonwatch-{os.getuid()}")
    with suppress(OSError):
        make_private_folder(folder)
    if not _is_ours(folder):
        # Whoever knows the name was there first, and could read what is put there.
        folder = Path(tempfile.mkdtemp(prefix="poisonwatch-"))
    made = folder / name
    make_private_folder(made)
    return made


def _is_ours(folder: Path) -> bool:
    """Whether a folder is this user's, to write to and for nobody else to."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    # A group may write where whoever runs this shares what is written.
    is_shared = found.st_mode & _WRITABLE_BY_OTHERS & read_umask()
    is_private = found.st_uid == os.geteuid() and not is_shared
    return is_private and not folder.is_symlink() and _is_writable(folder)


def _is_writable(folder: Path) -> bool:
    """For whom files are made as, where that is somebody else than who runs this."""
    effective = os.access in os.supports_effective_ids
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=effective)
