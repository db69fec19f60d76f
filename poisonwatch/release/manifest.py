"""A release's manifest, and whether the files beside it still hold what it says.

A row is told by the SHA-256 of its bytes: of a line without its line end, or of the Arrow record
batch that a row of Parquet was kept as.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, TypeAdapter, ValidationError

from poisonwatch.errors import InputError, SourceError
from poisonwatch.release.release import hash_file
from poisonwatch.sources.arrow import read_batches
from poisonwatch.sources.base import BATCH_ROWS, MIB, Reading
from poisonwatch.sources.files import detect_file_type
from poisonwatch.text.display import make_visible

HexDigest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
CleanFileName = Annotated[
    str, Field(pattern=r"^clean(-[0-9]+)?\.(jsonl|parquet)$")
]  # it is opened: no path may stand in it
CLEAN_PREFIX = "clean"  # begins the names of a release's files of cleared rows
_LEADING_BLANK = b" \t\r\n\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """A cleared row: it came from `source`, stands in `file`, and was cleared by an audit, or by
    what a person `decided`.
    """

    id: HexDigest
    sha256: HexDigest
    source: str
    position: int
    file: str
    audit_id: str | None
    decided: str | None


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """A file of cleared rows."""

    name: CleanFileName
    rows: int
    sha256: HexDigest


@dataclass(frozen=True, slots=True)
class AuditedVersions:
    """What an audit's verdicts hold for: SHA-256 of the model and of the sentinels."""

    model: str
    sentinels: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `release` wrote; `audits` by their ids."""

    manifest: Literal[1]
    audits: dict[str, AuditedVersions]
    files: list[ManifestFile]
    rows: list[ManifestEntry]


_MANIFEST_ADAPTER = TypeAdapter(Manifest)
SchemaLookup = Callable[[ManifestEntry], bytes | None]


def is_manifest(path: Path) -> bool:
    """Whether a file is meant as one: of JSON files, those of rows hold a list."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(MIB).lstrip(_LEADING_BLANK).startswith(b"{")


def read_manifest(path: Path) -> Manifest:
    """Raises InputError where the file is no manifest of this version's releases."""
    try:
        return _MANIFEST_ADAPTER.validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = make_visible("".join(f"{part}: " for part in first["loc"]))
        raise InputError(
            f"{make_visible(str(path))} is no manifest of a release ({where}{first['msg']}): give the manifest.json that "
            "`poisonwatch release` wrote, or rows (a .json file of rows holds one list)"
        ) from None


@dataclass(slots=True)
class ManifestComparison:
    """A release's files beside its manifest: rows that stand in both, in the manifest only
    (`lost`), and in a file only (`added`: the file and the zero-based row); `changed` files are
    other than the manifest says, `strange` ones it does not name.
    """

    present: list[ManifestEntry] = field(default_factory=list)
    lost: list[ManifestEntry] = field(default_factory=list)
    added: list[tuple[str, int]] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)


def compare_manifest(
    folder: Path, manifest: Manifest, schema_of: SchemaLookup | None = None
) -> ManifestComparison:
    """Compare the files of a folder with its manifest.

    Of a Parquet file only the whole is compared, unless `schema_of` tells the Arrow schema that a
    row was kept by: then its rows are, too, and one without a schema counts as changed.
    """
    found = ManifestComparison()
    entries: dict[str, list[ManifestEntry]] = {}
    for entry in manifest.rows:
        entries.setdefault(entry.file, []).append(entry)
    for file in manifest.files:
        _compare_file(folder / file.name, file, entries.pop(file.name, []), schema_of, found)
    found.lost += [entry for unwritten in entries.values() for entry in unwritten]
    named = {file.name for file in manifest.files}
    beside = sorted(
        path.name
        for path in folder.iterdir()
        if path.name.lower().startswith(CLEAN_PREFIX) and detect_file_type(path.name)[0]
    )
    found.unlisted = [name for name in beside if name not in named]
    return found


def _compare_file(
    path: Path,
    file: ManifestFile,
    entries: list[ManifestEntry],
    schema_of: SchemaLookup | None,
    found: ManifestComparison,
) -> None:
    if not path.is_file():
        found.changed.append(file.name)
        found.lost += entries
        return
    schema = schema_of(entries[0]) if schema_of and entries and path.suffix == ".parquet" else None
    if path.suffix == ".parquet" and schema is None:
        whole, number = hash_file(path), -1 if schema_of else _count_parquet_rows(path)
        found.present += entries
    else:
        whole, number = _compare_rows(path, schema, entries, found)
    if whole != file.sha256 or not number == len(entries) == file.rows:
        found.changed.append(file.name)


def _compare_rows(
    path: Path, schema: bytes | None, entries: list[ManifestEntry], found: ManifestComparison
) -> tuple[str, int]:
    """Compare a file's rows, in whatever order, with its entries; returns the file's SHA-256 and
    how many rows can be read.
    """
    hasher = hashlib.sha256()
    wanted, number = Counter(entry.sha256 for entry in entries), 0
    try:
        for number, digest in enumerate(
            _hash_lines(path, hasher) if schema is None else _hash_parquet_rows(path, schema),
            start=1,
        ):
            if wanted[digest] > 0:
                wanted[digest] -= 1
            else:
                found.added.append((path.name, number - 1))
    except (pa.ArrowException, SourceError):
        pass  # a damaged file: what cannot be read of it is lost
    for entry in entries:
        if wanted[entry.sha256] > 0:
            wanted[entry.sha256] -= 1
            found.lost.append(entry)
        else:
            found.present.append(entry)
    return hasher.hexdigest() if schema is None else hash_file(path), number


def _hash_lines(path: Path, hasher: "hashlib._Hash") -> Iterator[str]:
    """The SHA-256 of each line, which was written as it is, whatever it holds; `hasher` gets the
    whole.
    """
    with path.open("rb") as file:
        for line in file:
            hasher.update(line)
            yield hashlib.sha256(line.removesuffix(b"\n")).hexdigest()


def _hash_parquet_rows(path: Path, schema: bytes) -> Iterator[str]:
    """The SHA-256 of each row of a Parquet file by the schema that it had when it was audited:
    Parquet changes some types.
    """
    with path.open("rb") as file:
        batches = pq.ParquetFile(file).iter_batches(BATCH_ROWS)
        for row in read_batches(
            batches, path.name, Reading(), pa.ipc.read_schema(pa.py_buffer(schema))
        ):
            yield hashlib.sha256(row.raw).hexdigest()


def _count_parquet_rows(path: Path) -> int:
    """How many rows a Parquet file says it has; -1 where it is none."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except pa.ArrowException:
        return -1
