"""What a target is sent in one run of deliveries: oldest first, and what has grown old as one
message.

Whoever comes back after a night of being down wants to read what happened, not 200 messages: alerts
older than a day go out as one digest that names each by its key. What a target refused is sent on
its own, so that it holds up nothing else.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from poisonwatch.alerts.fitting import Message
from poisonwatch.alerts.markup import neutralise_markup
from poisonwatch.alerts.targets import compute_short_digest
from poisonwatch.config import AuditConfig
from poisonwatch.flags import SEVERITIES
from poisonwatch.ledger.outbox import PendingAlert
from poisonwatch.ledger.resolves import Reopening
from poisonwatch.reports.links import make_dashboard_url
from poisonwatch.text.words import plural

MOST_ALERTS_NAMED = 20  # with their titles; of the others the keys alone
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long deliveries wait, and how often they are tried."""

    connect_seconds: float = 10.0
    read_seconds: float = 30.0
    longest_pause: float = 30.0
    """Seconds that a target may ask for (Retry-After) and is waited for at once."""
    most_messages: int = 20
    """To one target in one run."""
    most_failures: int = 3
    """In a row, of one target in one run."""
    most_seconds: float = 120.0
    """Of one target in one run: nothing is begun after them."""
    first_wait: timedelta = timedelta(minutes=1)
    """Until a target that failed is tried again; twice as long each time."""
    longest_wait: timedelta = timedelta(hours=1)
    longest_request: timedelta = DAY
    """That a target may ask to be left alone for: one that asks for years is not obeyed."""
    merge_after: timedelta = DAY
    give_up_after: timedelta = 3 * DAY
    """Of refusing one message."""
    least_tries: int = 3
    """Before one is given up."""

    def compute_wait(self, failures: int) -> timedelta:
        """Until the next attempt, after so many that failed."""
        # Thirty doublings of a minute are two thousand years.
        doublings = min(max(failures - 1, 0), 30)
        return min(self.longest_wait, self.first_wait * (1 << doublings))


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message, and the alerts that are told by it."""

    message: Message
    alerts: tuple[PendingAlert, ...]


def plan_parcels(
    pending: Sequence[PendingAlert],
    config: AuditConfig,
    at: datetime,
    patience: Patience,
    at_once: bool = False,
) -> list[Parcel]:
    """What a target is sent of its `pending` alerts, in this order; with `at_once`, what it refused
    before also where it is not due yet.
    """
    refused = [alert for alert in pending if alert.refused_at is not None]
    others = [alert for alert in pending if alert.refused_at is None]
    border = at - patience.merge_after
    old = [alert for alert in others if datetime.fromisoformat(alert.created_at) < border]
    parcels = []
    # One alert says itself best.
    if len(old) > 1:
        parcels.append(Parcel(_compose_backlog(old, config, at), tuple(old)))
        others = [alert for alert in others if alert not in old]
    single = [*others, *(alert for alert in refused if at_once or _is_due(alert, at, patience))]
    for alert in single:
        parcels.append(Parcel(_compose_single(alert, config), (alert,)))
    return parcels


def _is_due(alert: PendingAlert, at: datetime, patience: Patience) -> bool:
    if alert.tried_at is None:
        return True
    tried = datetime.fromisoformat(alert.tried_at)
    # Where it was tried in the future, the clock has jumped back.
    return at < tried or at >= tried + patience.compute_wait(alert.attempts)


def _compose_single(alert: PendingAlert, config: AuditConfig) -> Message:
    link = make_dashboard_url(config, alert.audit_id)
    return Message(alert.key, alert.severity, alert.title, body=alert.body, link=link)


def compose_reopening(reopening: Reopening, config: AuditConfig, head: str) -> Message:
    """That an incident is open again, under the key that it was opened with; `head` ends it."""
    waiting = plural(reopening.open_rows, "row")
    said = f"A decision was taken back. To be decided on: {waiting}. This was said before:"
    body = "\n".join([said, reopening.body, head])
    link = make_dashboard_url(config, reopening.audit_id)
    title = f"Open again: {reopening.title}"
    return Message(reopening.key, reopening.severity, title, body=body, link=link)


def _compose_backlog(alerts: Sequence[PendingAlert], config: AuditConfig, at: datetime) -> Message:
    """One message about alerts that could not be delivered in time, oldest first."""
    oldest = min(datetime.fromisoformat(alert.created_at) for alert in alerts)
    days = math.ceil((at - oldest) / DAY)
    count = plural(len(alerts), "alert")
    gravest = max((alert.severity for alert in alerts), key=SEVERITIES.index)
    lines = [
        f"{count} of the last {days} days could not be delivered when they were written. "
        "Each is whole in the report of its audit and in the dashboard:"
    ]
    # Titles were made inert when they were written.
    for alert in alerts[:MOST_ALERTS_NAMED]:
        written = datetime.fromisoformat(alert.created_at)
        lines.append(f"  {written:%Y-%m-%d %H.%M} UTC, alert {alert.key}: {alert.title}")
    left = [alert.key for alert in alerts[MOST_ALERTS_NAMED:]]
    if left:
        lines.append(f"  and {plural(len(left), 'more alert')}: {' '.join(left)}")
    link = make_dashboard_url(config, alerts[-1].audit_id)
    lines.append("Past audits: poisonwatch history AUDIT.yaml")
    if link is not None:
        lines.append(f"Dashboard, the latest of them: {link}")
    key = compute_short_digest("\n".join(["backlog", *(alert.key for alert in alerts)]))
    name = neutralise_markup(config.name)
    title = f"Poisonwatch: {count} of the last {days} days in {name} (severity {gravest})"
    lines.append(f"Alert {key}")
    return Message(key, gravest, title, body="\n".join(lines), link=link)
