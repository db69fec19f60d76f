"""Which rows an audit at work will come to results on: another of a different name, whose source
holds the same contents, leaves them to it.

A claim ends with its audit. What one that dies has claimed is due in the next audit of either name.
"""

import sys
import zlib
from array import array
from collections.abc import Collection, Iterable
from itertools import accumulate, pairwise

from sqlalchemy import Connection, delete, func, insert, select

from poisonwatch.ledger.tables import audits, claimed_rows

CHOICE_LOCK_NUMBER = 0x63686F696365  # PostgreSQL's advisory lock of whoever chooses rows


def lock_choice(connection: Connection) -> None:
    """Be the only one who chooses rows until the transaction ends, in one that writes: two at once
    would choose the same.
    """
    # On SQLite the transaction itself holds the write lock (`Ledger.write`).
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(CHOICE_LOCK_NUMBER)))


def find_claimed(connection: Connection, name: str, versions: Collection[int]) -> set[int]:
    """The rows (numbers) that audits of other names than this have claimed under these versions. To
    be asked before rows are chosen: what is claimed now has results then, or is chosen next time.
    """
    of_others = (
        select(claimed_rows.c.rows)
        .join(audits, audits.c.audit == claimed_rows.c.audit)
        .where(audits.c.name != name, audits.c.state == "running")
        .where(audits.c.version.in_(versions))
    )
    claimed: set[int] = set()
    for packed in connection.execute(of_others).scalars():
        claimed.update(_unpack(packed))
    return claimed


def claim(connection: Connection, audit: int, numbers: Iterable[int]) -> None:
    """Claim rows for an audit at work, in the transaction that chose them."""
    connection.execute(insert(claimed_rows).values(audit=audit, rows=_pack(numbers)))


def unclaim(connection: Connection, audit: int) -> None:
    """An audit has come to its results, or to its end."""
    connection.execute(delete(claimed_rows).where(claimed_rows.c.audit == audit))


def _pack(numbers: Iterable[int]) -> bytes:
    """Numbers as the steps between them in order, most of which are 1: a million rows that came
    one after the other are some kilobytes.
    """
    steps = array("q", (after - before for before, after in pairwise([0, *sorted(set(numbers))])))
    if sys.byteorder == "big":
        steps.byteswap()
    return zlib.compress(steps.tobytes(), level=1)


def _unpack(packed: bytes) -> Iterable[int]:
    steps = array("q", zlib.decompress(packed))
    if sys.byteorder == "big":
        steps.byteswap()
    return accumulate(steps)
