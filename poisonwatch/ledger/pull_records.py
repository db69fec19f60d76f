"""What the chain says of a pull: what it read of each file, and which bytes of which content stand
at each place of it.

    places      of what was read, by ascending position: the position in 8 bytes, the content's id
                and the SHA-256 of the bytes that stand there

A file that grew has what was added on record after what was there before; one that changed is on
record whole, again. Files that stayed as they were are not mentioned, so that a pull takes no
longer for them. A record holds the files of one transaction (`intake`): no file is in the ledger in
a state that no record tells of.
"""

import hashlib
from bisect import bisect_left
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, case, select

from poisonwatch.attestation.statement import hash_text, write_canonical
from poisonwatch.errors import InputError
from poisonwatch.ledger.differences import Difference
from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, batched
from poisonwatch.ledger.records import ADOPTED, append_record, read_records
from poisonwatch.ledger.tables import files, places, rows, shapes, variants

PULL = "pull"
ADOPTED_FILES = "files of "  # begins the item of an audit's files that are older than the chain
FILES_PER_RECORD = 256
PLACES_PER_READ = 10_000
# What a record says of a file beside its places, in words for people.
FIELDS = {
    "fingerprint": "fingerprint",
    "mark": "mark",
    "reading": "settings it was read with",
    "rows": "number of rows",
    "shape": "format",
    "gone_at": "time it was gone",
}

# The position of a place, the id of its content, and the SHA-256 of the bytes that stand there.
Place = tuple[int, bytes, bytes]


class Span(NamedTuple):
    """Places of a file that were read together: positions from `start` up to `end`, and their
    digest.
    """

    start: int
    end: int
    digest: str


class PlaceDigest:
    """The digest of places, in the order of their positions."""

    def __init__(self) -> None:
        self._hasher = hashlib.sha256()

    def add(self, read: Iterable[Place]) -> None:
        """Add the places that come next."""
        parts = [b"%b%b%b" % (position.to_bytes(8), id, digest) for position, id, digest in read]
        self._hasher.update(b"".join(parts))

    def hexdigest(self) -> str:
        """The digest of those that were added."""
        return self._hasher.hexdigest()


@dataclass(slots=True)
class RecordedFile:
    """A file as its records say it: what they say last of each of FIELDS, and all its places."""

    said: dict[str, Any] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)

    def add(self, entry: Mapping[str, Any]) -> None:
        """Go on with what the next record says."""
        self.said |= {name: entry[name] for name in FIELDS if name in entry}
        if "places" not in entry:
            return
        span = Span(entry["from"], entry["rows"], entry["places"])
        self.spans = [earlier for earlier in self.spans if earlier.end <= span.start]
        if span.end > span.start:
            self.spans.append(span)

    def is_changed_by(self, entry: Mapping[str, Any]) -> bool:
        """Whether a record would say anything new."""
        then = RecordedFile(dict(self.said), list(self.spans))
        then.add(entry)
        return then != self


