"""Mutes and reminders against their records.

A mute is its record: what it covers must have the digest that the record is on, and what ends one
must end one that was there. A message that no audit composed must be what its record is on.
"""

from collections.abc import Iterator
from datetime import datetime

from sqlalchemy import Connection

from poisonwatch.attestation.statement import hash_text
from poisonwatch.ledger.differences import Difference
from poisonwatch.ledger.mutes import LONGEST_MUTE, MUTE, UNMUTE, digest_muted, read_mute
from poisonwatch.ledger.records import Record, read_records
from poisonwatch.ledger.reminders import (
    REMINDER_RECORD,
    digest_reminder,
    list_reminder_keys,
)


def check_mutes(connection: Connection) -> Iterator[Difference]:
    """Records of mutes that are none."""
    numbers = set()
    for record in read_records(connection, MUTE):
        numbers.add(record.number)
        yield from _check_mute(record)
    for record in read_records(connection, UNMUTE):
        ended = record.statement.predicate["mute"]
        if ended not in numbers or ended > record.number or record.item != str(ended):
            yield Difference(f"record {record.number}: the mute that it ends", "a mute", "none")
        elif set(record.statement.subjects.values()) != {hash_text(str(ended))}:
            yield Difference(f"record {record.number}: subject", "its mute", "another")


def _check_mute(record: Record) -> Iterator[Difference]:
    said = record.statement.predicate
    name = f"mute {record.number}"
    if set(record.statement.subjects.values()) != {digest_muted(said)}:
        yield Difference(f"{name}: what it covers", "what its record is on", "something else")
    mute = read_mute(record)
    if record.item != mute.on or not mute.why or not mute.owner or not mute.author:
        yield Difference(f"{name}: name, reason, owner, author", "all of them", "not all")
    length = datetime.fromisoformat(mute.until) - datetime.fromisoformat(mute.muted_at)
    if length > LONGEST_MUTE:
        yield Difference(f"{name}: end", f"within {LONGEST_MUTE.days} days", mute.until)


def check_reminders(connection: Connection) -> Iterator[Difference]:
    """Messages between audits that are not what was recorded, and those that one of the two
    lacks.
    """
    keys = set(list_reminder_keys(connection))
    for record in read_records(connection, REMINDER_RECORD):
        key = record.item or ""
        if key not in keys:
            yield Difference(f"reminder {key}", "a message", "its record alone")
            continue
        keys.remove(key)
        subjects = {f"reminder {key}": digest_reminder(connection, key)}
        if dict(record.statement.subjects) != subjects:
            yield Difference(f"reminder {key}", "what its record says", "something else")
    for key in sorted(keys):
        yield Difference(f"reminder {key}", "a record of the chain", "none")
