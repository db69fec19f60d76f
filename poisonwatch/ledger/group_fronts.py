"""What a group of flagged rows shows of itself in a list: its strongest row, and from how many
files its rows come.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.queries import match_id_prefix, order_by_strength
from poisonwatch.ledger.queue import FlaggedGroup
from poisonwatch.ledger.tables import audits, files, flags, places, rows
from poisonwatch.ledger.transactions import retried


@dataclass(frozen=True, slots=True)
class GroupFront:
    """The strongest row of a group as its line of flags.jsonl, and how many `files` hold rows of
    the group now.
    """

    record: Mapping[str, Any]
    files: int


@retried
def load_fronts(
    ledger: Ledger, groups: Iterable[FlaggedGroup]
) -> dict[tuple[str, str], GroupFront]:
    """The front of each group, by audit id and key."""
    found = {}
    with ledger.read() as connection:
        for group in groups:
            here = match_id_prefix(group.row)
            if group.number is not None:
                here = flags.c.group == group.number
            members = (
                select(flags.c.row)
                .join(audits, audits.c.audit == flags.c.audit)
                .join(rows, rows.c.row == flags.c.row)
                .where(audits.c.audit_id == group.audit_id, here)
            )
            strongest = members.with_only_columns(flags.c.record).order_by(*order_by_strength())
            counted = (
                select(func.count(files.c.file.distinct()))
                .join(places, places.c.file == files.c.file)
                .where(files.c.gone_at.is_(None), places.c.row.in_(members))
            )
            record = connection.execute(strongest.limit(1)).scalar_one()
            found[group.audit_id, group.key] = GroupFront(
                record=json.loads(record), files=connection.execute(counted).scalar_one()
            )
    return found
