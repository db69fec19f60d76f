"""A release's manifest, and whether the files beside it still hold what it says.

A row is known by the SHA-256 of its bytes: of a line without its line end, or of the Arrow record
batch that a row of Parquet was kept as.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, TypeAdapter, ValidationError

from poisonwatch.errors import InputError, SourceError
from poisonwatch.ledger.row_bytes import describe_metadata
from poisonwatch.sources.arrow import read_batches
from poisonwatch.sources.base import BATCH_ROWS, MIB, Reading
from poisonwatch.sources.links import Root
from poisonwatch.sources.looking import Looker
from poisonwatch.sources.saved import MANIFEST_NAME, SIGNED_NAME
from poisonwatch.sources.side_files import explain_name
from poisonwatch.sources.trees import LocalTree
from poisonwatch.text.display import make_visible

HexDigest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
# It is opened: no path may be in it.
CleanFileName = Annotated[str, Field(pattern=r"^clean(-[0-9]+)?\.(jsonl|parquet)$")]
CLEAN_PREFIX = "clean"  # begins the names of a release's files of cleared rows
# 1: a row for each content; 2: one for each place, and counts of places; 3: the head of the
# ledger's chain, and nothing of what is held back beside it.
MANIFEST_VERSION = 3
FIRST_WITH_CHAIN = 3
# Room for three million rows: what is read is all in memory.
GIB = 1 << 30
MAX_MANIFEST_BYTES = GIB
# What of a release may lie beside its cleared rows.
BESIDE_ROWS = (MANIFEST_NAME, SIGNED_NAME)
UNCOUNTED = -1  # rows of a file whose rows are not to be counted, or cannot be
_MANIFEST_START = re.compile(rb'\{\s*"manifest"\s*:')
_LEADING_BLANK = b" \t\r\n\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class OriginalRow:
    """What a repaired row was before, as it stands in the source."""

    id: HexDigest
    sha256: HexDigest


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """A cleared row: it came from `source`, is in `file`, and was cleared by an audit, or by
    what a person `decided`. A repaired one has what it was before (`original`), and whose decision
    of which number made it another.
    """

    id: HexDigest
    sha256: HexDigest
    source: str
    position: int
    file: str
    audit_id: str | None
    decided: str | None
    original: OriginalRow | None = None
    decision: int | None = None
    author: str | None = None

    @property
    def is_cleared_by_person(self) -> bool:
        """Whether a person's word clears it, above what audits say."""
        return self.decided == "benign" or self.original is not None


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """A file of cleared rows."""

    name: CleanFileName
    rows: int
    sha256: HexDigest


@dataclass(frozen=True, slots=True)
class AuditedVersions:
    """What an audit's results hold for: SHA-256 of the model, of the sentinels, and of how the
    model read rows; the settings that shape verdicts, as JSON. Earlier releases do not say all.
    """

    model: str
    sentinels: str
    reading: HexDigest | None = None
    settings: str | None = None


@dataclass(frozen=True, slots=True)
class ManifestHead:
    """The last record, or decision, that the ledger held when a release was written."""

    # No database counts further.
    number: Annotated[int, Field(ge=0, lt=2**31)]
    hash: HexDigest


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `release` wrote; `audits` by their ids. `chain` and `decisions` are the heads of the
    ledger's chains, as far as its version says them.
    """

    manifest: Literal[1, 2, 3]
    audits: dict[str, AuditedVersions]
    files: list[ManifestFile]
    rows: list[ManifestEntry]
    chain: ManifestHead | None = None
    decisions: ManifestHead | None = None


_MANIFEST_ADAPTER = TypeAdapter(Manifest)
SchemaLookup = Callable[[ManifestEntry], bytes | None]


def is_manifest(path: Path) -> bool:
    """Whether a JSON file is meant as one, and not as rows."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    # An object may be a row, too: a manifest has its name, or begins with its version.
    with path.open("rb") as file:
        start = file.read(MIB).lstrip(_LEADING_BLANK)
    return bool(_MANIFEST_START.match(start)) or (
        path.name == MANIFEST_NAME and start.startswith(b"{")
    )


def read_manifest(path: Path) -> Manifest:
    """Raises InputError where the file is no manifest of a version that this one knows."""
    return load_manifest(path)[0]


def load_manifest(path: Path) -> tuple[Manifest, str]:
    """A manifest, and the SHA-256 of what was read. Raises InputError as `read_manifest` does."""
    try:
        file = path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{make_visible(str(path))} does not exist: give the manifest.json that "
            "`poisonwatch release` wrote"
        ) from None
    with file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_MANIFEST_BYTES:
            raise _refuse(path, f"it is larger than {MAX_MANIFEST_BYTES // GIB} GiB")
        content = file.read(size)
    try:
        manifest = _MANIFEST_ADAPTER.validate_json(content)
    except ValidationError as error:
        # Without its input: that may be a row.
        first = error.errors(include_input=False, include_url=False)[0]
        where = make_visible("".join(f"{part}: " for part in first["loc"]))
        raise _refuse(path, f"{where}{first['msg']}") from None
    if manifest.manifest >= FIRST_WITH_CHAIN and manifest.chain is None:
        raise _refuse(path, "chain: Field required")
    return manifest, hashlib.sha256(content).hexdigest()


