"""How many rows of a pull are copies: their bytes stand at an earlier place of the source, too."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    bindparam,
    exists,
    func,
    or_,
    select,
)

from poisonwatch.ledger.tables import files, places


@dataclass(frozen=True, slots=True)
class FileReading:
    """What was read of a file (its number): `rows` rows from the position `start` on."""

    file: int
    name: str
    start: int
    rows: int


def count_copies(connection: Connection, audit: str, readings: Sequence[FileReading]) -> int:
    """Rows of these readings of an audit's source that are copies. Each is compared with those
    before it, and with all files that were not read now.

    The counting is the database's: rows may be too many for the memory.
    """
    numbers = [reading.file for reading in readings]
    return sum(_count_in_file(connection, audit, reading, numbers) for reading in readings)


def _count_in_file(
    connection: Connection, audit: str, reading: FileReading, numbers: Sequence[int]
) -> int:
    here = (places.c.file == reading.file) & (places.c.position >= reading.start)
    # Bytes that stand here often are looked for once.
    distinct = select(places.c.row, places.c.variant).where(here).distinct().subquery()
    other = places.alias()
    same_bytes = other.c.variant.is_not_distinct_from(distinct.c.variant)
    earlier = exists().where(
        other.c.row == distinct.c.row,
        same_bytes,
        other.c.file == files.c.file,
        files.c.audit == audit,
        files.c.gone_at.is_(None),
        or_(
            files.c.name < reading.name,
            (other.c.file == reading.file) & (other.c.position < reading.start),
            ~_is_any(files.c.file, numbers),
        ),
    )
    first = select(func.count()).select_from(distinct).where(~earlier)
    return reading.rows - int(connection.execute(first).scalar_one())


def _is_any(column: ColumnElement[int], numbers: Sequence[int]) -> ColumnElement[bool]:
    # In the statement itself: a source may have more files than a statement takes values.
    listed: BindParameter[list[int]] = bindparam(
        "numbers", value=list(numbers), expanding=True, literal_execute=True
    )
    return column.in_(listed)
