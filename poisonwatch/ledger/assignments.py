"""Who is to look at which flagged rows. Rows are assigned by the group that they are in, and keep
their assignee where a later audit puts them into another one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, select

from poisonwatch.attestation.statement import hash_text, write_canonical
from poisonwatch.errors import InputError
from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, Ledger, batched, insert_all
from poisonwatch.ledger.queue import NO_SUCH_GROUP, match_group_key
from poisonwatch.ledger.records import append_record, lock_chain
from poisonwatch.ledger.tables import audits, flags, rows
from poisonwatch.ledger.team_tables import assignments
from poisonwatch.ledger.transactions import retried
from poisonwatch.text.display import excerpt
from poisonwatch.text.names import fold_name

ASSIGNMENT = "assignment"  # kind of records
LONGEST_NAME = 100  # characters


@retried
def record_assignment(
    ledger: Ledger, audit_id: str, key: str, assignee: str, *, author: str
) -> int:
    """Assign the rows of a group (`FlaggedGroup.key`) to somebody, or to nobody (""): how many
    rows. Raises InputError where there is no such group, or the name is none, and what the ledger's
    signer raises.
    """
    assignee = assignee.strip()
    if len(assignee) > LONGEST_NAME:
        raise InputError(f"a name has at most {LONGEST_NAME} characters, not {len(assignee):,}")
    if not author.strip():
        raise InputError("an assignment needs an author: say who assigns")
    with ledger.write() as connection:
        lock_chain(connection)
        members = find_members(connection, audit_id, key)
        said: dict[str, Any] = {
            **name_group(audit_id, key, members),
            "assignee": assignee,
            "author": author.strip(),
        }
        subjects = {f"rows of {said['on']}": digest_assigned(said)}
        head = append_record(connection, ASSIGNMENT, said["on"], subjects, said, ledger.signer)
        _keep(connection, [member.row for member in members], said, head.number)
        return len(members)


def name_group(audit_id: str, key: str, members: Sequence[Row[Any]]) -> dict[str, Any]:
    """Which rows a record is about: the audit's name, the group, and the ids of its `members`."""
    return {
        "name": members[0].name,
        "on": f"{audit_id}/{key}",
        "rows": sorted(bytes(member.id).hex() for member in members),
    }


def find_members(connection: Connection, audit_id: str, key: str) -> Sequence[Row[Any]]:
    """The rows of a group (row, id), with the name of their audit. Raises InputError where there is
    none.
    """
    query = (
        select(rows.c.row, rows.c.id, audits.c.name)
        .join(flags, flags.c.row == rows.c.row)
        .join(audits, audits.c.audit == flags.c.audit)
        .where(audits.c.audit_id == audit_id, match_group_key(key))
    )
    members = connection.execute(query).all()
    if not members:
        raise InputError(f"{NO_SUCH_GROUP} ({excerpt(audit_id, 40)}/{excerpt(key, 20)})")
    return members


def _keep(
    connection: Connection, numbers: Sequence[int], said: Mapping[str, Any], record: int
) -> None:
    """Keep beside the chain who has these rows now."""
    for some in batched(numbers, VALUES_PER_STATEMENT):
        connection.execute(delete(assignments).where(assignments.c.row.in_(some)))
    if not said["assignee"]:
        return
    value = {**describe_assigned(said), "record": record}
    insert_all(connection, assignments, [{"row": row, **value} for row in numbers])


def describe_assigned(said: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of an assignment beside the chain, by what its record says."""
    person = fold_name(said["assignee"])
    taken = int(person == fold_name(said["author"]))
    return {"assignee": said["assignee"], "person": person, "taken": taken}


def digest_assigned(said: Mapping[str, Any]) -> str:
    """The digest of who is to look at which rows, which a record is on."""
    return hash_text(
        write_canonical({key: said[key] for key in ("name", "on", "rows", "assignee")})
    )
