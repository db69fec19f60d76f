"""Folders of files, here or on a server, as one interface: what lies in a folder, and how a file
begins.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem

from poisonwatch.errors import SourceError
from poisonwatch.sources.links import Root


@dataclass(slots=True)
class Listing:
    """What lies in a folder, by name: `files` with what is known of them; paths of `folders`, and
    of `links` to folders.
    """

    files: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)


class Tree(Protocol):
    """A place where files lie."""

    def list_folder(self, path: str) -> Listing:
        """What lies in a folder. Raises OSError where it cannot be read."""

    def is_folder(self, path: str, info: Mapping[str, Any]) -> bool:
        """Whether a path is a folder, or a link to one; `info` is what a glob told of it."""

    def walk_files(self, path: str) -> Iterator[tuple[str, str]]:
        """The paths and names of all files below a folder, links not followed."""

    def resolve(self, path: str, name: str) -> str:
        """Where a path leads. Raises SourceError where it may not be followed; `name` stands for
        it.
        """

    def read_head(self, path: str, name: str, size: int) -> bytes:
        """The first bytes of a file."""

    def read_tail(self, path: str, name: str, size: int) -> bytes:
        """The last bytes of a file."""


class LocalTree:
    """Folders on this machine."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def list_folder(self, path: str) -> Listing:
        """Sorted by name."""
        listing = Listing()
        with os.scandir(path) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        for entry in ordered:
            if not _is_folder(entry):
                listing.files[entry.name] = {"islink": entry.is_symlink()}
            elif entry.is_symlink():
                listing.links[entry.name] = entry.path
            else:
                listing.folders[entry.name] = entry.path
        return listing

    def is_folder(self, path: str, info: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """Globs tell of a link that it is one, not where it leads."""
        return Path(path).is_dir()

    def walk_files(self, path: str) -> Iterator[tuple[str, str]]:
        """Folders that cannot be read are passed by."""
        for folder, _, names in os.walk(path):
            for name in names:
                yield f"{folder.rstrip('/')}/{name}", name

    def resolve(self, path: str, name: str) -> str:
        """The path without links."""
        return self._root.resolve(path, name)

    def read_head(self, path: str, name: str, size: int) -> bytes:
        """Raises SourceError where the path leads out of the root."""
        with self._root.open(self._root.resolve(path, name), name) as file:
            return file.read(size)

    def read_tail(self, path: str, name: str, size: int) -> bytes:
        """Raises SourceError where the path leads out of the root."""
        with self._root.open(self._root.resolve(path, name), name) as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - size))
            return file.read(size)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether this is a folder, or a link to one."""
    # Of a link that leads nowhere, what it is comes out where it is read.
    with suppress(OSError):
        return entry.is_dir()
    return False


class RemoteTree:
    """Folders on a server, which is asked once for all that lies below one."""

    def __init__(self, fs: Any, follow_links: bool) -> None:
        self._fs = fs
        self._follow_links = follow_links
        self._folders: dict[str, Listing] = {}

    def _load(self, root: str) -> None:
        """Ask for all that lies below a folder."""
        self._folders[root] = Listing()
        for path, info in sorted(_find_all(self._fs, root).items()):
            folder, _, name = path.rpartition("/")
            # Object stores may have an empty object in place of a folder.
            if not name or info["type"] == "directory":
                continue
            if not f"{folder}/".startswith(f"{root}/"):
                raise SourceError(f"its server lists {path!a} in {root!a}, which is another folder")
            self._add_folder(folder).files[name] = info

    def _add_folder(self, path: str) -> Listing:
        """The listing of a folder, which those above it hold."""
        if path not in self._folders:
            above, _, name = path.rpartition("/")
            self._add_folder(above).folders[name] = path
            self._folders[path] = Listing()
        return self._folders[path]

    def list_folder(self, path: str) -> Listing:
        """Sorted by name. Raises what the file system does where the server cannot be asked."""
        path = path.rstrip("/")
        if path not in self._folders:
            self._load(path)
        return self._folders[path]

    def is_folder(self, path: str, info: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """As the server says."""
        return bool(info["type"] == "directory")

    def walk_files(self, path: str) -> Iterator[tuple[str, str]]:
        """In any order."""
        self.list_folder(path)
        for folder, listing in self._folders.items():
            if f"{folder}/".startswith(f"{path.rstrip('/')}/"):
                for name in listing.files:
                    yield f"{folder}/{name}", name

    def resolve(self, path: str, name: str) -> str:
        """The path itself. Raises SourceError where it is a link on the server, of which nothing
        tells where it leads.
        """
        if self._find_info(path).get("type") == "link" and not self._follow_links:
            raise SourceError(
                f"{name} is a link on its server: remove it, or set `source.follow_links: true` "
                "to read what it leads to"
            )
        return path

    def _find_info(self, path: str) -> Mapping[str, Any]:
        """What a listing told of a file; nothing where none was asked for."""
        folder, _, last = path.rpartition("/")
        return self._folders.get(folder, Listing()).files.get(last, {})

    def read_head(self, path: str, name: str, size: int) -> bytes:  # noqa: ARG002
        """A part of the file, where the server gives parts."""
        # Servers refuse to give a part of nothing, as of Spark's _SUCCESS.
        if self._find_info(path).get("size") == 0:
            return b""
        return bytes(self._fs.cat_file(path, start=0, end=size))[:size]

    def read_tail(self, path: str, name: str, size: int) -> bytes:  # noqa: ARG002
        """A part of the file, where the server gives parts."""
        return bytes(self._fs.cat_file(path, start=-size))[-size:]


def _find_all(fs: Any, root: str) -> dict[str, Mapping[str, Any]]:
    """Everything below a folder, by path."""
    if _lists_at_once(type(fs)):
        return dict(fs.find(root, detail=True))
    found: dict[str, Mapping[str, Any]] = {}
    # Where fsspec walks, it leaves out folders that cannot be listed.
    folders = [root]
    while folders:
        for info in fs.ls(folders.pop(), detail=True):
            found[info["name"]] = info
            if info["type"] == "directory":
                folders.append(info["name"])
    return found


def _lists_at_once(kind: type) -> bool:
    """Whether servers of a kind list what lies in folders below a folder, too."""
    own = getattr(kind, "_find", None) or kind.find  # type: ignore[attr-defined]
    return own not in (AbstractFileSystem.find, AsyncFileSystem._find)
