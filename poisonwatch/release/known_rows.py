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

from sqlalchemy import ColumnElement, Row, Select, exists, func, select

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
from poisonwatch.release.repaired_rows import (
    RepairedBytes,
    RepairedContent,
    find_repaired,
    read_repaired,
)
from poisonwatch.release.standing_bytes import (
    NOWHERE,
    PLACED,
    check_own_places,
    select_variants,
)
from poisonwatch.release.trust import Trust
from poisonwatch.release.versions import FoundVersions, find_versions


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
    version. One that `is_made_by_repair` is what a person made of the ledger's `row`, and no row of
    it itself.
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
    is_made_by_repair: bool = False

    @property
    def is_cleared_by_person(self) -> bool:
        """Whether a person's word clears it, above what audits say."""
        return self.decided == "benign" or self.is_made_by_repair

    def add(self, known: KnownBytes) -> None:
        """Add bytes of this content."""
        self.versions.setdefault(known.digest, []).append(known)

    def find_digest(self, digest: bytes) -> KnownBytes | None:
        """Its bytes with this SHA-256 that count."""
        for known in self.versions.get(digest, []):
            if known.stands:
                return known
        return None

    def list_equal(self, known: KnownBytes) -> list[KnownBytes]:
        """All its bytes that count and are these."""
        equal = self.versions.get(known.digest, [])
        return [each for each in equal if each.stands and each.key == known.key]

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
            with_digests = select_variants().where(variants.c.digest.in_(set(digests)))
            for variant in connection.execute(with_digests):
                # Other contents, read by other settings, may have the same bytes.
                content = by_number.get(variant.row)
                if content is not None:
                    content.add(self._make_bytes(variant, variant.variant))
            for repaired in find_repaired(connection, ids):
                self.asked.add(repaired.row)
                content = found.setdefault(repaired.id, _make_repaired_row(repaired))
                for changed in read_repaired(connection, repaired):
                    content.add(self._make_repaired_bytes(repaired.row, changed))
        return found

    def _make_bytes(self, row: Row[Any], variant: int | None) -> KnownBytes:
        stands, is_placed = row.stands != NOWHERE, row.stands == PLACED
        schema = self._get_schema(row.shape)
        return KnownBytes(row.row, variant, bytes(row.digest), schema, stands, is_placed)

    def _make_repaired_bytes(self, row: int, changed: RepairedBytes) -> KnownBytes:
        schema, is_placed = self._get_schema(changed.shape), changed.stands == PLACED
        return KnownBytes(row, changed.variant, changed.digest, schema, True, is_placed)

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
        if row.is_cleared_by_person:
            return row.decision is not None
        audits = row.audit, row.last_audit
        return all(audit is not None and self.trust.vouches_for_audit(audit) for audit in audits)

    def is_surplus(self, content: KnownRow, met: KnownBytes) -> bool:
        """Count a row with these bytes of a content: whether that is once more than they stand in
        any audit's source.
        """
        self._met[met.number] += 1
        # Bytes that were cleared may be there once, wherever they stand now.
        if self._met[met.number] == 1:
            return False
        if met.number not in self._allowed:
            # A pair that was flipped may have the bytes of another that is there as it is.
            self._allowed[met.number] = sum(map(self._count_places, content.list_equal(met)))
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


def _make_repaired_row(repaired: RepairedContent) -> KnownRow:
    """A content that the ledger has as what a person made of one of its rows."""
    return KnownRow(
        row=repaired.row,
        status=repaired.status,
        decided=repaired.repair.verdict,
        flagged=None,
        decision=repaired.decision,
        is_made_by_repair=True,
    )


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
    stands = check_own_places()
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
