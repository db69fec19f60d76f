"""Hostile places: links, pipes, devices, names; what is no file of rows."""

import os
import socket
from pathlib import Path

from hostile_kinds import KINDS, ROW, HostileFile, hostile, write_file


@hostile
def a_link_to_itself(folder: Path) -> Path:
    (folder / "rows.jsonl").symlink_to("rows.jsonl")
    return folder / "rows.jsonl"


@hostile
def a_folder_of_links_to_itself(folder: Path) -> Path:
    (folder / "data").mkdir()
    write_file(folder / "data" / "rows.jsonl", ROW)
    for name in "abcdef":
        (folder / "data" / name).symlink_to(".", target_is_directory=True)
    return folder / "data"


@hostile
def a_deep_folder(folder: Path) -> Path:
    place = folder / "data"
    place.mkdir()
    for _ in range(400):
        place = place / "a"
        place.mkdir()
    write_file(place / "rows.jsonl", ROW)
    return folder / "data"


@hostile
def a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "rows.jsonl")
    return folder / "rows.jsonl"


@hostile
def a_pipe_among_files(folder: Path) -> Path:
    (folder / "data").mkdir()
    write_file(folder / "data" / "rows.jsonl", ROW)
    os.mkfifo(folder / "data" / "more.jsonl")
    return folder / "data"


@hostile
def an_endless_device(folder: Path) -> Path:
    (folder / "rows.jsonl").symlink_to("/dev/zero")
    return folder / "rows.jsonl"


@hostile
def a_socket(folder: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "rows.jsonl"))
    return folder / "rows.jsonl"


@hostile
def a_sparse_file(folder: Path) -> Path:
    """Ten gigabytes that take no room."""
    with (folder / "rows.jsonl").open("wb") as file:
        file.truncate(10 * 2**30)
    return folder / "rows.jsonl"


@hostile
def a_pointer_of_Git_LFS(folder: Path) -> Path:
    text = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    return write_file(folder / "rows.jsonl", text)


def _write_named(name: bytes) -> HostileFile:
    def write(folder: Path) -> Path:
        (folder / "data").mkdir()
        return write_file(folder / "data" / os.fsdecode(name), ROW).parent

    return write


KINDS["a name that is not UTF-8"] = _write_named(b"caf\xe9-\xff.jsonl")
KINDS["a name with a line end"] = _write_named(b"a\n\x1b[31mb.jsonl")
KINDS["a name that hides its end"] = _write_named("a\u202elnosj.jsonl".encode())
KINDS["a name of 255 bytes"] = _write_named(b"a" * 249 + b".jsonl")


@hostile
def a_folder_that_is_not_UTF_8(folder: Path) -> Path:
    place = folder / os.fsdecode(b"caf\xe9")
    place.mkdir()
    return write_file(place / "rows.jsonl", ROW)
