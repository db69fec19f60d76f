"""Files of rows, here or on any server that fsspec reaches: found by path, folder, glob or URL, and
read by their suffix.
"""

import io
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.compression import compr
from fsspec.core import split_protocol

from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.base import MIB, OpenedSource, Reading, SourceFile, translate_errors
from poisonwatch.sources.jsonl import read_json_lines, read_json_list
from poisonwatch.text.environment import conceal, expand_variables

LINE_TYPES = (".jsonl", ".ndjson")
# Read here and there, and never compressed as a whole.
SEEKABLE_TYPES = (".arrow", ".parquet")
FILE_TYPES = (".arrow", ".csv", ".json", *LINE_TYPES, ".parquet")
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}
WEB_PROTOCOLS = ("http", "https")
EXTRAS = {
    "s3": ("s3fs", "s3"),
    "s3a": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "gcs": ("gcsfs", "gcs"),
}
IDENTITIES = (
    "ETag",
    "etag",
    "md5Hash",
    "Content-MD5",
    "Digest",
    "blob_id",
    "CRC",
    "Last-Modified",
    "LastModified",
    "mtime",
    "created",
)
"""What servers tell of a file's content, the surest first."""


class File(SourceFile):
    """One file of rows."""

    def __init__(
        self, fs: Any, path: str, name: str, info: Mapping[str, Any], setting: str
    ) -> None:
        super().__init__(name, compute_file_fingerprint(fs, path, info))
        self._fs = fs
        self._path = path
        self._setting = setting
        self._empty = info.get("size") == 0
        self._type, self._compression = detect_file_type(path, _is_web(fs))

    def read(self, after: str | None = None) -> Iterator[RawRow]:
        """The rows. Raises SourceError also where the file is another one after the reading than it
        was when it was found.
        """
        self._reading = reading = Reading()
        failure = f"{self.name} cannot be read"
        if self._type not in LINE_TYPES:
            failure += f" as {self._type[1:]}"
        with translate_errors(failure, lambda text: conceal(text, self._setting)):
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
            if changed or self._has_changed():
                reading.cursor = None
                raise SourceError(
                    f"{self.name} changed while it was read: its rows may be of two versions; "
                    "run the audit again"
                )

    def _has_changed(self) -> bool:
        if self.fingerprint is None:
            return False
        # fsspec keeps listings of directories: one from before the reading would tell nothing.
        self._fs.invalidate_cache()
        info = {}
        if not _is_local(self._fs):
            info = self._fs.info(self._path)
        return compute_file_fingerprint(self._fs, self._path, info) != self.fingerprint

    def _read_rows(self, after: str | None, reading: Reading) -> Iterator[RawRow]:
        if self._type in LINE_TYPES:
            yield from read_json_lines(self._open, self.name, after, reading)
            return
        # An empty file of a seekable type has no footer to read: it is one without rows.
        if self._type in SEEKABLE_TYPES and self._empty:
            return
        with self._open() as file:
            if self._type == ".json":
                yield from read_json_list(file, self.name)
                return
            # pyarrow takes a second to import, which JSON need not pay.
            from poisonwatch.sources.arrow import read_arrow, read_parquet
            from poisonwatch.sources.csv import read_csv

            readers = {".csv": read_csv, ".arrow": read_arrow, ".parquet": read_parquet}
            yield from readers[self._type](file, self.name, reading)

    def _open(self) -> BinaryIO:
        file: BinaryIO
        if _is_local(self._fs):
            file = Path(self._path).open("rb", buffering=MIB)  # noqa: SIM115
        elif self._type in SEEKABLE_TYPES:
            # What reads it asks for large pieces: fsspec's own cache would copy them again.
            return cast(BinaryIO, self._fs.open(self._path, "rb", cache_type="none"))
        else:
            # A web server may not give parts of a file: size 0 asks for it whole, as a stream.
            block_size = 0 if _is_web(self._fs) else 8 * MIB
            opened = self._fs.open(self._path, "rb", block_size=block_size)
            file = io.BufferedReader(opened, MIB)
        if self._compression is None:
            return file
        return _Decompressed(file, self._compression)


class _Decompressed(io.BufferedReader):
    """What a compressed file holds; closing it closes the file."""

    def __init__(self, file: BinaryIO, compression: str) -> None:
        self._packed = file
        if compression in compr:
            unpacked = compr[compression](file, mode="rb")
        else:
            # pyarrow knows zstd even where Python and fsspec do not.
            import pyarrow as pa

            unpacked = pa.CompressedInputStream(pa.PythonFile(file, "r"), compression)
        super().__init__(unpacked, MIB)

    def close(self) -> None:
        super().close()
        self._packed.close()


