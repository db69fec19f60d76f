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

from poisonwatch.config import SourceConfig
from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.sources.base import MIB, Reading, SourceFile, translate_errors
from poisonwatch.sources.jsonl import read_json_lines, read_json_list
from poisonwatch.text.environment import conceal, expand_variables

LINE_TYPES = (".jsonl", ".ndjson")
SEEKABLE_TYPES = (".arrow", ".parquet")  # read here and there, and never compressed as a whole
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
        kind = "" if self._type in LINE_TYPES else f" as {self._type[1:]}"
        with translate_errors(
            f"{self.name} cannot be read{kind}", lambda text: conceal(text, self._setting)
        ):
            changed = False
            try:
                yield from self._rows(after, reading)
            except Exception:  # what cannot be read may be half of one version and half of another
                with suppress(Exception):
                    changed = self._has_changed()
                if not changed:
                    raise
            if changed or self._has_changed():
                reading.mark = None
                raise SourceError(
                    f"{self.name} changed while it was read: its rows may be of two versions; run the audit again"
                )

    def _has_changed(self) -> bool:
        if self.fingerprint is None:
            return False
        self._fs.invalidate_cache()
        info = {} if _is_local(self._fs) else self._fs.info(self._path)
        return compute_file_fingerprint(self._fs, self._path, info) != self.fingerprint

    def _rows(self, after: str | None, reading: Reading) -> Iterator[RawRow]:
        if self._type in LINE_TYPES:
            yield from read_json_lines(self._open, self.name, after, reading)
            return
        if self._type in SEEKABLE_TYPES and self._empty:
            return
        with self._open() as file:
            if self._type == ".json":
                yield from read_json_list(file, self.name)
            elif self._type == ".csv":
                from poisonwatch.sources.csv import (
                    read_csv,
                )  # pyarrow takes a second to import, which JSON need not pay

                yield from read_csv(file, self.name, reading)
            else:
                from poisonwatch.sources.arrow import read_arrow, read_parquet

                yield from (read_arrow if self._type == ".arrow" else read_parquet)(
                    file, self.name, reading
                )

    def _open(self) -> BinaryIO:
        if _is_local(self._fs):
            file: BinaryIO = Path(self._path).open("rb", buffering=MIB)  # noqa: SIM115
        elif self._type in SEEKABLE_TYPES:
            return cast(
                BinaryIO, self._fs.open(self._path, "rb", cache_type="none")
            )  # what reads it asks for large pieces
        else:  # a web server may not give parts of a file: size 0 asks for it whole, as a stream
            file = io.BufferedReader(
                self._fs.open(self._path, "rb", block_size=0 if _is_web(self._fs) else 8 * MIB), MIB
            )
        return file if self._compression is None else _Decompressed(file, self._compression)


class _Decompressed(io.BufferedReader):
    """What a compressed file holds; closing it closes the file."""

    def __init__(self, file: BinaryIO, compression: str) -> None:
        self._packed = file
        if compression in compr:
            unpacked = compr[compression](file, mode="rb")
        else:
            import pyarrow as pa  # knows zstd even where Python and fsspec do not

            unpacked = pa.CompressedInputStream(pa.PythonFile(file, "r"), compression)
        super().__init__(unpacked, MIB)

    def close(self) -> None:
        super().close()
        self._packed.close()


def detect_file_type(path: str, web: bool = False) -> tuple[str, str | None]:
    """The suffix that tells how a file is read, and its compression. ("", None) where it is no file
    of rows.
    """
    suffixes = [
        suffix.lower() for suffix in Path(path.partition("?")[0] if web else path).suffixes[-2:]
    ]
    last = suffixes[-1] if suffixes else ""
    if last in FILE_TYPES:
        return last, None
    inner = suffixes[0] if len(suffixes) == 2 else ""
    return (
        (inner, COMPRESSIONS[last])
        if last in COMPRESSIONS and inner in FILE_TYPES and inner not in SEEKABLE_TYPES
        else ("", None)
    )


def compute_file_fingerprint(fs: Any, path: str, info: Mapping[str, Any]) -> str | None:
    """What tells two versions of a file apart without reading it: size and time of change, or what
    the server says of its content.
    """
    if _is_local(fs):
        status = Path(path).stat()
        return f"{status.st_size}-{status.st_mtime_ns}"
    told = next((str(info[key]).strip('"') for key in IDENTITIES if info.get(key)), None)
    return told and f"{info.get('size')}-{told}"


def _is_local(fs: Any) -> bool:
    return "file" in _get_protocols(fs)


def _is_web(fs: Any) -> bool:
    return not _get_protocols(fs).isdisjoint(WEB_PROTOCOLS)


def _get_protocols(fs: Any) -> set[str]:
    return {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)


def open_files(source: SourceConfig, key: str) -> list[File]:
    """The files that `source.path` stands for, sorted by name; nothing is read.

    Raises SourceError, naming the audit file's `key`, where there are none, or where they cannot be
    reached.
    """
    setting = source.path or ""
    path, shown = expand_variables(setting, f"{key}.path"), conceal(setting)
    hint = f"check `{key}`" + ", and the credentials in the environment" * (
        split_protocol(path)[0] in EXTRAS
    )
    with translate_errors(
        f"{shown} cannot be reached ({hint})", lambda text: conceal(text, setting)
    ):
        fs, root = _open_file_system(path, shown)
        fs.invalidate_cache()
        matches = _find_matches(fs, root)
        if not matches:
            raise SourceError(
                f"{shown} does not exist: check `{key}` (relative paths start at the audit file's folder)"
            )
        files = {
            match: info
            for match, info in matches.items()
            if detect_file_type(match, _is_web(fs))[0]
        }
        if not files:
            kinds = f"{', '.join(sorted(FILE_TYPES))}; texts may be compressed, as in .jsonl.gz (check `{key}`)"
            raise SourceError(f"{shown} is not a file of rows: its name must end in one of {kinds}")
    opened: dict[str, File] = {}
    for match, info in files.items():
        name = source.get_display_name(match if _is_local(fs) else str(fs.unstrip_protocol(match)))
        with translate_errors(
            f"{name} cannot be read (check `{key}`)", lambda text: conceal(text, setting)
        ):
            _refuse_non_files(fs, match, info, name)
            # a link that leads into a folder above it shows the same file again and again
            same = str(Path(match).resolve()) if _is_local(fs) else match
            opened.setdefault(same, File(fs, match, name, info, setting))
    return sorted(opened.values(), key=lambda file: file.name)


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
        cause = (
            error.__cause__
        )  # of the web, everything is "not found": a refused connection, a wrong password
        if _is_web(fs) and cause is not None and getattr(cause, "status", None) not in (404, 410):
            raise cause from None
        return (
            dict(sorted(fs.glob(root, detail=True).items()))
            if any(c in root for c in "*?[")
            else {}
        )
    if info["type"] != "directory":
        return {root: info}
    return dict(sorted((entry["name"], entry) for entry in fs.ls(root, detail=True)))


def _refuse_non_files(fs: Any, path: str, info: Mapping[str, Any], name: str) -> None:
    mode = Path(path).stat().st_mode if _is_local(fs) else None
    folder = stat.S_ISDIR(mode) if mode is not None else info["type"] == "directory"
    if folder or (mode is not None and not stat.S_ISREG(mode)):
        what = (
            "a folder"
            if folder
            else "a pipe"
            if mode is not None and stat.S_ISFIFO(mode)
            else "a device or socket"
        )
        raise SourceError(f"{name} is {what}, not a file")
