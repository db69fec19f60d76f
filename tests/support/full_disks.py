"""File systems of a few MiB, for tests that fill them, or have nobody write into them."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: str = "2m") -> Iterator[Path]:
    """A file system of its own at a new folder; skips the test where none may be made."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    try:
        is_made = subprocess.run(mount, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        is_made = False
    if not is_made:
        pytest.skip("no file system may be made here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def mount_file(file: Path, place: Path) -> Iterator[None]:
    """Have a file in the place of another, as containers do."""
    subprocess.run(["mount", "--bind", str(file), str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextmanager
def read_only_file(file: Path) -> Iterator[None]:
    """Have nobody write into a file, root neither, while what is around it can be written."""
    with mount_file(file, file):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(file)], check=True)
        yield


@contextmanager
def read_only_view(folder: Path, place: Path) -> Iterator[Path]:
    """A folder at another place, where nobody can write, while others do in the folder itself."""
    place.mkdir()
    subprocess.run(["mount", "--bind", str(folder), str(place)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def make_read_only(folder: Path) -> None:
    """Have nobody write into such a file system any more, root neither."""
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def make_writable(folder: Path) -> None:
    """Have it be written again."""
    subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave nothing free; returns the file that is to be removed again."""
    filler = folder / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler
