"""Bytes at their places: what a source holds now, row by row, and how often the ledger has seen
exactly these bytes.

A content is one row of the ledger. It may stand at several places, and in several bytes that differ
in fields that are not trained on: a release writes the bytes of every place, and the gate clears
bytes as often as they stand.

    select_placed_rows(name)     each place of an audit's source, in order, with its bytes
    load_known_bytes(...)        whether contents are known in these bytes, and how often
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, func, null, select

from poisonwatch.ledger.row_bytes import BytesKey, describe_columns
from poisonwatch.ledger.tables import files, places, rows, shapes, variants

# What stands at a place: of `rows` where it has no variant.
PLACED_RAW: ColumnElement[bytes] = func.coalesce(variants.c.raw, rows.c.raw).label("raw")
PLACED_DIGEST: ColumnElement[bytes] = func.coalesce(variants.c.digest, rows.c.digest).label(
    "digest"
)
PLACED_SHAPE: ColumnElement[int] = func.coalesce(variants.c.shape, rows.c.shape).label("shape")


def select_placed_rows(name: str) -> Select[Any]:
    """Every place of an audit's source now, in the order of files and positions.

    Columns: `name` of the file, `position`; `row`, `id`, `status`, `decided`, `problem` of the
    content; `raw`, `digest`, `shape` of the bytes that stand there; `nth`, from 1, tells how many
    places up to this one hold these bytes; `nth_content` the same of the content.
    """
    order = files.c.name, places.c.position
    of_bytes = func.row_number().over(partition_by=(places.c.row, places.c.variant), order_by=order)
    of_content = func.row_number().over(partition_by=places.c.row, order_by=order)
    # Without the bytes, which would be sorted, too.
    placed = (
        select(places.c.row, places.c.variant, *order)
        .add_columns(of_bytes.label("nth"), of_content.label("nth_content"))
        .join(files, files.c.file == places.c.file)
        .where(files.c.audit == name, files.c.gone_at.is_(None))
        .subquery()
    )
    return (
        select(placed.c.name, placed.c.position, placed.c.nth, placed.c.nth_content)
        .add_columns(rows.c.row, rows.c.id, rows.c.status, rows.c.decided, rows.c.problem)
        .add_columns(PLACED_RAW, PLACED_DIGEST, PLACED_SHAPE)
        .join(rows, rows.c.row == placed.c.row)
        .outerjoin(variants, variants.c.variant == placed.c.variant)
        .order_by(placed.c.name, placed.c.position)
    )


def load_known_bytes(
    connection: Connection, ids: Collection[str], digests: Collection[bytes]
) -> dict[str, dict[BytesKey, int]]:
    """Of the bytes with these SHA-256, those that the contents with these example ids are known in:
    by id and `row_bytes.identify_bytes`, the number of places that hold them. At most
    VALUES_PER_STATEMENT of either.

    Of several audits' sources, the one that holds them most often counts. Where no file that is
    there holds them, those that are gone count; bytes that were seen and stand nowhere count once.
    """
    found = _find_bytes(connection, ids, digests)
    columns_of = _load_columns(connection, {row.shape for row in found})
    counts = _count_places(connection, {row.row for row in found})
    known: dict[str, dict[BytesKey, int]] = {}
    for row in found:
        key = bytes(row.digest), columns_of[row.shape]
        of_content = known.setdefault(bytes(row.id).hex(), {})
        of_content[key] = max(1, counts[row.row, row.variant])
    return known


def _find_bytes(
    connection: Connection, ids: Iterable[str], digests: Iterable[bytes]
) -> list[Row[Any]]:
    """These bytes of these contents: their own (`variant` is None), and others."""
    of_content = rows.c.id.in_([bytes.fromhex(id) for id in set(ids)])
    wanted = set(digests)
    columns = rows.c.id, rows.c.row, rows.c.digest, rows.c.shape
    own = select(*columns, null().label("variant")).where(of_content, rows.c.digest.in_(wanted))
    others = (
        select(rows.c.id, rows.c.row, variants.c.digest, variants.c.shape, variants.c.variant)
        .join(rows, rows.c.row == variants.c.row)
        .where(variants.c.digest.in_(wanted), of_content)
    )
    return [*connection.execute(own).all(), *connection.execute(others).all()]


def _load_columns(connection: Connection, numbers: Collection[int]) -> dict[int, bytes]:
    """The columns of these shapes."""
    query = select(shapes.c.shape, shapes.c.schema).where(shapes.c.shape.in_(numbers))
    columns_of = {}
    for number, schema in connection.execute(query).tuples():
        columns_of[number] = describe_columns(schema)
    return columns_of


def _count_places(
    connection: Connection, numbers: Collection[int]
) -> dict[tuple[int, int | None], int]:
    """How often the bytes of these rows stand: by row and variant."""
    is_here = files.c.gone_at.is_(None).label("is_here")
    of = places.c.row, places.c.variant, files.c.audit, is_here
    query = (
        select(*of, func.count().label("n"))
        .join(files, files.c.file == places.c.file)
        .where(places.c.row.in_(numbers))
        .group_by(*of)
    )
    here: dict[tuple[int, int | None], int] = defaultdict(int)
    gone: dict[tuple[int, int | None], int] = defaultdict(int)
    for line in connection.execute(query):
        counts = gone
        if line.is_here:
            counts = here
        key = line.row, line.variant
        counts[key] = max(counts[key], line.n)
    return defaultdict(int, gone | here)
