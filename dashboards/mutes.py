"""Mutes on the pages of the queue: what is muted until when, whose rows they are, and the forms by
which a group or its panel is muted, and is no more.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from poisonwatch.alert_config import RoutedRow, find_owners
from poisonwatch.dashboards.audits import encode_filter, find_audit, parse_filter
from poisonwatch.dashboards.pages import get_desk, get_ledger, make_address, read_field, read_form
from poisonwatch.errors import InputError
from poisonwatch.ledger.muted_groups import PANEL, MutableRow, list_members
from poisonwatch.ledger.mutes import (
    Mute,
    end_mutes,
    find_mute,
    list_active_mutes,
    parse_until,
    record_mute,
)
from poisonwatch.ledger.queue import FlaggedGroup


@dataclass(frozen=True, slots=True)
class Standing:
    """Whose a group's rows are, by the audit file's `alerts`, and the mute by which nobody is told
    of them.
    """

    owners: tuple[str, ...]
    mute: Mute | None


def find_standing(request: Request, name: str, groups: Iterable[tuple[str, str]]) -> list[Standing]:
    """How groups of audits of a name (audit id and key) stand."""
    desk, found = get_desk(request), []
    # Another name's alerts stand in another audit file.
    alerts = desk.config.alerts if name == desk.config.name else []
    with desk.ledger.read() as connection:
        mutes = list_active_mutes(connection, name, datetime.now(UTC))
        for audit_id, key in groups:
            if not alerts and not mutes:
                found.append(Standing((), None))
                continue
            members, sources = list_members(connection, audit_id, key)
            routed = _route(members, sources)
            owners = tuple(find_owners(alerts, routed)) if routed else ()
            found.append(Standing(owners, find_mute(mutes, members) if members else None))
    return found


def _route(members: Iterable[MutableRow], sources: list[str]) -> list[RoutedRow]:
    """Every file with every panel and severity: who is told of a group is told of all of it."""
    kinds = sorted({(member.panel, member.severity) for member in members})
    return [RoutedRow(source, *kind) for source in sources or [""] for kind in kinds]


def find_standings(
    request: Request, groups: Iterable[FlaggedGroup]
) -> dict[tuple[str, str], Standing]:
    """How each group of a list stands, by audit id and key."""
    by_name: dict[str, list[tuple[str, str]]] = {}
    for group in groups:
        by_name.setdefault(group.name, []).append((group.audit_id, group.key))
    found: dict[tuple[str, str], Standing] = {}
    for name, places in by_name.items():
        found.update(zip(places, find_standing(request, name, places), strict=True))
    return found


async def mute_group(request: Request) -> Response:
    """Send no messages about a group, or about its panel, until a day."""
    key = request.path_params["key"]
    past = await run_in_threadpool(find_audit, request)
    form = await read_form(request)
    ledger = await run_in_threadpool(get_ledger, request)
    what, panel = f"{past.audit_id}/{key}", read_field(form, "panel")
    if read_field(form, "what") == "panel":
        what = f"{PANEL}{panel}"
    until, why = parse_until(read_field(form, "until")), read_field(form, "why")

    def record() -> None:
        user = request.state.user
        owner = read_field(form, "owner") or None
        record_mute(ledger, past.name, what, until, why, author=user, owner=owner)

    await run_in_threadpool(record)
    return _return_to_group(request, past.audit_id)


async def unmute_group(request: Request) -> Response:
    """End the mute that is named by its number."""
    past = await run_in_threadpool(find_audit, request)
    form = await read_form(request)
    ledger = await run_in_threadpool(get_ledger, request)
    number = read_field(form, "mute")
    if not (number.isascii() and number.isdigit()):
        raise InputError("no mute is named: open the group again")

    def end() -> None:
        end_mutes(ledger, past.name, number, "", author=request.state.user)

    await run_in_threadpool(end)
    return _return_to_group(request, past.audit_id)


def _return_to_group(request: Request, audit_id: str) -> Response:
    kept = encode_filter(parse_filter(request))
    address = make_address(f"/triage/{audit_id}/{request.path_params['key']}", **kept)
    return RedirectResponse(address, 303)


routes = [
    Route("/triage/{audit_id}/{key}/mute", mute_group, methods=["POST"]),
    Route("/triage/{audit_id}/{key}/unmute", unmute_group, methods=["POST"]),
]
