"""What people say of flagged rows to each other, beside their verdicts. A comment is a record of
the chain: it is never changed or removed; another one corrects it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from poisonwatch.attestation.statement import hash_text, write_canonical
from poisonwatch.errors import InputError
from poisonwatch.ledger.assignments import find_members, name_group
from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, Ledger, batched, insert_all
from poisonwatch.ledger.records import Record, append_record, find_record_by_number, lock_chain
from poisonwatch.ledger.team_tables import commented_rows
from poisonwatch.ledger.transactions import retried

COMMENT = "comment"  # kind of records
LONGEST_COMMENT = 2000  # characters


@dataclass(frozen=True, slots=True)
class Comment:
    """What somebody said of rows (example ids), by the number of its record."""

    number: int
    rows: tuple[str, ...]
    text: str
    author: str
    said_at: str


@retried
def record_comment(ledger: Ledger, audit_id: str, key: str, text: str, *, author: str) -> Comment:
    """Say something of the rows of a group (`FlaggedGroup.key`). Raises InputError where there is
    no such group, or nothing is said, or too much, and what the ledger's signer raises.
    """
    text = text.strip()
    if not text or not author.strip():
        raise InputError("a comment has an author, and says something")
    if len(text) > LONGEST_COMMENT:
        raise InputError(f"a comment has at most {LONGEST_COMMENT:,} characters, not {len(text):,}")
    with ledger.write() as connection:
        lock_chain(connection)
        members = find_members(connection, audit_id, key)
        said: dict[str, Any] = {
            **name_group(audit_id, key, members),
            "text": text,
            "author": author.strip(),
        }
        subjects = {f"comment on {said['on']}": digest_comment(said)}
        head = append_record(connection, COMMENT, said["on"], subjects, said, ledger.signer)
        values = [{"record": head.number, "row": member.row} for member in members]
        insert_all(connection, commented_rows, values)
        record = find_record_by_number(connection, head.number)
        assert record is not None
        return read_comment(record)


def list_comments(connection: Connection, numbers: Sequence[int]) -> list[Comment]:
    """The comments on any of these rows (numbers), oldest first."""
    found: set[int] = set()
    for some in batched(numbers, VALUES_PER_STATEMENT):
        query = select(commented_rows.c.record).where(commented_rows.c.row.in_(some)).distinct()
        found.update(connection.execute(query).scalars())
    records = (find_record_by_number(connection, number) for number in sorted(found))
    return [read_comment(record) for record in records if record is not None]


def read_comment(record: Record) -> Comment:
    """A comment by its record."""
    said = record.statement.predicate
    return Comment(
        number=record.number,
        rows=tuple(said["rows"]),
        text=said["text"],
        author=said["author"],
        said_at=said["chain"]["recorded_at"],
    )


def digest_comment(said: Mapping[str, Any]) -> str:
    """The digest of what is said of which rows, which a record is on."""
    return hash_text(write_canonical({key: said[key] for key in ("name", "on", "rows", "text")}))
