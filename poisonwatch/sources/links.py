"""Links: a file of a source may not lie outside the folder that the source is, unless the user says
so.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from poisonwatch.errors import SourceError
from poisonwatch.sources.base import MIB


@dataclass(frozen=True, slots=True)
class Root:
    """The `folder` of a source, without links in its own path, and whether links that lead out of
    it are followed.
    """

    folder: Path
    follow_links: bool

    @classmethod
    def of(cls, folder: str, follow_links: bool) -> "Root":
        """The root at this path, which may be a link itself."""
        return cls(Path(os.path.realpath(folder)), follow_links)

    def resolve(self, path: str, name: str) -> str:
        """Where a path leads, without links. Raises SourceError where that is outside the folder
        and links out of it are not followed.
        """
        target = os.path.realpath(path)
        if not self.follow_links and not Path(target).is_relative_to(self.folder):
            raise SourceError(
                f"{name} is a link that leads out of its source's folder: remove it, or set "
                "`source.follow_links: true` to read what it leads to"
            )
        return target

    def open(self, target: str, name: str) -> BinaryIO:
        """Open a file where `resolve` found it. Raises SourceError where it is no regular file, and
        OSError where a folder or file on the way became a link since.
        """
        if self.follow_links:
            number = os.open(target, os.O_RDONLY | os.O_NONBLOCK)
        else:
            number = _open_below(self.folder, Path(target).relative_to(self.folder))
        # Found out on what is open: the name may stand for something else by now.
        if not stat.S_ISREG(os.fstat(number).st_mode):
            os.close(number)
            raise SourceError(f"{name} is a pipe, a device or a folder, not a file")
        return os.fdopen(number, "rb", buffering=MIB)


def _open_below(folder: Path, below: Path) -> int:
    """Open a file folder by folder, each of which must be one and no link, so that nobody can turn
    one into a link between a check and the opening.
    """
    folder_flags = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY
    here = os.open(folder, folder_flags)
    try:
        for part in below.parts[:-1]:
            inner = os.open(part, folder_flags | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = inner
        # Without O_NONBLOCK a pipe would be waited for without end.
        return os.open(below.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=here)
    finally:
        os.close(here)
