"""What earlier versions left (tests/fixtures/make_release.py), unpacked where it was made."""

import json
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from paths import TESTS

ARCHIVES = TESTS / "fixtures" / "releases"
PLACE = Path("/tmp/poisonwatch-releases")  # make_release.py's
NAMES = sorted(path.name.removesuffix(".tar.xz") for path in ARCHIVES.glob("*.tar.xz"))


@dataclass(frozen=True)
class Release:
    """The folder of an audit file, and what the version said of it then."""

    folder: Path
    told: dict[str, Any]

    @property
    def config(self) -> Path:
        return self.folder / "audit.yaml"


@contextmanager
def unpacked(name: str) -> Iterator[Release]:
    """A release's folder, until the block ends. There is one such place on a machine."""
    try:
        PLACE.mkdir(exist_ok=True)
        (PLACE / "probe").touch()
    except PermissionError:
        pytest.skip(f"{PLACE} is somebody else's")
    with FileLock(PLACE / f"{name}.lock"):
        folder = PLACE / name
        shutil.rmtree(folder, ignore_errors=True)
        with tarfile.open(ARCHIVES / f"{name}.tar.xz") as packed:
            # Our own archive; Pythons before 3.11.4 know no filters.
            if hasattr(tarfile, "data_filter"):
                packed.extractall(PLACE, filter="data")
            else:
                packed.extractall(PLACE)
        try:
            yield Release(folder, json.loads((folder / "told.json").read_text()))
        finally:
            shutil.rmtree(folder)
