"""Mutes: for a while, nobody is sent messages about a group of flagged rows, or about a panel.

Its rows stay flagged, and in quarantine. A mute has an owner, a reason and an end, and lives in the
chain of records alone: one record begins it, another may end it sooner. It covers what was known
when it was made: graver rows, and those of a group that push another panel, are told of all the
same.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from poisonwatch.attestation.statement import hash_text, write_canonical
from poisonwatch.errors import InputError
from poisonwatch.flags import SEVERITIES
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.muted_groups import MutableRow as MutableRow
from poisonwatch.ledger.muted_groups import describe_covered
from poisonwatch.ledger.records import Record, append_record, lock_chain, read_records
from poisonwatch.ledger.transactions import retried
from poisonwatch.text.display import excerpt
from poisonwatch.text.durations import parse_duration
from poisonwatch.text.words import plural

MUTE, UNMUTE = "mute", "unmute"  # kinds of records
LONGEST_MUTE = timedelta(days=366)
LONGEST_WORDS = 2000  # characters of a reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Mute:
    """What is muted (`on`: "panel:NAME", or AUDIT/GROUP) in audits of a `name`, until when, why.

    `number` is that of its record. `rows` are the example ids of the group, none for a panel;
    `panels` those that it covers, up to a `severity`. Times are as `ledger.now` writes them.
    `replaces`, of one that was just made, are the mutes of the same (numbers) that it ended.
    """

    number: int
    name: str
    on: str
    rows: frozenset[str]
    panels: frozenset[str]
    severity: str
    until: str
    why: str
    owner: str
    author: str
    muted_at: str
    unmuted_at: str | None = None
    unmuted_by: str | None = None
    replaces: tuple[int, ...] = ()

    @property
    def ended_at(self) -> str:
        """When it ended, or is to end."""
        return min(self.unmuted_at or self.until, self.until)

    def is_active(self, at: datetime) -> bool:
        """Whether it holds messages back at that time."""
        return self.unmuted_at is None and at < datetime.fromisoformat(self.until)

    def covers(self, row: MutableRow, of_group: bool) -> bool:
        """Whether it covers a row, which is in the muted group where it is `of_group`."""
        known = SEVERITIES.index(row.severity) <= SEVERITIES.index(self.severity)
        return known and row.panel in self.panels and (of_group or not self.rows)

    def describe(self) -> dict[str, Any]:
        """For summaries and pages, as JSON."""
        return {
            "mute": self.number,
            "on": self.on,
            "until": self.until,
            "owner": self.owner,
            "author": self.author,
            "why": self.why,
        }


def find_mute(
    mutes: Sequence[Mute], rows: Iterable[MutableRow], group: Collection[str] = ()
) -> Mute | None:
    """The first of these mutes by which rows that are told of together are muted: each of them is
    covered by one. They are of a muted group where they, or others of their `group` (example ids),
    are among its rows.
    """
    rows = list(rows)
    ids = {row.id for row in rows}.union(group)
    of_group = {mute.number: not mute.rows.isdisjoint(ids) for mute in mutes}
    first: Mute | None = None
    for row in rows:
        covering = (mute for mute in mutes if mute.covers(row, of_group[mute.number]))
        mute = next(covering, None)
        if mute is None:
            return None
        first = first or mute
    return first


def list_mutes(connection: Connection, name: str) -> list[Mute]:
    """All mutes in audits of a name, oldest first, also those that ended."""
    found: dict[int, Mute] = {}
    for record in read_records(connection, MUTE):
        mute = read_mute(record)
        if mute.name == name:
            found[mute.number] = mute
    for record in read_records(connection, UNMUTE):
        said = record.statement.predicate
        muted = found.get(said["mute"])
        # The first one ends it.
        if muted is not None and muted.unmuted_at is None:
            at = said["chain"]["recorded_at"]
            found[muted.number] = replace(muted, unmuted_at=at, unmuted_by=said["author"])
    return list(found.values())


def list_active_mutes(connection: Connection, name: str, at: datetime | None = None) -> list[Mute]:
    """The mutes that hold messages back (None: now)."""
    moment = at or datetime.now(UTC)
    return [mute for mute in list_mutes(connection, name) if mute.is_active(moment)]


@retried
def find_active_mutes(ledger: Ledger, name: str) -> list[Mute]:
    """The mutes that hold messages back now."""
    with ledger.read() as connection:
        return list_active_mutes(connection, name)


def read_mute(record: Record) -> Mute:
    """A mute by its record, as if nobody had ended it."""
    said = record.statement.predicate
    return Mute(
        number=record.number,
        name=said["name"],
        on=said["on"],
        rows=frozenset(said["rows"]),
        panels=frozenset(said["panels"]),
        severity=said["severity"],
        until=said["until"],
        why=said["why"],
        owner=said["owner"],
        author=said["author"],
        muted_at=said["chain"]["recorded_at"],
    )


def digest_muted(said: Mapping[str, Any]) -> str:
    """The digest of what a mute covers, by what its record says."""
    covered = {key: said[key] for key in ("name", "on", "rows", "panels", "severity")}
    return hash_text(write_canonical(covered))


def parse_until(text: str, at: datetime | None = None) -> datetime:
    """When a mute ends: after a day (2026-12-31, which it includes, in UTC), or after a time from
    now (14d, 12h). `at` is what time it is. Raises InputError.
    """
    with suppress(ValueError, OverflowError):
        day = datetime.strptime(text.strip(), "%Y-%m-%d").replace(tzinfo=UTC)
        return day + timedelta(days=1)
    try:
        return (at or datetime.now(UTC)) + parse_duration(text.strip().lower())
    except (ValueError, OverflowError):
        raise InputError(
            f"{excerpt(text, 40)!r} is no end of a mute: give a day, as in 2026-12-31, or a time "
            "from now, as in 14d"
        ) from None


@retried
def record_mute(
    ledger: Ledger,
    name: str,
    what: str,
    until: datetime,
    why: str,
    *,
    author: str,
    owner: str | None = None,
    at: datetime | None = None,
) -> Mute:
    """Mute a group or a panel in audits of a name: see `muted_groups` for how it is called. A mute
    of the same that holds is replaced: it ends where this one begins. `at` is what time it is
    (None: now).

    Raises InputError where there is no such group or panel, the end is not within a year, or no
    reason is given, and what the ledger's signer raises: then nothing is muted.
    """
    moment = at or datetime.now(UTC)
    _check_words(why, author)
    if not moment < until <= moment + LONGEST_MUTE:
        raise InputError(
            f"a mute ends at {until:%Y-%m-%d %H:%M} UTC: give a day to come, at most "
            f"{LONGEST_MUTE.days} days from now"
        )
    with ledger.write() as connection:
        lock_chain(connection)
        covered = describe_covered(connection, name, what)
        said = {
            **covered,
            "until": until.astimezone(UTC).isoformat(timespec="seconds"),
            "why": why.strip(),
            "owner": (owner or author).strip(),
            "author": author.strip(),
        }
        subjects = {f"mute of {said['on']}": digest_muted(said)}
        active = list_active_mutes(connection, name, moment)
        append_record(connection, MUTE, said["on"], subjects, said, signer=ledger.signer)
        made = list_mutes(connection, name)[-1]
        replaced = [mute for mute in active if mute.on == made.on]
        for mute in replaced:
            _end_mute(connection, ledger, mute, f"replaced by mute {made.number}", made.author)
        return replace(made, replaces=tuple(mute.number for mute in replaced))


@retried
def end_mutes(ledger: Ledger, name: str, what: str, why: str, *, author: str) -> list[Mute]:
    """End the mutes of a group or a panel, or one by its number, before their time. Raises
    InputError where nothing of that name is muted, and what the ledger's signer raises.
    """
    _check_words(why or "-", author)
    with ledger.write() as connection:
        lock_chain(connection)
        active = list_active_mutes(connection, name)
        ended = [mute for mute in active if what in (str(mute.number), mute.on)]
        if not ended and not what.isdigit():
            on = describe_covered(connection, name, what)["on"]
            ended = [mute for mute in active if mute.on == on]
        if not ended:
            raise InputError(
                f"{excerpt(what, 80)} is not muted: see `poisonwatch mute AUDIT.yaml --list`"
            )
        for mute in ended:
            _end_mute(connection, ledger, mute, why.strip(), author)
        return ended


def _end_mute(connection: Connection, ledger: Ledger, mute: Mute, why: str, author: str) -> None:
    said = {"mute": mute.number, "on": mute.on, "why": why, "author": author}
    number = str(mute.number)
    subjects = {f"mute {number}": hash_text(number)}
    append_record(connection, UNMUTE, number, subjects, said, signer=ledger.signer)


def _check_words(why: str, author: str) -> None:
    if not why.strip():
        raise InputError("a mute needs a reason: say why, for those who come later")
    if not author.strip():
        raise InputError("a mute needs an author: say who mutes")
    if len(why) > LONGEST_WORDS:
        raise InputError(f"a reason has at most {LONGEST_WORDS:,} characters, not {len(why):,}")


def tell_held_back(summary: Mapping[str, Any]) -> list[str]:
    """A line for each mute by which nobody was told of flagged rows of an audit, by its summary;
    earlier versions' have none.
    """
    return [tell_mute(said) for said in summary.get("muted", ()) if said["rows"]]


def tell_mute(said: Mapping[str, Any]) -> str:
    """A mute in one line, by `Mute.describe`; `rows` are those that it holds back, where known."""
    line = (
        f"{excerpt(said['on'], 80)} is muted until {said['until'][:16].replace('T', ' ')} UTC by "
        f"{excerpt(said['author'], 60)}"
    )
    if said["owner"] != said["author"]:
        line += f" for {excerpt(said['owner'], 60)}"
    line += f", because {excerpt(said['why'], 200)} (mute {said['mute']}"
    if said.get("rows"):
        line += f"; {plural(said['rows'], 'flagged row')} told to nobody"
    return f"{line})"
