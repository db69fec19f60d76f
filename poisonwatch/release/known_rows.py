"""What a ledger knows of rows that somebody holds: their contents, their bytes, and how often they
stand in its sources.

Bytes of a content count where they stand in a source now; those of a content that no source holds
any more, where they stood last: in files that are gone, or at the last place of a row that has
none. So an edit of a field that is not trained on takes the bytes before it out, and leaves the
content cleared.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, case, exists, func, select, true

from poisonwatch.errors import InputError
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.queries import is_last_result
from poisonwatch.ledger.row_bytes import BytesKey, describe_columns
from poisonwatch.ledger.shapes import hash_shape
from poisonwatch.ledger.tables import (
    decisions,
    files,
    places,
    results,
    rows,
    shapes,
    variants,
)
from poisonwatch.release.answer import RequiredVersions
from poisonwatch.release.trust import Trust
from poisonwatch.release.versions import FoundVersions, find_versions

# Where bytes stand.
NOWHERE, PLACED, STOOD_LAST = 0, 1, 2


@dataclass(frozen=True, slots=True)
class KnownBytes:
    """Bytes of a content (`row`) that were pulled: the row's own, or a `variant`'s. `stands` says
    whether they count (see above), and `is_placed` whether they do by a place, of which the chain
    of records tells; `schema` is the Arrow schema by which they are read.
    """

    row: int
    variant: int | None
    digest: bytes
    schema: bytes | None
    stands: bool
    is_placed: bool = True

    @property
    def key(self) -> BytesKey:
        """What is equal for rows of these bytes (`identify_bytes`)."""
        return self.digest, describe_columns(self.schema)

    @property
    def number(self) -> int:
        """Names these bytes, and no others."""
        if self.variant is None:
            return self.row
        return -self.variant


@dataclass(frozen=True, slots=True)
class KnownRow:
    """A content as the ledger has it, with the `versions` of its bytes that were asked for, by
    SHA-256. `flagged` is what an audit of the required version said, and `audit` which; None where
    there was none. `read_otherwise`: there was one that differs from it in how rows were read;
    `set_otherwise`: in its settings.
    `decision` is the last one on it, if any, and `last_audit` the last that passed it, of whatever
    version.
    """

    row: int
    status: str
    decided: str | None
    flagged: int | None
    read_otherwise: bool = False
    set_otherwise: bool = False
    audit: int | None = None
    decision: int | None = None
    last_audit: int | None = None
    versions: dict[bytes, list[KnownBytes]] = field(default_factory=dict)

    def add(self, known: KnownBytes) -> None:
        """Add bytes of this content."""
        self.versions.setdefault(known.digest, []).append(known)

    def find_digest(self, digest: bytes) -> KnownBytes | None:
        """Its bytes with this SHA-256 that count."""
        for known in self.versions.get(digest, []):
            if known.stands:
                return known
        return None

    def find_bytes(self, key: BytesKey) -> KnownBytes | None:
        """The same, read by the same columns."""
        for known in self.versions.get(key[0], []):
            if known.key == key and known.stands:
                return known
        return None


class KnownRows:
    """A ledger that is asked about rows, under the version that is `required`: rows are cleared by
    audits of it.

    `versions` are the ledger's that count for it. With `trust`, what clears a row must be signed.
    Raises InputError where the version is one of several.
    """

    def __init__(
        self, ledger: Ledger, required: RequiredVersions, trust: Trust | None = None
    ) -> None:
        self.ledger = ledger
        self.trust = trust
        self.versions = find_versions(ledger, required)
        self.required = self.versions.required
        self._met: Counter[int] = Counter()  # rows that were met, by their bytes' number
        self._schemas: dict[int, bytes | None] = {}  # by shape
        self._allowed: dict[int, int] = {}  # places, of bytes that were met more than once
        self.asked: set[int] = set()  # the numbers of all rows that were found

    def find_schema(self, id: str, digest: bytes) -> bytes | None:
        """The Arrow schema by which bytes with this SHA-256 are read, if they are a content's."""
        for content in self.load([id], [digest]).values():
            for known in content.versions.get(digest, []):
                return known.schema
        return None

    def load(self, ids: Collection[str], digests: Collection[bytes]) -> dict[str, KnownRow]:
        """The contents with these ids (hex), in their own bytes and in those with these SHA-256; at
        most VALUES_PER_STATEMENT of either.
        """
        found: dict[str, KnownRow] = {}
        by_number: dict[int, KnownRow] = {}
        with self.ledger.read() as connection:
            for row in connection.execute(_select_rows(ids, self.versions)):
                known = KnownRow(
                    row=row.row,
                    status=row.status,
                    decided=row.decided,
                    flagged=row.flagged,
                    read_otherwise=bool(row.read_otherwise),
                    set_otherwise=bool(row.set_otherwise),
                    audit=row.audit,
                    decision=row.decision,
                    last_audit=row.last_audit,
                )
                known.add(self._make_bytes(row, None))
                found[bytes(row.id).hex()] = by_number[row.row] = known
                self.asked.add(row.row)
            for variant in connection.execute(_select_variants(digests)):
                # Other contents, read by other settings, may have the same bytes.
                content = by_number.get(variant.row)
                if content is not None:
                    content.add(self._make_bytes(variant, variant.variant))
        return found

    def _make_bytes(self, row: Row[Any], variant: int | None) -> KnownBytes:
        stands, is_placed = row.stands != NOWHERE, row.stands == PLACED
        schema = self._get_schema(row.shape)
        return KnownBytes(row.row, variant, bytes(row.digest), schema, stands, is_placed)

    def _get_schema(self, shape: int) -> bytes | None:
        # An audit that runs beside this may add shapes at any time.
        if shape not in self._schemas:
            query = select(shapes.c.schema, shapes.c.format, shapes.c.digest)
            with self.ledger.read() as connection:
                found = connection.execute(query.where(shapes.c.shape == shape)).one()
            _check_shape(found)
            self._schemas[shape] = found.schema
        return self._schemas[shape]

    def is_vouched_for(self, row: KnownRow) -> bool:
        """Whether what clears a row is signed by a key that counts, where keys do."""
        if self.trust is None:
            return True
        # Whoever has the last word on a row may take back what was said before, unsure or not.
        if row.decision is not None and not self.trust.vouches_for_decision(row.decision):
            return False
        if row.decided == "benign":
            return row.decision is not None
        audits = row.audit, row.last_audit
        return all(audit is not None and self.trust.vouches_for_audit(audit) for audit in audits)

    def is_surplus(self, met: KnownBytes) -> bool:
        """Count a row with these bytes: whether that is once more than they stand in any audit's
        source.
        """
        self._met[met.number] += 1
        # Bytes that were cleared may be there once, wherever they stand now.
        if self._met[met.number] == 1:
            return False
        if met.number not in self._allowed:
            self._allowed[met.number] = self._count_places(met)
        return self._met[met.number] > self._allowed[met.number]

    def _count_places(self, known: KnownBytes) -> int:
        """The places of these bytes in the source of the audit that has most: of files that are
        there, else of those that are gone.
        """
        is_gone = files.c.gone_at.is_not(None)
        at = (places.c.row == known.row) & places.c.variant.is_not_distinct_from(known.variant)
        query = (
            select(is_gone.label("is_gone"), func.count())
            .select_from(places)
            .join(files, files.c.file == places.c.file)
            .where(at)
            .group_by(files.c.audit, is_gone)
        )
        most = {False: 0, True: 0}
        with self.ledger.read() as connection:
            for gone, count in connection.execute(query):
                most[bool(gone)] = max(most[bool(gone)], count)
        return most[False] or most[True]