def detect_file_type(path: str, web: bool = False) -> tuple[str, str | None]:
    """The suffix that tells how a file is read, and its compression. ("", None) where it is no file
    of rows.
    """
    # On the web a ? begins the query, in which a token may end in anything.
    if web:
        path = path.partition("?")[0]
    *_, inner, last = ["", "", *(suffix.lower() for suffix in Path(path).suffixes)]
    if last in FILE_TYPES:
        return last, None
    if last in COMPRESSIONS and inner in FILE_TYPES and inner not in SEEKABLE_TYPES:
        return inner, COMPRESSIONS[last]
    return "", None


def compute_file_fingerprint(fs: Any, path: str, info: Mapping[str, Any]) -> str | None:
    """What tells two versions of a file apart without reading it: size and time of change, or what
    the server says of its content.
    """
    if _is_local(fs):
        status = Path(path).stat()
        return f"{status.st_size}-{status.st_mtime_ns}"
    for key in IDENTITIES:
        if info.get(key):
            identity = str(info[key]).strip('"')
            return identity and f"{info.get('size')}-{identity}"
    return None


def _is_local(fs: Any) -> bool:
    return "file" in _get_protocols(fs)


def _is_web(fs: Any) -> bool:
    return not _get_protocols(fs).isdisjoint(WEB_PROTOCOLS)


def _get_protocols(fs: Any) -> set[str]:
    if isinstance(fs.protocol, str):
        return {fs.protocol}
    return set(fs.protocol)


def open_files(source: SourceConfig, key: str) -> OpenedSource:
    """The files that `source.path` stands for, sorted by name; nothing is read.

    Raises SourceError, naming the audit file's `key`, where there are none, or where they cannot be
    reached.
    """
    setting = source.path or ""
    path, shown = expand_variables(setting, f"{key}.path"), conceal(setting)
    hint = f"check `{key}`"
    if split_protocol(path)[0] in EXTRAS:
        hint += ", and the credentials in the environment"

    def hide(text: str) -> str:
        return conceal(text, setting)

    with translate_errors(f"{shown} cannot be reached ({hint})", hide):
        fs, root = _open_file_system(path, shown)
        fs.invalidate_cache()
        files = _find_row_files(fs, root, shown, key)
    opened: dict[str, File] = {}
    for match, info in files.items():
        name = source.get_display_name(match if _is_local(fs) else str(fs.unstrip_protocol(match)))
        with translate_errors(f"{name} cannot be read (check `{key}`)", hide):
            _refuse_non_files(fs, match, info, name)
            # A link that leads into a folder above it shows the same file again and again.
            same = str(Path(match).resolve()) if _is_local(fs) else match
            opened.setdefault(same, File(fs, match, name, info=info, setting=setting))
    return OpenedSource(sorted(opened.values(), key=lambda file: file.name))


def _find_row_files(fs: Any, root: str, shown: str, key: str) -> dict[str, Mapping[str, Any]]:
    """What a path stands for, without the files that are none of rows. Raises SourceError where
    nothing is left.
    """
    matches = _find_matches(fs, root)
    if not matches:
        raise SourceError(
            f"{shown} does not exist: check `{key}` "
            "(relative paths start at the audit file's folder)"
        )
    files = {}
    for match, info in matches.items():
        if detect_file_type(match, _is_web(fs))[0]:
            files[match] = info
    if not files:
        kinds = ", ".join(sorted(FILE_TYPES))
        raise SourceError(
            f"{shown} is not a file of rows: its name must end in one of {kinds}; "
            f"texts may be compressed, as in .jsonl.gz (check `{key}`)"
        )
    return files


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


def _find_matches(fs: Any, root: str) -> dict[str, Mapping[str, Any]]:
    """What a path stands for: itself where it exists, whatever its name holds (a URL's query, too,
    has the ? of a pattern).
    """
    try:
        info = fs.info(root)
    except FileNotFoundError as error:
        # Of the web, everything is "not found": a refused connection, a wrong password.
        cause = error.__cause__
        if _is_web(fs) and cause is not None and getattr(cause, "status", None) not in (404, 410):
            raise cause from None
        if set("*?[").isdisjoint(root):
            return {}
        return dict(sorted(fs.glob(root, detail=True).items()))
    if info["type"] != "directory":
        return {root: info}
    return dict(sorted((entry["name"], entry) for entry in fs.ls(root, detail=True)))


def _refuse_non_files(fs: Any, path: str, info: Mapping[str, Any], name: str) -> None:
    """Raises SourceError where a match is no file. A pipe would be waited for without end."""
    if not _is_local(fs):
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