def _refuse(path: Path, why: str) -> InputError:
    return InputError(
        f"{make_visible(str(path))} is no manifest of a release ({why}): give the manifest.json "
        "that `poisonwatch release` wrote, or rows (a .json file of rows holds one list)"
    )


@dataclass(slots=True)
class ManifestComparison:
    """A release's files beside its manifest: rows that are in both, in the manifest only
    (`lost`), and in a file only (`added`: the file and the zero-based row); `changed` files are
    other than the manifest says, `unlisted` ones it does not name.
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

    Of a Parquet file only the whole is compared, unless `schema_of` gives the Arrow schema that a
    row was kept by: then its rows are, too, and one without a schema counts as changed.
    """
    found = ManifestComparison()
    entries: dict[str, list[ManifestEntry]] = {}
    for entry in manifest.rows:
        entries.setdefault(entry.file, []).append(entry)
    for file in manifest.files:
        of_file = entries.pop(file.name, [])
        _compare_file(folder / file.name, file, of_file, schema_of=schema_of, found=found)
    # What is left is said to be in files that the manifest does not list.
    for unwritten in entries.values():
        found.lost += unwritten
    found.unlisted = _find_unlisted(folder, {file.name for file in manifest.files})
    return found


def _find_unlisted(folder: Path, listed: Set[str]) -> list[str]:
    """Files that a trainer could take for cleared rows, wherever below the folder, hidden ones,
    too; and folders that links lead to, whatever is in them.
    """
    looker = Looker(LocalTree(Root.of(str(folder), follow_links=False)), str)
    unlisted = []
    for parent, folders, files in os.walk(folder):
        here = Path(parent).relative_to(folder)
        for name in files:
            shown = str(here / name)
            if shown in listed or shown in BESIDE_ROWS:
                continue
            passing = explain_name(name)
            if passing is None or looker.look(str(folder / shown), name, passing)[1]:
                unlisted.append(shown)
        for name in folders:
            if (folder / here / name).is_symlink():
                unlisted.append(str(here / name))
    return sorted(unlisted)


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
    is_parquet = path.suffix == ".parquet"
    # All rows of a file have one schema: the first entry's will do.
    schema = None
    if schema_of and entries and is_parquet:
        schema = schema_of(entries[0])
    if is_parquet and schema is None:
        whole, number = hash_file(path), UNCOUNTED
        # A file without a schema, where schemas are known, counts as changed.
        if not schema_of:
            number = _count_parquet_rows(path)
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
    # Lines are read once, for the rows and for the whole.
    hasher = hashlib.sha256()
    wanted = Counter(entry.sha256 for entry in entries)
    number = 0
    digests = _hash_lines(path, hasher)
    if schema is not None:
        digests = _hash_parquet_rows(path, schema)
    # Of a damaged file, what cannot be read is lost.
    with suppress(pa.ArrowException, SourceError):
        for digest in digests:
            number += 1
            if wanted[digest] > 0:
                wanted[digest] -= 1
            else:
                found.added.append((path.name, number - 1))
    # What is still wanted was not there. Contents may repeat: each entry takes one of its rows.
    for entry in entries:
        if wanted[entry.sha256] > 0:
            wanted[entry.sha256] -= 1
            found.lost.append(entry)
        else:
            found.present.append(entry)
    if schema is None:
        return hasher.hexdigest(), number
    return hash_file(path), number


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        opened = pq.ParquetFile(file)
        stored = pa.ipc.read_schema(pa.py_buffer(schema))
        if not _is_read_alike(opened.schema_arrow, stored):
            raise SourceError(f"{path.name} says otherwise how its columns are read")
        batches = opened.iter_batches(BATCH_ROWS)
        for row in read_batches(batches, path.name, Reading(), stored):
            yield hashlib.sha256(row.raw).hexdigest()


def _is_read_alike(found: pa.Schema, stored: pa.Schema) -> bool:
    """Whether a file has the columns that its rows were kept by, and no others."""
    same_metadata = describe_metadata(found.metadata) == describe_metadata(stored.metadata)
    return same_metadata and found.names == stored.names


def _count_parquet_rows(path: Path) -> int:
    """How many rows a Parquet file says it has; UNCOUNTED where it is none."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except pa.ArrowException:
        return UNCOUNTED
