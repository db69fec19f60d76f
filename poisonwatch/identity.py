"""Who runs this process, where the system does not know: a container may run under a number that no
user has, without a home.
"""

import getpass
import os
import tempfile
from pathlib import Path

from poisonwatch.errors import ConfigError
from poisonwatch.permissions import make_private_folder

USER_VARIABLE = "LOGNAME"  # that Python asks first


def settle_identity() -> None:
    """Have this process, and what it starts, know a user's name and a home: of a user without a
    name `uid-NUMBER`, and a folder of its own among the temporary files. Of the command line: a
    library does not change its caller's process. Raises ConfigError where that folder is somebody
    else's.
    """
    try:
        getpass.getuser()
    # Python 3.13 raises OSError.
    except (KeyError, OSError):
        os.environ[USER_VARIABLE] = f"uid-{os.getuid()}"
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(_make_home())


def _make_home() -> Path:
    home = Path(tempfile.gettempdir(), f"poisonwatch-home-{os.getuid()}")
    make_private_folder(home)
    # Whoever knows the name could have made it before.
    found = home.lstat()
    if home.is_symlink() or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise ConfigError(f"{home} is somebody else's, and there is no HOME: set HOME to a folder")
    return home