def _check_shape(shape: Row[Any]) -> None:
    """Raises InputError where a shape is none that was recorded: other columns for the bytes of
    rows are other rows.
    """
    try:
        is_right = hash_shape(shape.format, shape.schema) == shape.digest
        describe_columns(shape.schema)
    # Arrow's errors are among them.
    except (AttributeError, TypeError, ValueError, OSError):
        is_right = False
    if not is_right:
        raise InputError(
            "the ledger is not what its records say (how rows are read): `poisonwatch verify` "
            "names all; restore the ledger from a backup"
        )


def _select_rows(ids: Collection[str], versions: FoundVersions) -> Select[Any]:
    """The contents with these ids, and what the last audit of the versions that count said of them,
    or whether one that misses in one thing alone did.
    """
    # Of several that count, as they differ in settings alone, the last has the word.
    audited = (results.c.row == rows.c.row) & is_last_result(results, versions.met)
    wanted = rows.c.id.in_([bytes.fromhex(id) for id in set(ids)])
    stood_last = rows.c.last_variant.is_(None)
    stands = _check_places(rows.c.row, places.c.variant.is_(None), stood_last)
    columns = rows.c.row, rows.c.id, rows.c.digest, rows.c.shape, rows.c.status, rows.c.decided
    read_otherwise = _was_audited_under(versions.read_otherwise).label("read_otherwise")
    set_otherwise = _was_audited_under(versions.set_otherwise).label("set_otherwise")
    last_decision = select(func.max(decisions.c.number)).where(decisions.c.row == rows.c.row)
    decision = last_decision.scalar_subquery().label("decision")
    passed = results.alias()
    last_passed = select(func.max(passed.c.audit)).where(passed.c.row == rows.c.row)
    last_audit = last_passed.scalar_subquery().label("last_audit")
    audit = results.c.flagged, results.c.audit
    said = *audit, read_otherwise, set_otherwise, decision, last_audit, stands
    query = select(*columns, *said).select_from(rows)
    return query.outerjoin(results, audited).where(wanted)


def _was_audited_under(versions: Collection[int]) -> ColumnElement[bool]:
    """Whether an audit of one of these versions had a result on a row."""
    other = results.alias()
    return exists().where(other.c.row == rows.c.row, other.c.version.in_(versions))


def _select_variants(digests: Collection[bytes]) -> Select[Any]:
    """The variants with these digests."""
    stood_last = rows.c.last_variant == variants.c.variant
    stands = _check_places(variants.c.row, places.c.variant == variants.c.variant, stood_last)
    columns = variants.c.row, variants.c.variant, variants.c.digest, variants.c.shape
    query = select(*columns, stands).join(rows, rows.c.row == variants.c.row)
    return query.where(variants.c.digest.in_(set(digests)))


def _check_places(
    row: ColumnElement[int], are_these: ColumnElement[bool], stood_last: ColumnElement[bool]
) -> ColumnElement[int]:
    """Whether bytes count: they are PLACED in a source, or, where no bytes of their row are, in a
    file that is gone; or, where none are, they STOOD_LAST.
    """

    def stand(these: ColumnElement[bool], now: ColumnElement[bool]) -> ColumnElement[bool]:
        at = (places.c.row == row) & (files.c.file == places.c.file)
        return exists().where(at, these, now)

    is_here = files.c.gone_at.is_(None)
    answer = case(
        (stand(are_these, is_here), PLACED),
        (stand(true(), is_here), NOWHERE),
        (stand(are_these, true()), PLACED),
        (stand(true(), true()), NOWHERE),
        (stood_last, STOOD_LAST),
        else_=NOWHERE,
    )
    return answer.label("stands")
