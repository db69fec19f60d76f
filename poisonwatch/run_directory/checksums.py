"""`SHA256SUMS`: what an audit wrote into its run directory, so that nobody changes it unseen.

It is written last, over every other file, and `sha256sum -c SHA256SUMS` in the run directory checks
it without Poisonwatch. Whoever reads a file checks it first: numbers of another run would carry
this one's names. The file's own SHA-256 is the run directory's seal, which the ledger keeps in the
record of the audit: then nothing here can be changed together with its checksum, either.

Run directories of earlier versions have no such file: they are unsealed, and read as they are.
"""

import hashlib
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from poisonwatch.errors import RunError
from poisonwatch.run_directory.layout import CONCLUDING_FILES, OPERATORS_FILE, SETTINGS_FILE
from poisonwatch.text.display import make_visible

CHECKSUMS_FILE = "SHA256SUMS"
MOST_CHECKSUM_BYTES = 1 << 20  # an audit writes some dozens of files
CACHED_DIGESTS = 512  # files
SETTLED_NS = 2 * 10**9  # since a file's last change, until its digest is kept

# As `sha256sum` writes it; the names are all of this library's making.
_LINE = re.compile(r"([0-9a-f]{64})  ([^\\\n]+)\n")


@dataclass(frozen=True, slots=True)
class FileDifference:
    """A file of a run directory that is not as the audit wrote it. SHA-256 `expected`, None where
    the audit wrote no such file, and `found`, None where it is gone.
    """

    name: str
    expected: str | None
    found: str | None


def write_checksums(folder: Path) -> str:
    """Write `SHA256SUMS` over all files of a run directory; returns its seal."""
    lines = []
    for name in _list_files(folder):
        lines.append(f"{_hash_file(folder / name)}  {name}\n")
    path = folder / CHECKSUMS_FILE
    path.write_text("".join(lines), encoding="ascii")
    return _hash_file(path)


def compute_seal(folder: Path) -> str | None:
    """SHA-256 of a run directory's SHA256SUMS; None where it has none. Raises RunError where it
    cannot be read.
    """
    if not (folder / CHECKSUMS_FILE).is_file():
        return None
    return _hash_once(folder, CHECKSUMS_FILE)


def list_differences(folder: Path, seal: str | None = None) -> list[FileDifference]:
    """What of a run directory is not as its audit wrote it, by name; nothing of one that is
    unsealed.

    `seal` is the one that the ledger has of it; None where the ledger has none. Raises RunError
    where SHA256SUMS is not in the form of one, or a file cannot be read.
    """
    found = compute_seal(folder)
    if seal is not None and found != seal:
        # What it lists is worth nothing then.
        return [FileDifference(CHECKSUMS_FILE, expected=seal, found=found)]
    if found is None:
        return []
    written = read_checksums(folder)
    here = {name: _hash_once(folder, name) for name in _list_files(folder)}
    differences = []
    for name in sorted(written.keys() | here.keys()):
        if written.get(name) != here.get(name):
            differences.append(FileDifference(name, written.get(name), here.get(name)))
    return differences


def require_unchanged(folder: Path, *names: str, seal: str | None = None) -> None:
    """Check files of a run directory, before they are used, those of these `names` that are there.

    `seal` is that of `list_differences`. Raises RunError where a file, or SHA256SUMS, is not what
    the audit wrote.
    """
    found = compute_seal(folder)
    if found is None and seal is None:
        return
    if found is None:
        raise RunError(f"{CHECKSUMS_FILE} of {folder} is gone: restore it, or audit again")
    if seal is not None and found != seal:
        raise _make_error(
            folder, CHECKSUMS_FILE, "its SHA-256 differs from the ledger's record of the audit"
        )
    written = read_checksums(folder)
    for name in names:
        if not (folder / name).is_file():
            continue
        if name not in written:
            raise _make_error(folder, name, f"{CHECKSUMS_FILE} does not list it")
        if _hash_once(folder, name) != written[name]:
            raise _make_error(folder, name, f"its SHA-256 differs from {CHECKSUMS_FILE}")


def require_unchanged_run(
    folder: Path, seal: str | None = None, without: Sequence[str] = ()
) -> None:
    """`require_unchanged` of all files that the audit wrote, but for some that are not used."""
    require_unchanged(folder, seal=seal)
    if compute_seal(folder) is not None:
        names = [name for name in read_checksums(folder) if name not in without]
        require_unchanged(folder, *names, seal=seal)


def require_unchanged_settings(path: Path) -> None:
    """`require_unchanged` of an audit file, where it is the one that a run left of itself."""
    folder = path.parent
    is_of_run = any((folder / name).is_file() for name in CONCLUDING_FILES)
    # People's own audit files may lie beside somebody's checksums.
    if path.name == SETTINGS_FILE and is_of_run:
        require_unchanged(folder, path.name)


def find_change(folder: Path, seal: str | None = None) -> str | None:
    """The error of `require_unchanged_run` over what pages show of a run directory; None where
    there is none.
    """
    try:
        # Operators are shown nowhere, and may take minutes to read.
        require_unchanged_run(folder, seal, without=[OPERATORS_FILE])
    except RunError as error:
        return str(error)
    return None


def read_checksums(folder: Path) -> Mapping[str, str]:
    """SHA-256 of every file that SHA256SUMS lists, by name. Raises RunError where it is damaged."""
    path = folder / CHECKSUMS_FILE
    try:
        with path.open("rb") as file:
            text = file.read(MOST_CHECKSUM_BYTES + 1).decode("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise _make_error(folder, CHECKSUMS_FILE, "it cannot be read") from error
    listed: dict[str, str] = {}
    for line in text.splitlines(keepends=True):
        parts = _LINE.fullmatch(line)
        # A name that leads out of the folder is none of the audit's.
        if parts is None or Path(parts[2]).is_absolute() or ".." in Path(parts[2]).parts:
            raise _make_error(folder, CHECKSUMS_FILE, "it is not in the form of sha256sum")
        listed[parts[2]] = parts[1]
    return listed


def _make_error(folder: Path, name: str, why: str) -> RunError:
    return RunError(
        f"{make_visible(name)} of {folder} is not what the audit wrote ({why}): "
        "restore it, or audit again"
    )


def _list_files(folder: Path) -> list[str]:
    """The files of a folder and of those in it, by name, but for SHA256SUMS itself."""
    found = []
    # Links are not followed: what they lead to is no part of the run directory.
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            if path.is_file():
                found.append(path.relative_to(folder).as_posix())
    return sorted(name for name in found if name != CHECKSUMS_FILE)


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_once(folder: Path, name: str) -> str:
    """SHA-256 of a file of a run directory, which is read anew once it changed. Raises RunError
    where it cannot be read.
    """
    path = folder / name
    try:
        status = path.stat()
        # The time of a change of its contents can be set back, that of its entry cannot.
        state = status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
        # What changed just now may change once more before the clock goes on.
        if time.time_ns() - status.st_ctime_ns < SETTLED_NS:
            return _hash_file(path)
        return _hash_state(path, state)
    except OSError as error:
        raise RunError(
            f"{make_visible(name)} of {folder} cannot be read: {error.strerror}"
        ) from error


@lru_cache(CACHED_DIGESTS)
def _hash_state(path: Path, _: tuple[int, ...]) -> str:
    return _hash_file(path)
