"""Files of rows, here or on any server that fsspec reaches: found by path, folder, glob or URL, and
read by their suffix.
"""

import io
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.core import split_protocol

from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.base import (
    MIB,
    RELATIVE_PATHS,
    OpenedSource,
    Reading,
    SourceFile,
    tell_to_check,
    translate_errors,
)
from poisonwatch.sources.discovery import (
    Discovery,
    FoundFile,
    make_no_match_error,
    make_nothing_found_error,
    split_glob,
)
from poisonwatch.sources.file_types import (
    JSON_TYPES,
    SEEKABLE_TYPES,
    detect_file_type,
    escape_name,
    list_file_types,
)
from poisonwatch.sources.json_file import read_json_file
from poisonwatch.sources.links import Root
from poisonwatch.sources.marks import has_mark_inside
from poisonwatch.sources.partitions import refuse_partition_fields
from poisonwatch.sources.trees import LocalTree, RemoteTree
from poisonwatch.sources.unpacking import Budget, UnpackingLimits, limit_rows, unpack
from poisonwatch.sources.versions import (
    MOST_FETCHED,
    can_fetch,
    compute_file_fingerprint,
    fetch_version,
    is_local,
    is_web,
)
from poisonwatch.text.environment import open_variables
from poisonwatch.text.redaction import show_place
from poisonwatch.text.secrets import Secrets

# Begins what Git leaves in place of a large file that it did not fetch.
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
MAX_POINTER_BYTES = 1024
EXTRAS = {
    "s3": ("s3fs", "s3"),
    "s3a": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "gcs": ("gcsfs", "gcs"),
}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where files lie: their file system, their `root` on this machine (None on a server), the
    `secrets` of the setting that names them, and how much they may hold when unpacked.
    """

    fs: Any
    root: Root | None
    secrets: Secrets
    limits: UnpackingLimits


class File(SourceFile):
    """One file of rows."""

    def __init__(self, place: _Place, found: FoundFile) -> None:
        fs, path, info = place.fs, found.target, found.info
        identity = str(fs.unstrip_protocol(found.place))
        super().__init__(found.name, compute_file_fingerprint(fs, path, info), identity)
        self._fs = fs
        self._path = path
        self._place = place
        self._size = info.get("size")  # bytes, or None where a server does not tell
        if place.root is not None:
            self._size = Path(path).stat().st_size
        # Behind a link a file may be called otherwise: its own name tells what it is.
        self._type, self._compression = detect_file_type(found.path, is_web(fs))
        self._settings = found.settings
        self._info = info
        refuse_partition_fields(found.path, found.name)

    def settle(self, source: SourceConfig) -> SourceConfig:
        """By LLaMA-Factory's list of data sets, where that names the file."""
        if self._settings is None or source.format != "auto" or source.fields or source.template:
            return source
        # The user's roles go first.
        roles = {**self._settings["roles"], **source.roles}
        return source.model_copy(update={**self._settings, "roles": roles})

    @property
    def fetched_bytes(self) -> int | None:
        """Small files of servers that are asked side by side, and tell a file's version."""
        if self._place.root is not None or self.fingerprint is None or not self._size:
            return None
        return self._size if can_fetch(self._fs) and self._size <= MOST_FETCHED else None

    def fetch(self) -> None:
        """The whole file as it was when it was found, or nothing."""
        # The error that counts is that of the reading.
        with suppress(Exception):
            content = fetch_version(self._fs, self._path, self._info)
            if content is not None and len(content) == self._size:
                self._content = content

    def read(self, after: str | None = None) -> Iterator[RawRow]:
        """The rows. Raises SourceError also where the file is another one after the reading than it
        was when it was found.
        """
        self._reading = reading = Reading()
        failure = f"{self.name} cannot be read"
        if self._type not in JSON_TYPES:
            failure += f" as {self._type[1:]}"
        with translate_errors(failure, self._place.secrets.conceal):
            changed = False
            try:
                yield from self._read_rows(after, reading)
            except Exception:
                # What cannot be read may be half of one version and half of another: then that is
                # what to say. A server that is gone cannot tell, and the first error stands.
                with suppress(Exception):
                    changed = self._has_changed()
                if not changed:
                    raise
            finally:
                # What was fetched is of the version that was found, whatever came since.
                is_whole, self._content = self._content is not None, None
            if changed or (not is_whole and self._has_changed()):
                reading.cursor = None
                raise SourceError(
                    f"{self.name} changed while it was read: its rows may be of two versions; "
                    "run the audit again"
                )

    def has_mark_inside(self) -> bool:
        """Raises SourceError where the file cannot be read."""
        if self._type not in JSON_TYPES:
            return False
        failure = f"{self.name} cannot be read"
        with (
            translate_errors(failure, self._place.secrets.conceal),
            self._open() as file,
        ):
            return has_mark_inside(file)

    def _has_changed(self) -> bool:
        if self.fingerprint is None or self._content is not None:
            return False
        # fsspec keeps listings of directories: one from before the reading would tell nothing.
        self._fs.invalidate_cache()
        info = {}
        if not is_local(self._fs):
            info = self._fs.info(self._path)
        return compute_file_fingerprint(self._fs, self._path, info) != self.fingerprint

    def _refuse_pointer(self) -> None:
        """Raises SourceError where Git holds a file's place: its rows were never fetched."""
        if self._place.root is None or not 0 < (self._size or 0) <= MAX_POINTER_BYTES:
            return
        with self._place.root.open(self._path, self.name) as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise SourceError(
                    f"{self.name} is a pointer of Git LFS, and the file itself is not here: "
                    "fetch it (git lfs pull)"
                )

    def _read_rows(self, after: str | None, reading: Reading) -> Iterator[RawRow]:
        self._refuse_pointer()
        budget = Budget(self.name, self._size, self._place.limits)
        if self._type in JSON_TYPES:
            rows = read_json_file(self._open, self.name, after, reading)
            yield from limit_rows(rows, budget) if self._compression else rows
            return
        # An empty file of a seekable type has no footer to read: it is one without rows.
        if self._type in SEEKABLE_TYPES and self._size == 0:
            return
        with self._open() as file:
            # pyarrow takes a second to import, which JSON need not pay.
            from poisonwatch.sources.arrow import read_arrow, read_parquet
            from poisonwatch.sources.csv import read_csv, read_tsv

            if self._type in SEEKABLE_TYPES:
                read_table = {".arrow": read_arrow, ".parquet": read_parquet}[self._type]
                yield from limit_rows(read_table(file, self.name, reading, budget), budget)
                return
            read_text = {".csv": read_csv, ".tsv": read_tsv}[self._type]
            rows = read_text(file, self.name, reading)
            yield from limit_rows(rows, budget) if self._compression else rows

    def _open(self) -> BinaryIO:
        file: BinaryIO
        if self._content is not None:
            file = io.BufferedReader(io.BytesIO(self._content), MIB)
        elif self._place.root is not None:
            file = self._place.root.open(self._path, self.name)
        elif self._type in SEEKABLE_TYPES:
            # What reads it asks for large pieces: fsspec's own cache would copy them again.
            return cast(BinaryIO, self._fs.open(self._path, "rb", cache_type="none"))
        else:
            # A web server may not give parts of a file: size 0 asks for it whole, as a stream.
            block_size = 0 if is_web(self._fs) else 8 * MIB
            opened = self._fs.open(self._path, "rb", block_size=block_size)
            file = io.BufferedReader(opened, MIB)
        # Not even the shortest archive is empty; an empty file is one without rows.
        if self._compression is None or self._size == 0:
            return file
        return unpack(file, self._compression, self._place.limits, self.name)


def open_files(source: SourceConfig, key: str) -> OpenedSource:
    """The files that `source.path` stands for, or `source.hub` where that is a folder that
    `datasets` saved, sorted by name, and what lies beside them; no row is read.

    Raises SourceError, naming the audit file's `key`, where there are none, where they cannot be
    reached, or where a link leads out of the source.
    """
    setting = source.path or source.hub or ""
    path, shown = open_variables(setting, f"{key}.path"), show_place(setting)
    hint = tell_to_check(key)
    if split_protocol(path)[0] in EXTRAS:
        hint += ", and the credentials in the environment"

    secrets = Secrets((setting,))
    hide = secrets.conceal
    with translate_errors(f"{shown} cannot be reached ({hint})", hide):
        fs, root = _open_file_system(path, shown)
        fs.invalidate_cache()
        search = _Search(source, fs, root, shown=shown, key=key)
        found = search.run()
    place = _Place(fs, search.root, secrets, limits=UnpackingLimits.of(source))
    opened = []
    for file in found.found:
        with translate_errors(f"{file.name} cannot be read ({tell_to_check(key)})", hide):
            _refuse_non_files(fs, file.target, file.info, file.name)
            opened.append(File(place, file))
    _refuse_same_names(opened, key)
    return OpenedSource(opened, found.passed_over)


