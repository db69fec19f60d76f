"""The last look for trained checkpoints by the audit file of a name, and those that it could not
probe: each look asks them anew, and what it finds takes the place of what the one before found.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select
from sqlalchemy.exc import IntegrityError

from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.notice_tables import probe_looks
from poisonwatch.ledger.transactions import retried


@dataclass(frozen=True, slots=True)
class FailedProbe:
    """The folder of a checkpoint that could not be probed, and why: one line."""

    folder: str
    problem: str


@dataclass(frozen=True, slots=True)
class ProbeLook:
    """When checkpoints were looked for, and those that could not be probed then."""

    looked_at: datetime
    failed: tuple[FailedProbe, ...]

    def to_record(self) -> dict[str, Any]:
        """As JSON."""
        looked_at = self.looked_at.isoformat(timespec="seconds")
        return {"looked_at": looked_at, "failed": [asdict(each) for each in self.failed]}


@retried
def record_look(ledger: Ledger, name: str, failed: Sequence[FailedProbe], at: datetime) -> None:
    """Remember a look, in place of the one before."""
    values = {
        "name": name,
        "looked_at": at.astimezone(UTC).isoformat(timespec="seconds"),
        "failed": json.dumps([asdict(each) for each in failed]),
    }
    # Another process that looked at this moment may have said so in between.
    with ledger.write() as connection, suppress(IntegrityError), connection.begin_nested():
        connection.execute(delete(probe_looks).where(probe_looks.c.name == name))
        connection.execute(insert(probe_looks).values(values))


def find_look(connection: Connection, name: str) -> ProbeLook | None:
    """The last look by the audit file of a name; None where there was none, or it is of a later
    version, or of nobody's making.
    """
    query = select(probe_looks).where(probe_looks.c.name == name)
    found = connection.execute(query).one_or_none()
    return None if found is None else _read_look(found)


@retried
def list_failed_probes(ledger: Ledger, name: str | None = None) -> list[FailedProbe]:
    """What the last look of each audit file, or of that of a name, could not probe."""
    query = select(probe_looks).order_by(probe_looks.c.name)
    if name is not None:
        query = query.where(probe_looks.c.name == name)
    with ledger.read() as connection:
        looks = [_read_look(found) for found in connection.execute(query)]
    return [failed for look in looks if look is not None for failed in look.failed]


def _read_look(found: Row[Any]) -> ProbeLook | None:
    with suppress(ValueError, TypeError):
        failed = tuple(FailedProbe(**each) for each in json.loads(found.failed))
        looked_at = datetime.fromisoformat(found.looked_at)
        if looked_at.tzinfo is not None:
            return ProbeLook(looked_at, failed)
    return None
