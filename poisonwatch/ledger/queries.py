"""Parts of queries that several questions to the ledger share."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    Subquery,
    Table,
    case,
    desc,
    exists,
    func,
    select,
)

from poisonwatch.flags import ATTRIBUTION
from poisonwatch.ledger.tables import audits, files, flags, places, rejections, results, rows

ID_DIGITS = 64  # of an example id: SHA-256 in hex


def is_hex(text: str) -> bool:
    """Whether a text is hexadecimal digits in lower case, at least one."""
    return bool(text) and set(text) <= set("0123456789abcdef")


def match_id_prefix(digits: str) -> ColumnElement[bool]:
    """The rows whose example id begins with these hexadecimal digits, at most 64.

    Ids are stored as bytes, and half a byte has no prefix: the condition is a range, which the
    index on ids serves.
    """
    low = bytes.fromhex(digits.ljust(ID_DIGITS, "0"))
    high = bytes.fromhex(digits.ljust(ID_DIGITS, "f"))
    return rows.c.id.between(low, high)


def is_attributed() -> ColumnElement[bool]:
    """Whether attribution found a flagged row, or nothing says what did (`by` of its record).

    Text of the row cannot say so: JSON has its quotation marks escaped.
    """
    record = flags.c.record
    return record.contains(f'"by": ["{ATTRIBUTION}"') | ~record.contains('"by": [')


def order_by_strength() -> tuple[ColumnElement[Any], ...]:
    """What flags that are joined with their rows are in order of, strongest first: what
    `flags.make_strength_key` says of those in memory.
    """
    return case((is_attributed(), 0), else_=1), desc(flags.c.score), rows.c.id


def find_row_number(connection: Connection, id: str) -> int | None:
    """The number of the row with this example id; None where there is none."""
    query = select(rows.c.row).where(rows.c.id == bytes.fromhex(id))
    return connection.execute(query).scalar_one_or_none()


def select_rows_of_file(name: str) -> Select[tuple[int]]:
    """The rows (numbers) that a source's file holds or held."""
    return (
        select(places.c.row).join(files, files.c.file == places.c.file).where(files.c.name == name)
    )


def find_place(connection: Connection, example_id: str) -> tuple[str, int] | None:
    """The first file and position that hold a content, or held it last; None where none did."""
    query = (
        select(files.c.name, places.c.position)
        .join(places, places.c.file == files.c.file)
        .join(rows, rows.c.row == places.c.row)
        .where(rows.c.id == bytes.fromhex(example_id))
        .order_by(files.c.gone_at.is_not(None), files.c.name, places.c.position)
        .limit(1)
    )
    found = connection.execute(query).one_or_none()
    return None if found is None else (found.name, found.position)


def select_last_audits(table: Table) -> Subquery:
    """`row` and the last `audit` that wrote one of these: of flags, results or rejections."""
    last = func.max(table.c.audit).label("audit")
    return select(table.c.row, last).group_by(table.c.row).subquery()


def is_refused_since(result: FromClause) -> ColumnElement[bool]:
    """Whether a later audit under the version of a result rejected its row: then it does not count
    under that version any more.
    """
    later, refused = audits.alias(), rejections.alias()
    is_later = exists().where(
        refused.c.row == result.c.row,
        refused.c.audit > result.c.audit,
        later.c.audit == refused.c.audit,
        later.c.version == result.c.version,
    )
    return is_later.correlate(result)


def is_last_result(result: FromClause, versions: Collection[int]) -> ColumnElement[bool]:
    """Whether a result is the last word on its row under these versions."""
    other = results.alias()
    is_replaced = exists().where(
        other.c.row == result.c.row,
        other.c.version.in_(versions),
        other.c.audit > result.c.audit,
    )
    is_last = ~is_replaced.correlate(result) & ~is_refused_since(result)
    return result.c.version.in_(versions) & is_last
