"""Where rows stand now, by their example ids."""

from collections.abc import Sequence

from sqlalchemy import select

from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, Ledger, batched
from poisonwatch.ledger.tables import files, places, rows
from poisonwatch.ledger.transactions import retried


@retried
def find_places(
    ledger: Ledger, name: str, example_ids: Sequence[str]
) -> dict[str, list[tuple[str, int]]]:
    """The files and zero-based positions at which these contents stand in the source of a name, as
    its last pull found it, in order; contents that stand nowhere are left out.
    """
    query = (
        select(rows.c.id, files.c.name, places.c.position)
        .join(places, places.c.row == rows.c.row)
        .join(files, files.c.file == places.c.file)
        .where(files.c.audit == name, files.c.gone_at.is_(None))
        .order_by(files.c.name, places.c.position)
    )
    found: dict[str, list[tuple[str, int]]] = {}
    with ledger.read() as connection:
        for some in batched(example_ids, VALUES_PER_STATEMENT):
            ids = [bytes.fromhex(id) for id in some]
            for id, file, position in connection.execute(query.where(rows.c.id.in_(ids))):
                found.setdefault(bytes(id).hex(), []).append((file, position))
    return found
