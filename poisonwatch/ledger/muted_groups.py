"""What people call a group of flagged rows when they mute, assign or comment on it, or a panel:

AUDIT/GROUP    as in the addresses of the dashboard; a row in no group by digits of its id
the key of an alert about one group
the first digits of the id of any of its rows, at least 8: the group that it was last flagged in
panel:NAME
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, and_, desc, select

from poisonwatch.errors import InputError
from poisonwatch.flags import SEVERITIES
from poisonwatch.ledger.history import IS_UNDECIDED
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.queries import ID_DIGITS, is_hex, match_id_prefix
from poisonwatch.ledger.tables import alerts, audits, files, flags, notified_rows, places, rows
from poisonwatch.ledger.transactions import retried
from poisonwatch.text.display import excerpt

PANEL = "panel:"  # begins what a panel is called
KEY_DIGITS = 16  # of an id that names a row in no group
MIN_ID_DIGITS = 8
MAX_GROUP_DIGITS = 7  # of a group's number
MOST_PANELS_NAMED = 20


class MutableRow(NamedTuple):
    """What of a flagged row decides whether a mute covers it."""

    id: str
    panel: str
    severity: str


def describe_covered(connection: Connection, name: str, what: str) -> dict[str, Any]:
    """What a mute covers. Raises InputError where there is no such group or panel."""
    if what.startswith(PANEL):
        members = _find_panel_rows(connection, name, what.removeprefix(PANEL))
        return {
            "name": name,
            "on": what,
            "rows": [],
            "panels": [what.removeprefix(PANEL)],
            "severity": _find_gravest(members),
        }
    members = _find_group(connection, name, what)
    first = members[0]
    key = first.group if first.group is not None else bytes(first.id).hex()[:KEY_DIGITS]
    return {
        "name": name,
        "on": f"{first.audit_id}/{key}",
        "rows": sorted(bytes(member.id).hex() for member in members),
        "panels": sorted({member.panel for member in members}),
        "severity": _find_gravest(members),
    }


@retried
def locate_group(ledger: Ledger, name: str, what: str) -> tuple[str, str]:
    """Audit id and key of a group; a number alone is one of the last audit that flagged any. Raises
    InputError where there is no such group.
    """
    with ledger.read() as connection:
        if what.isascii() and what.isdigit() and len(what) <= MAX_GROUP_DIGITS:
            last = (
                select(audits.c.audit_id)
                .join(flags, flags.c.audit == audits.c.audit)
                .where(audits.c.name == name, flags.c.group.is_not(None))
                .order_by(desc(audits.c.audit))
                .limit(1)
            )
            audit_id = connection.execute(last).scalar_one_or_none()
            if audit_id is not None:
                what = f"{audit_id}/{what}"
        audit_id, _, key = describe_covered(connection, name, what)["on"].partition("/")
        if not key:
            raise InputError("a panel is no group: name a group of flagged rows")
        return audit_id, key


def _find_gravest(members: Sequence[Row[Any]]) -> str:
    severities: list[str] = [member.severity for member in members]
    return max(severities, key=SEVERITIES.index)


_FLAGS = (
    select(rows.c.id, rows.c.row, flags.c.panel, flags.c.severity)
    .add_columns(flags.c.audit, flags.c.group, audits.c.audit_id)
    .join(flags, flags.c.row == rows.c.row)
    .join(audits, audits.c.audit == flags.c.audit)
)


def _find_panel_rows(connection: Connection, name: str, panel: str) -> Sequence[Row[Any]]:
    """Flags on a panel: those that nobody has decided on; where there is none, those of the last
    audit that had any. Raises InputError where the panel never had one.
    """
    on_panel = _FLAGS.where(audits.c.name == name, flags.c.panel == panel)
    found = connection.execute(on_panel.where(IS_UNDECIDED)).all()
    if found:
        return found
    last = connection.execute(on_panel.order_by(desc(flags.c.audit)).limit(1)).one_or_none()
    if last is None:
        of_name = select(flags.c.panel).join(audits, audits.c.audit == flags.c.audit)
        query = (
            of_name.where(audits.c.name == name)
            .distinct()
            .order_by(flags.c.panel)
            .limit(MOST_PANELS_NAMED)
        )
        known = [excerpt(each, 60) for each in connection.execute(query).scalars()]
        raise InputError(
            f"no row was ever flagged on panel {excerpt(panel, 60)}: panels that have flags are "
            f"{', '.join(known) or 'none'}"
        )
    return connection.execute(on_panel.where(flags.c.audit == last.audit)).all()


def _find_group(connection: Connection, name: str, what: str) -> Sequence[Row[Any]]:
    """The flags of a group. Raises InputError where there is none of that name."""
    audit_id, separator, key = what.rpartition("/")
    key = key.lower()
    of_name = _FLAGS.where(audits.c.name == name)
    if separator and key.isascii() and key.isdigit() and len(key) <= MAX_GROUP_DIGITS:
        here = and_(audits.c.audit_id == audit_id, flags.c.group == int(key))
        return _require(connection.execute(of_name.where(here)).all(), what)
    if not is_hex(key) or not MIN_ID_DIGITS <= len(key) <= ID_DIGITS:
        return _require([], what)
    found: Sequence[Row[Any]] = []
    if separator:
        here = and_(audits.c.audit_id == audit_id, match_id_prefix(key))
        found = connection.execute(of_name.where(here)).all()
    else:
        about = (
            select(notified_rows.c.row)
            .join(alerts, alerts.c.alert == notified_rows.c.alert)
            .where(alerts.c.key == key)
        )
        found = connection.execute(of_name.where(flags.c.row.in_(about))).all()
        if not found:
            found = connection.execute(of_name.where(match_id_prefix(key))).all()
    audit, group, row = _find_last_group(_require(found, what), what)
    here = and_(flags.c.audit == audit, flags.c.group == group)
    if group is None:
        here = and_(flags.c.audit == audit, flags.c.row == row)
    return connection.execute(of_name.where(here)).all()


def _find_last_group(found: Sequence[Row[Any]], what: str) -> tuple[int, int | None, int]:
    """Audit, group and a row of the one group that these rows were last flagged in. Raises
    InputError where it is not one.
    """
    last: dict[int, tuple[int, int | None, int]] = {}
    for flag in sorted(found, key=lambda flag: flag.audit):
        last[flag.row] = flag.audit, flag.group, flag.row
    groups: dict[tuple[int, str], tuple[int, int | None, int]] = {}
    for audit, group, row in last.values():
        name = f"row {row}" if group is None else f"group {group}"
        groups[audit, name] = audit, group, row
    if len(groups) > 1:
        raise InputError(
            f"{excerpt(what, 80)} is about {len(groups)} groups: name one as AUDIT/GROUP, as the "
            "dashboard's addresses have it"
        )
    return next(iter(groups.values()))


def _require(found: Sequence[Row[Any]], what: str) -> Sequence[Row[Any]]:
    if not found:
        raise InputError(
            f"{excerpt(what, 80)} names no flagged group: give AUDIT/GROUP as the dashboard's "
            "addresses have it, an alert's key, 8 or more digits of a row's id, or panel:NAME"
        )
    return found


def list_members(
    connection: Connection, audit_id: str, key: str
) -> tuple[list[MutableRow], list[str]]:
    """The rows that an audit flagged in a group (`FlaggedGroup.key`), and the files that have
    them.
    """
    here = match_id_prefix(key)
    if key.isdigit() and len(key) <= MAX_GROUP_DIGITS:
        here = flags.c.group == int(key)
    found = connection.execute(_FLAGS.where(audits.c.audit_id == audit_id, here)).all()
    of_group = (
        select(flags.c.row)
        .join(rows, rows.c.row == flags.c.row)
        .join(audits, audits.c.audit == flags.c.audit)
        .where(audits.c.audit_id == audit_id, here)
    )
    names = (
        select(files.c.name)
        .join(places, places.c.file == files.c.file)
        .where(places.c.row.in_(of_group))
        .distinct()
        .order_by(files.c.name)
    )
    members = [MutableRow(bytes(row.id).hex(), row.panel, row.severity) for row in found]
    return members, list(connection.execute(names).scalars())
