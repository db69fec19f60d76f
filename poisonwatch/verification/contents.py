"""Rows against their bytes: each digest and each id is computed again from what was kept.

An id that an earlier version of this library computed in another way, before there was a chain of
records, cannot be: such rows are counted. So is nothing that was put in since.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, exists, func, select

from poisonwatch.examples import RawRow
from poisonwatch.formats.format import Format
from poisonwatch.ledger.differences import Difference
from poisonwatch.ledger.ledger import batched
from poisonwatch.ledger.records import find_takeover
from poisonwatch.ledger.shapes import hash_shape, parse_format
from poisonwatch.ledger.tables import files, places, rows, shapes, variants
from poisonwatch.ledger.variants import hash_raw
from poisonwatch.progress import Progress, silent
from poisonwatch.sources.open import decode_row
from poisonwatch.verification.rows import ID_DIGITS

ROWS_PER_READ = 200  # rows whose bytes are in memory at a time
Readers = dict[int, tuple[Format | None, bytes | None]]


@dataclass(slots=True)
class ContentCheck:
    """What is found while rows are read again: `rows` and `variants` that were, and rows of an
    earlier version whose ids are `older` than the chain.
    """

    rows: int = 0
    variants: int = 0
    older: int = 0

    def check(self, connection: Connection, progress: Progress = silent) -> Iterator[Difference]:
        """The differences of rows, their variants, how they are read, and where they stand."""
        readers: Readers = {}
        for shape in connection.execute(select(shapes)):
            readers[shape.shape] = parse_format(shape.format), shape.schema
            digest = hash_shape(shape.format, shape.schema)
            if digest != shape.digest:
                yield Difference(f"shape {shape.shape}", shape.digest[:16], digest[:16])
        began = find_takeover(connection)
        for row in _read_in_chunks(connection, _select_rows(), rows, progress, "read rows"):
            self.rows += 1
            yield from self._check_row(row, readers, began, f"row {_show_id(row)}")
        chunks = _read_in_chunks(connection, _select_variants(), variants, progress, "variants")
        for variant in chunks:
            self.variants += 1
            name = f"variant {variant.variant} of row {_show_id(variant)}"
            yield from self._check_row(variant, readers, began, name)
        yield from _check_places(connection)

    def _check_row(
        self, row: Row[Any], readers: Readers, began: str | None, name: str
    ) -> Iterator[Difference]:
        digest = hash_raw(row.raw)
        if digest != row.digest:
            yield Difference(f"{name}: bytes", row.digest.hex()[:16], digest.hex()[:16])
            return
        if row.shape not in readers:
            yield Difference(f"{name}: shape", "one of the ledger", str(row.shape))
            return
        id = _compute_id(row, *readers[row.shape])
        if id == row.id:
            return
        # None: an earlier version read it, and this one does not.
        if began is not None and row.first_seen <= began:
            self.older += 1
            return
        found = "unreadable bytes" if id is None else id.hex()[:ID_DIGITS]
        yield Difference(f"{name}: content", row.id.hex()[:ID_DIGITS], found)


def _show_id(row: Row[Any]) -> str:
    return bytes(row.id).hex()[:ID_DIGITS]


def _select_rows() -> Any:
    return select(
        rows.c.row,
        rows.c.id,
        rows.c.raw,
        rows.c.digest,
        rows.c.shape,
        rows.c.problem,
        rows.c.first_seen,
    )


def _select_variants() -> Any:
    own = variants.c.variant, variants.c.raw, variants.c.digest, variants.c.shape
    query = select(*own, variants.c.first_seen, rows.c.id, rows.c.problem)
    return query.join(rows, rows.c.row == variants.c.row)


def _read_in_chunks(
    connection: Connection, query: Any, table: Any, progress: Progress, words: str
) -> Iterator[Row[Any]]:
    total = connection.execute(select(func.count()).select_from(table)).scalar_one()
    key = next(iter(table.primary_key))
    ordered = query.order_by(key).execution_options(yield_per=ROWS_PER_READ)
    for chunk in progress(batched(connection.execute(ordered), ROWS_PER_READ), words, total, len):
        yield from chunk


def _compute_id(row: Row[Any], format: Format | None, schema: bytes | None) -> bytes | None:
    """The id that a row's bytes have, as `ledger.file_intake` gives it; None where they cannot be
    read.
    """
    if row.problem is not None:
        return _hash_parts(b"unreadable", row.raw, row.problem.encode())
    if format is None:
        return None
    try:
        record = decode_row(row.raw, schema)
        raw = RawRow("", 0, place="", record=record, problem=None, raw=row.raw)
        example = format.read(record).to_example(raw)
    except Exception:  # whatever somebody wrote there, and whichever reader it breaks
        return None
    if example is None:
        return _hash_parts(b"incomplete", row.raw)
    return bytes.fromhex(example.id)


def _hash_parts(*parts: bytes) -> bytes:
    return hashlib.sha256(b"\0".join(parts)).digest()


def _check_places(connection: Connection) -> Iterator[Difference]:
    """Places hold rows that are there, in bytes of these rows; so did the last ones of rows that
    have none.
    """
    is_row = exists().where(rows.c.row == places.c.row)
    is_file = exists().where(files.c.file == places.c.file)
    is_own = exists().where(variants.c.variant == places.c.variant, variants.c.row == places.c.row)
    broken: dict[str, ColumnElement[bool]] = {
        "places without a row": ~is_row,
        "places without a file": ~is_file,
        "places with another row's bytes": places.c.variant.is_not(None) & ~is_own,
    }
    counts = {}
    for what, condition in broken.items():
        counts[what] = select(func.count()).select_from(places).where(condition)
    was_own = exists().where(
        variants.c.variant == rows.c.last_variant, variants.c.row == rows.c.row
    )
    counts["rows that stood last in another row's bytes"] = select(func.count()).where(
        rows.c.last_variant.is_not(None), ~was_own
    )
    before = rows.alias()
    counts["rows that replace none of the ledger"] = select(func.count()).where(
        rows.c.replaces.is_not(None), ~exists().where(before.c.row == rows.c.replaces)
    )
    for what, query in counts.items():
        count = connection.execute(query).scalar_one()
        if count:
            yield Difference(what, "0", str(count))
