"""Where a release may be written: outside of its source, which would be read with it from then
on.
"""

import os
from fnmatch import fnmatchcase
from pathlib import Path

from poisonwatch.errors import InputError
from poisonwatch.source_config import SourceConfig
from poisonwatch.text.environment import expand_variables

_GLOB_CHARACTERS = frozenset("*?[")


def refuse_folder_inside(source: SourceConfig, folder: Path) -> None:
    """Raises InputError where what is written to a folder would be read as part of the source."""
    setting = source.path or source.hub
    if setting is None:
        return
    path = expand_variables(setting, "source.path").removeprefix("file://")
    if "://" in path or not Path(path).is_absolute():
        return
    if _is_inside(Path(os.path.realpath(folder)), path):
        raise InputError(
            f"{folder} lies in the folder of the source, which would be read with it from then on: "
            "choose a folder outside of it (--out)"
        )


def _is_inside(folder: Path, path: str) -> bool:
    if Path(path).exists() or _GLOB_CHARACTERS.isdisjoint(path):
        return Path(path).is_dir() and folder.is_relative_to(os.path.realpath(path))
    parts = Path(path).parts
    first = 0
    while _GLOB_CHARACTERS.isdisjoint(parts[first]):
        first += 1
    base = Path(os.path.realpath(Path(*parts[:first])))
    if not folder.is_relative_to(base):
        return False
    # What a pattern matches is read with all below it.
    for name, pattern in zip(folder.relative_to(base).parts, parts[first:], strict=False):
        if pattern == "**":
            return True
        if not fnmatchcase(name, pattern):
            return False
    return folder != base