def _refuse_same_names(opened: Sequence[File], key: str) -> None:
    """Raises SourceError where two files have one name in results: queries, which may hold tokens,
    are no part of it.
    """
    names: set[str] = set()
    for file in opened:
        if file.name in names:
            raise SourceError(f"{file.name} comes twice, with two queries: name it once in `{key}`")
        names.add(file.name)


class _Search:
    """What a path stands for: itself where it exists, whatever its name holds (a URL's query, too,
    has the ? of a pattern).
    """

    def __init__(self, source: SourceConfig, fs: Any, path: str, shown: str, key: str) -> None:
        self._source = source
        self._fs = fs
        self._path = path
        self._shown = shown
        self._key = key
        self.root: Root | None = None

    def run(self) -> Discovery:
        """Raises SourceError where nothing is there, or none of it is a file of rows."""
        info = self._ask()
        if info is None:
            return self._match_glob()
        if info["type"] != "directory":
            if not detect_file_type(self._path, is_web(self._fs))[0]:
                raise SourceError(
                    f"{self._shown} is not a file of rows: its name must end in one of "
                    f"{list_file_types()}; texts may be compressed, as in .jsonl.gz "
                    f"({tell_to_check(self._key)})"
                )
            discovery = self._begin(self._path.rpartition("/")[0])
            discovery.add_file(self._path, info)
            return discovery
        discovery = self._begin(self._path)
        discovery.add_folder(self._path)
        if not discovery.found:
            raise make_nothing_found_error(self._shown, discovery.passed_over, self._key)
        return discovery

    def _ask(self) -> Mapping[str, Any] | None:
        """What the file system tells of the path; None where it is not there."""
        try:
            info: Mapping[str, Any] = self._fs.info(self._path)
        except FileNotFoundError as error:
            # Of the web, everything is "not found": a refused connection, a wrong password.
            cause = error.__cause__
            status = getattr(cause, "status", None)
            if is_web(self._fs) and cause is not None and status not in (404, 410):
                raise cause from None
            return None
        return info

    def _match_glob(self) -> Discovery:
        matches, is_glob = {}, not set("*?[").isdisjoint(self._path)
        if is_glob:
            matches = self._fs.glob(self._path, detail=True)
        if not matches and is_glob and not is_web(self._fs):
            raise make_no_match_error(self._shown, self._key)
        if not matches:
            check = tell_to_check(self._key)
            raise SourceError(f"{self._shown} does not exist: {check} {RELATIVE_PATHS}")
        base, asked = split_glob(self._path)
        discovery = self._begin(base, asked)
        for match, info in sorted(matches.items()):
            discovery.add_match(base, match, info)
        if not discovery.found:
            raise make_nothing_found_error(self._shown, discovery.passed_over, self._key)
        return discovery

    def _begin(self, folder: str, asked: Sequence[str] = ()) -> Discovery:
        follow_links = self._source.follow_links
        tree: LocalTree | RemoteTree
        if is_local(self._fs):
            self.root = Root.of(folder or "/", follow_links)
            tree = LocalTree(self.root)
        else:
            tree = RemoteTree(self._fs, follow_links)
        web = is_web(self._fs)
        return Discovery(tree, self.name_path, asked, split=self._source.split, web=web)

    def name_path(self, path: str) -> str:
        """The name of a path in results."""
        if not is_local(self._fs):
            path = str(self._fs.unstrip_protocol(path))
        return escape_name(self._source.get_display_name(path))


def _open_file_system(path: str, shown: str) -> tuple[Any, str]:
    protocol = split_protocol(path)[0]
    try:
        fs, root = fsspec.url_to_fs(path)
    except ImportError as error:
        if protocol not in EXTRAS:
            raise
        package, extra = EXTRAS[protocol]
        raise SourceError(
            f"{shown} needs the package {package}: pip install 'poisonwatch[{extra}]'"
        ) from error
    return fs, root


def _refuse_non_files(fs: Any, path: str, info: Mapping[str, Any], name: str) -> None:
    """Raises SourceError where a match is no file. A pipe would be waited for without end."""
    if not is_local(fs):
        if info["type"] == "directory":
            raise SourceError(f"{name} is a folder, not a file")
        return
    mode = Path(path).stat().st_mode
    if stat.S_ISREG(mode):
        return
    what = "a device or socket"
    if stat.S_ISDIR(mode):
        what = "a folder"
    elif stat.S_ISFIFO(mode):
        what = "a pipe"
    raise SourceError(f"{name} is {what}, not a file")
