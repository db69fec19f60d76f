"""That audits do not come, as messages: once a silence, and once when it ends.

Whoever is alive looks: `status --alert`, the dashboard, `watch`, an audit of another name on the
same ledger. Who looks puts the notice into the outbox, for the targets of its own audit file; what
a target was told of a silence, nobody tells it again.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from poisonwatch.alerts.markup import neutralise_markup
from poisonwatch.alerts.targets import compute_short_digest, list_targets
from poisonwatch.config import AuditConfig
from poisonwatch.ledger import notices
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.notices import BACK, OVERDUE, Notice, StoredNotice
from poisonwatch.ledger.schedules import ExpectedAudits, list_schedules, record_schedule
from poisonwatch.ledger.transactions import retried
from poisonwatch.liveness.liveness import Liveness, expect, find_liveness, write_moment
from poisonwatch.text.durations import tell_duration


def look_after(ledger: Ledger, config: AuditConfig, now: datetime) -> list[Liveness]:
    """See whether audits come, of this name and of every other that the ledger expects any of, and
    put what is to be told of it into the outbox.

    What the audit file says of its schedule is remembered. Returns what was seen, this name first.
    """
    own, known = _remember_schedule(ledger, config, now)
    targets = [target.id for target in list_targets(config)]
    seen = [find_liveness(ledger, config.name, own, now)]
    seen += [find_liveness(ledger, name, expected, now) for name, expected in known.items()]
    for liveness in seen:
        note_silence(ledger, liveness, targets)
    return seen


@retried
def _remember_schedule(
    ledger: Ledger, config: AuditConfig, now: datetime
) -> tuple[ExpectedAudits | None, dict[str, ExpectedAudits]]:
    """What is expected of this name, and of every other."""
    with ledger.read() as connection:
        own = expect(connection, config.name, config.schedule, now)
        known = {expected.name: expected for expected in list_schedules(connection)}
    before = known.pop(config.name, None)
    remembered = before.schedule.write() if before is not None else None
    if own is not None and own.schedule.write() != remembered:
        with ledger.write() as connection:
            own = record_schedule(connection, config.name, config.schedule, now)
    return own, known


@retried
def note_silence(ledger: Ledger, liveness: Liveness, targets: Sequence[str]) -> None:
    """Put into the outbox what these targets are to be told of a silence, or of its end."""
    with ledger.read() as connection:
        told = notices.find_last_notice(connection, liveness.name)
        is_told = told is None or not _list_missing(connection, told, liveness.name, targets)
        if is_told and _choose_notice(liveness, told) is None:
            return
    with ledger.write() as connection:
        # Asked once more: another process may have told of it meanwhile.
        told = notices.find_last_notice(connection, liveness.name)
        new = _choose_notice(liveness, told)
        if new is not None:
            notices.add_notice(connection, new, liveness.now)
        last = notices.find_last_notice(connection, liveness.name)
        if last is not None:
            missing = _list_missing(connection, last, liveness.name, targets)
            notices.address_notice(connection, last.number, missing)
            notices.drop_earlier(connection, liveness.name, last.number, targets)


def _choose_notice(liveness: Liveness, told: StoredNotice | None) -> Notice | None:
    """The notice that is to be made now; None where all is told."""
    is_told = told is not None and told.kind == OVERDUE
    if liveness.is_overdue and not is_told:
        return _compose_overdue(liveness)
    if told is not None and is_told and liveness.is_on_time:
        return _compose_back(liveness, told)
    return None


def _list_missing(
    connection: Connection, last: StoredNotice, name: str, targets: Sequence[str]
) -> list[str]:
    """The targets that the last notice is to go to, and does not yet: that audits are back concerns
    those that were to hear that they were not.
    """
    wanted = set(targets)
    if last.kind == BACK:
        wanted &= set(notices.list_targets_of_silence(connection, name, last.number))
    wanted -= set(notices.list_targets_of(connection, last.number))
    return sorted(wanted)


def _describe(liveness: Liveness) -> str:
    """`Liveness.describe`, whose one text that somebody wrote has no markup."""
    line = liveness.describe()
    if liveness.expected is not None:
        written = liveness.expected.schedule.describe()
        line = line.replace(written, neutralise_markup(written))
    return line


def _compose_overdue(liveness: Liveness) -> Notice:
    name = neutralise_markup(liveness.name)
    last = liveness.last.number if liveness.last else 0
    key = compute_short_digest(f"{liveness.name}\noverdue\n{last}\n{liveness.due}")
    lines = [
        f"{_describe(liveness)}.",
        "What came into the source since then is not audited. See why: "
        "poisonwatch status AUDIT.yaml",
        "This is told once; once more when audits are back.",
        f"Alert {key}",
    ]
    return Notice(
        name=liveness.name,
        kind=OVERDUE,
        key=key,
        severity="high",
        title=f"Poisonwatch: audits of {name} do not come",
        body="\n".join(lines),
    )


def _compose_back(liveness: Liveness, told: StoredNotice) -> Notice:
    name = neutralise_markup(liveness.name)
    key = compute_short_digest(f"{liveness.name}\nback\n{told.number}")
    silence = tell_duration(liveness.now - told.created_at)
    title, what = f"Poisonwatch: audits of {name} are back", "Audits are back"
    if liveness.expected is None:
        title = f"Poisonwatch: audits of {name} are not expected any more"
        what = "No audit is expected any more"
    lines = [
        f"{what}. That they did not come was noticed on {write_moment(told.created_at)}, "
        f"{silence} ago.",
        f"{_describe(liveness)}.",
        f"Alert {key}",
    ]
    return Notice(
        name=liveness.name,
        kind=BACK,
        key=key,
        severity="low",
        title=title,
        body="\n".join(lines),
    )
