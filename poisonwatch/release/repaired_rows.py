"""Rows that people changed, as the gate asks for them: by the id of what they became."""

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, null, select

from poisonwatch.errors import InputError
from poisonwatch.ledger.repairs import Repair, load_shape, repair_bytes
from poisonwatch.ledger.row_states import REPAIRED
from poisonwatch.ledger.tables import decisions, rows, variants
from poisonwatch.release.standing_bytes import NOWHERE, check_own_places, select_variants


@dataclass(frozen=True, slots=True)
class RepairedContent:
    """A row of the ledger (`row`) that became the content `id` by the last `decision` on it."""

    id: str
    row: int
    status: str
    decision: int
    repair: Repair


@dataclass(frozen=True, slots=True)
class RepairedBytes:
    """What bytes of such a row became: of its own, or of a `variant`; `stands` is where these
    are.
    """

    variant: int | None
    digest: bytes
    shape: int
    stands: int


def find_repaired(connection: Connection, ids: Collection[str]) -> list[RepairedContent]:
    """The rows that stand repaired, as a content with one of these ids (hex)."""
    later = decisions.alias()
    last = select(func.max(later.c.number)).where(later.c.row == decisions.c.row)
    wanted = [bytes.fromhex(id) for id in set(ids)]
    query = (
        select(decisions, rows.c.status)
        .join(rows, rows.c.row == decisions.c.row)
        .where(decisions.c.repaired_id.in_(wanted), rows.c.status == REPAIRED)
        .where(decisions.c.number == last.scalar_subquery())
    )
    found = []
    for made in connection.execute(query):
        content = RepairedContent(
            id=made.repaired_id.hex(),
            row=made.row,
            status=made.status,
            decision=made.number,
            repair=Repair(made.verdict, made.answer),
        )
        found.append(content)
    return found


def read_repaired(connection: Connection, content: RepairedContent) -> Iterator[RepairedBytes]:
    """What each of a row's bytes became, where they became this content."""
    own = select(null().label("variant"), rows.c.raw, rows.c.shape, check_own_places())
    others = select_variants().add_columns(variants.c.raw)
    for query in (own.where(rows.c.row == content.row), others.where(rows.c.row == content.row)):
        for kept in connection.execute(query).all():
            changed = _repair(connection, content, kept)
            if changed is not None:
                yield changed


def _repair(
    connection: Connection, content: RepairedContent, kept: Row[Any]
) -> RepairedBytes | None:
    if kept.stands == NOWHERE:
        return None
    try:
        changed = repair_bytes(kept.raw, load_shape(connection, kept.shape), content.repair)
    except InputError:
        # Bytes that came since: a release refuses them, too.
        return None
    if changed.example.id != content.id:
        return None
    digest = hashlib.sha256(changed.raw).digest()
    return RepairedBytes(kept.variant, digest, kept.shape, kept.stands)