def describe_file(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says of a file beside its places; `values` are those of its line in the ledger,
    with the digest of its shape.
    """
    said = {name: values[name] for name in FIELDS}
    # The settings are long, and name where rows come from.
    return said | {"reading": hash_text(values["reading"])}


def append_pull_records(
    connection: Connection,
    kind: str,
    item: str,
    entries: Sequence[Mapping[str, Any]],
    said: Mapping[str, Any],
) -> list[int]:
    """Append what was read of files, with what is `said` beside it, in the transaction that wrote
    it: some files a record. Returns the records' numbers; nobody has signed them.
    """
    numbers = []
    for some in batched(entries, FILES_PER_RECORD):
        subjects = {"files": hash_text(write_canonical(some))}
        predicate = {**said, "files": some}
        head = append_record(connection, kind, item, subjects, predicate, signer=None)
        numbers.append(head.number)
    return numbers


def adopt_files(connection: Connection, note: str) -> None:
    """Append how all files are now, which are older than the chain."""
    by_audit: dict[str, list[dict[str, Any]]] = {}
    for file in connection.execute(_select_files().order_by(files.c.file)).all():
        span = _digest_places(connection, file.file, [file.rows])[0]
        whole = {"name": file.name, "from": 0, "places": span.digest}
        by_audit.setdefault(file.audit, []).append(describe_file(dict(file._mapping)) | whole)
    for audit, entries in by_audit.items():
        item = f"{ADOPTED_FILES}{audit}"
        append_pull_records(connection, ADOPTED, item, entries, {"audit": audit, "note": note})


def read_recorded_files(
    connection: Connection, audit: str | None = None
) -> dict[tuple[str, str], RecordedFile]:
    """The files of an audit (None: of all audits) as the chain has them, by audit and name. Raises
    InputError where a record is no statement.
    """
    found: dict[tuple[str, str], RecordedFile] = {}
    for name, entry in _read_entries(connection):
        if audit in (None, name):
            found.setdefault((name, str(entry["name"])), RecordedFile()).add(entry)
    return found


def _read_entries(connection: Connection) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What records say of files, oldest first, each with its audit."""
    # What is older than the chain comes before all pulls that are on record.
    told = chain(read_records(connection, ADOPTED), read_records(connection, PULL))
    for record in told:
        is_adopted = record.kind == ADOPTED
        if is_adopted and not (record.item or "").startswith(ADOPTED_FILES):
            continue
        said = record.statement.predicate
        for entry in said["files"]:
            yield said["audit"], entry


def check_pulls(
    connection: Connection, row_numbers: Collection[int] | None = None
) -> list[Difference]:
    """Where files and places are not as the last pull left them: of the files that hold rows of
    these numbers, by default of all.
    """
    try:
        recorded = read_recorded_files(connection)
    except (InputError, KeyError, TypeError):
        return [Difference("records of pulls", "what was read of files", "something else")]
    differences: list[Difference] = []
    for file in _find_files(connection, row_numbers):
        known = recorded.pop((file.audit, file.name), None)
        differences += _check_file(connection, file, known)
    if row_numbers is None:
        for audit, name in recorded:
            what = _name_file(audit, name)
            differences.append(Difference(what, "a file of the ledger", "none"))
    return differences


def _find_files(connection: Connection, row_numbers: Collection[int] | None) -> list[Row[Any]]:
    query = _select_files().order_by(files.c.file)
    if row_numbers is None:
        return list(connection.execute(query))
    numbers: set[int] = set()
    for some in batched(sorted(row_numbers), VALUES_PER_STATEMENT):
        holding = select(places.c.file).where(places.c.row.in_(some)).distinct()
        numbers.update(connection.execute(holding).scalars())
    found: list[Row[Any]] = []
    for some in batched(sorted(numbers), VALUES_PER_STATEMENT):
        found += connection.execute(query.where(files.c.file.in_(some))).all()
    return found


def _select_files() -> Select[Any]:
    of_shape = shapes.c.shape == files.c.shape
    columns = [column for column in files.c if column is not files.c.shape]
    return select(*columns, shapes.c.digest.label("shape")).outerjoin(shapes, of_shape)


def _check_file(
    connection: Connection, file: Row[Any], known: RecordedFile | None
) -> list[Difference]:
    """How a file differs from what is on record."""
    name = _name_file(file.audit, file.name)
    if known is None:
        return [Difference(name, "a record of what was pulled", "none")]
    differences = []
    for key, now in describe_file(dict(file._mapping)).items():
        then = known.said.get(key)
        if then != now:
            what = f"{name}: {FIELDS[key]}"
            differences.append(Difference(what, str(then), str(now)))
    ends = [span.end for span in known.spans]
    try:
        found = _digest_places(connection, file.file, ends)
    # SQLite takes any value for any column, and for a position.
    except (OverflowError, TypeError, ValueError):
        return [*differences, Difference(f"{name}: places", "positions and digests", "others")]
    for then, now in zip_longest(known.spans, found):
        if then != now:
            differences.append(Difference(f"{name}: places", _name_span(then), _name_span(now)))
    return differences


def _name_file(audit: str, name: str) -> str:
    return f"file {name} of audit {audit}"


def _name_span(span: Span | None) -> str:
    if span is None:
        return "none"
    return f"rows {span.start} to {span.end} with SHA-256 {span.digest[:16]}"


def _digest_places(connection: Connection, file: int, ends: Sequence[int]) -> list[Span]:
    """The places of a file in spans that end at these positions, and one more of all that lies
    behind the last, if there is any.
    """
    # A variant of another row is none that can stand here.
    of_row = (variants.c.variant == places.c.variant) & (variants.c.row == places.c.row)
    is_own = places.c.variant.is_(None)
    query = (
        select(places.c.position, rows.c.id, case((is_own, rows.c.digest), else_=variants.c.digest))
        .join(rows, rows.c.row == places.c.row)
        .outerjoin(variants, of_row)
        .where(places.c.file == file)
        .order_by(places.c.position)
        .execution_options(yield_per=PLACES_PER_READ)
    )
    spans: list[Span] = []
    left, start, last, digest = deque(ends), 0, -1, PlaceDigest()
    for some in connection.execute(query).partitions():
        read = [(int(position), _to_bytes(id), _to_bytes(of)) for position, id, of in some]
        while read:
            cut = bisect_left(read, left[0], key=itemgetter(0)) if left else len(read)
            digest.add(read[:cut])
            if cut:
                last = read[cut - 1][0]
            read = read[cut:]
            if read:
                end = left.popleft()
                spans.append(Span(start, end, digest.hexdigest()))
                start, digest = end, PlaceDigest()
    for end in left:
        spans.append(Span(start, end, digest.hexdigest()))
        start, digest = end, PlaceDigest()
    if last >= start:
        spans.append(Span(start, last + 1, digest.hexdigest()))
    return spans


def _to_bytes(value: object) -> bytes:
    """Bytes as they are; of anything else that SQLite took in their place, what it is."""
    if isinstance(value, bytes | memoryview):
        return bytes(value)
    return repr(value).encode()
