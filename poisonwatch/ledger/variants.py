"""Other bytes of contents than those they came in first: found, or added.

Most contents are known in one way only, and their digest says so: the table `variants` is asked
only for rows whose bytes are not those of the row itself.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, batched, insert_all, now
from poisonwatch.ledger.row_bytes import describe_columns
from poisonwatch.ledger.shapes import ShapeTable
from poisonwatch.ledger.tables import variants

VARIANTS_LOCK_NUMBER = 0x76617269616E74  # PostgreSQL's advisory lock of whoever adds variants

# The row that has the content, and SHA-256 of the bytes.
VariantKey = tuple[int, bytes]


class KnownRow(NamedTuple):
    """A content as the ledger has it: its number, and the bytes it came in first."""

    row: int
    digest: bytes
    shape: int


@dataclass(slots=True)
class VariantTable:
    """The variants of rows that a file with this Arrow `schema` holds. `find_shape` gives the
    number of its shape among the `shapes`.
    """

    connection: Connection
    shapes: ShapeTable
    schema: bytes | None
    find_shape: Callable[[], int]
    added: int = 0
    _has_same_columns: dict[int, bool] = field(default_factory=dict)  # by shape

    def is_own(self, known: KnownRow, digest: bytes) -> bool:
        """Whether bytes of this file, with this digest, are those that a content came in first."""
        return known.digest == digest and self._is_same(known.shape)

    def find_or_add(self, wanted: Mapping[VariantKey, bytes]) -> dict[VariantKey, int]:
        """The numbers of these bytes among the variants."""
        if not wanted:
            return {}
        found = self._find(wanted)
        missing = [key for key in wanted if key not in found]
        if missing and self._lock():
            # Another audit may have added them since.
            found |= self._find(missing)
            missing = [key for key in missing if key not in found]
        if missing:
            self._add(missing, wanted)
            self.added += len(missing)
            found |= self._find(missing)
        return found

    def _lock(self) -> bool:
        """Be the only one who adds variants until the transaction ends: whether others could be."""
        # On SQLite the transaction itself holds the write lock (`Ledger.write`).
        if self.connection.dialect.name != "postgresql":
            return False
        self.connection.execute(select(func.pg_advisory_xact_lock(VARIANTS_LOCK_NUMBER)))
        return True

    def _find(self, wanted: Collection[VariantKey]) -> dict[VariantKey, int]:
        columns = variants.c.row, variants.c.digest, variants.c.variant, variants.c.shape
        found: dict[VariantKey, int] = {}
        for some in batched(sorted({digest for _, digest in wanted}), VALUES_PER_STATEMENT):
            query = select(*columns).where(variants.c.digest.in_(some))
            for row, digest, variant, shape in self.connection.execute(query).tuples():
                if self._is_same(shape):
                    found[row, bytes(digest)] = variant
        return found

    def _add(self, keys: Collection[VariantKey], raw_of: Mapping[VariantKey, bytes]) -> None:
        shape, first_seen = self.find_shape(), now()
        values = []
        for row, digest in keys:
            value = {
                "row": row,
                "raw": raw_of[row, digest],
                "digest": digest,
                "shape": shape,
                "first_seen": first_seen,
            }
            values.append(value)
        insert_all(self.connection, variants, values)

    def _is_same(self, shape: int) -> bool:
        """Whether the columns of a shape are those of this file."""
        if shape not in self._has_same_columns:
            same = describe_columns(self.shapes.schema(shape)) == describe_columns(self.schema)
            self._has_same_columns[shape] = same
        return self._has_same_columns[shape]


def hash_raw(raw: bytes) -> bytes:
    """SHA-256 of a row's bytes."""
    return hashlib.sha256(raw).digest()
