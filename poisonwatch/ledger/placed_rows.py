"""Bytes at their places: what a source holds now, row by row, and what rows held that have no place
any more.

A content is one row of the ledger. It may stand at several places, and in several bytes that differ
in fields that are not trained on: a release writes the bytes of every place, and the gate clears
bytes as often as they stand.

    select_placed_rows(name)     each place of an audit's source, in order, with its bytes
    remember_last_bytes(...)     what stood at places that rows are about to lose
"""

from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select, update

from poisonwatch.ledger.tables import files, places, rows, variants

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


def remember_last_bytes(connection: Connection, leaving: ColumnElement[bool]) -> None:
    """Write down, of rows that came in several bytes, which of them stand at the places that they
    are `leaving`: should they have no others, these are the bytes that count.
    """
    stood = select(func.max(places.c.variant)).where(places.c.row == rows.c.row, leaving)
    several = (
        select(places.c.row)
        .join(variants, variants.c.row == places.c.row)
        .where(leaving)
        .distinct()
    )
    left = update(rows).where(rows.c.row.in_(several))
    connection.execute(left.values(last_variant=stood.scalar_subquery()))
