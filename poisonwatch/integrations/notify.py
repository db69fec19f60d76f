"""Notify people: send what the outbox holds to the audit's targets, by Apprise or by Prefect.

One target after the other, and to each what `plan_parcels` says, oldest first. A target that is out
of reach costs one time-out, and waits longer each time; what one target refuses, or does not
answer, keeps nothing from another, nor the next message from it. Nothing that is owed is dropped
unsaid.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Protocol

from sqlalchemy import Connection

from poisonwatch.alerts.backlog import Parcel, Patience, compose_reopening, plan_parcels
from poisonwatch.alerts.fitting import Message
from poisonwatch.alerts.targets import Target, list_targets
from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError, PoisonwatchError
from poisonwatch.integrations.refusals import Cause, Refusal
from poisonwatch.ledger import outbox
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.mutes import list_active_mutes
from poisonwatch.ledger.outages import (
    Outage,
    clear_outage,
    forget_outages,
    list_outages,
    note_outage,
)
from poisonwatch.ledger.outbox import PendingAlert
from poisonwatch.ledger.records import MIN_HEAD_DIGITS, ChainHead, read_head
from poisonwatch.ledger.reminders import list_held_alerts
from poisonwatch.ledger.resolves import (
    PendingResolve,
    Reopening,
    list_pending_resolves,
    list_reopenings,
    mark_reopened,
    mark_resolved,
)
from poisonwatch.ledger.transactions import retried
from poisonwatch.text.words import plural

PATIENCE = Patience()


class Sender(Protocol):
    """A target's address, open for the messages of one run."""

    @property
    def resolves(self) -> bool:
        """Whether it is told when an alert is decided on."""

    def send(self, message: Message) -> Refusal | None:
        """Send a message; None, or why it was not taken."""

    def resolve(self, key: str) -> Refusal | None:
        """Tell that an alert is decided on; None, or why that was not taken."""


def make_sender(target: Target, patience: Patience = PATIENCE) -> Sender:
    """Raises ConfigError where a variable of the address is not set."""
    # Prefect takes two seconds to import, and most have no block; with nothing to send, neither is
    # needed.
    if target.setting.url:
        from poisonwatch.integrations.apprise.send import UrlSender

        return UrlSender(target.setting.url, patience)
    from poisonwatch.integrations.prefect.blocks import BlockSender

    return BlockSender(str(target.setting.block))


def send_message(target: Target, message: Message, patience: Patience = PATIENCE) -> None:
    """Send one message, and tell that it is decided on where the target takes that. Raises
    ConfigError or OperationError, which never hold the address.
    """
    sender = make_sender(target, patience)
    refusal = sender.send(message)
    if refusal is None and sender.resolves:
        refusal = sender.resolve(message.key)
    if refusal is not None:
        raise OperationError(refusal.words)


def deliver_pending(
    ledger: Ledger,
    config: AuditConfig,
    *,
    at_once: bool = False,
    at: datetime | None = None,
    patience: Patience = PATIENCE,
) -> int:
    """Send what the audit's targets have not received yet: how many alerts arrived.

    Each message ends with the head of the chain of records: a ledger that is cut off later does not
    hold it. With `at_once`, targets that failed are tried before it is their time. `at` is what
    time it is (None: now). Whoever calls it holds the lock on the audit's name. Raises
    OperationError where a target did not take a message; the others have theirs.
    """
    targets = list_targets(config)
    ids = [target.id for target in targets]
    pending, outages, head = _begin(ledger, config.name, ids, at)
    arrived, problems = 0, []
    for target in targets:
        run = _Run(ledger, config, target, patience, head, at_once, fixed_time=at)
        run.deliver([alert for alert in pending if alert.target == target.id], outages)
        arrived += run.arrived
        if run.problem is not None:
            problems.append(f"{target} {run.problem}")
    left = _count_left(ledger, config.name, at)
    if problems:
        owed = "nothing is left to be sent, but not all was taken"
        if left:
            owed = f"{plural(left, 'alert')} not delivered; the next audit sends them"
        raise OperationError(f"{owed}: {'; '.join(problems)}")
    return arrived


@retried
def _begin(
    ledger: Ledger, name: str, ids: list[str], at: datetime | None
) -> tuple[list[PendingAlert], dict[str, Outage], str]:
    """What the targets have not received yet, which of them were out of reach, and what each
    message ends with.
    """
    with ledger.write() as connection:
        outbox.retarget(connection, name, ids)
        forget_outages(connection, name, ids)
        pending = _list_unmuted(connection, name, at)
        outages = list_outages(connection, name)
        return pending, outages, _describe_head(read_head(connection))


@retried
def _count_left(ledger: Ledger, name: str, at: datetime | None) -> int:
    with ledger.read() as connection:
        return len(_list_unmuted(connection, name, at))


@retried
def _list_resolves(ledger: Ledger, name: str) -> list[PendingResolve]:
    with ledger.read() as connection:
        return list_pending_resolves(connection, name)


@retried
def _mark_resolved(ledger: Ledger, resolve: PendingResolve, at: str) -> None:
    with ledger.write() as connection:
        mark_resolved(connection, [resolve], at)


@retried
def _list_reopenings(ledger: Ledger, name: str, at: datetime | None) -> list[Reopening]:
    """What is about muted rows alone waits until they are muted no more."""
    with ledger.read() as connection:
        found = list_reopenings(connection, name)
        numbers = {alert for reopening in found for alert, _ in reopening.alerts}
        mutes = list_active_mutes(connection, name, at)
        held = list_held_alerts(connection, name, mutes, among=numbers)
    unmuted = []
    for reopening in found:
        if not held.issuperset(alert for alert, _ in reopening.alerts):
            unmuted.append(reopening)
    return unmuted


@retried
def _mark_reopened(ledger: Ledger, reopening: Reopening) -> None:
    with ledger.write() as connection:
        mark_reopened(connection, reopening)


def _list_unmuted(connection: Connection, name: str, at: datetime | None) -> list[PendingAlert]:
    """What is to be sent. What is about muted rows alone waits until they are muted no more."""
    held = list_held_alerts(connection, name, list_active_mutes(connection, name, at))
    pending = outbox.list_pending_alerts(connection, name)
    return [alert for alert in pending if alert.number not in held]


def _describe_head(head: ChainHead) -> str:
    """What every alert ends with once it is sent."""
    # Half of the digits say as much, in a message that people read.
    digits = head.hash[:MIN_HEAD_DIGITS]
    return f"Chain of records {head.number}:{digits} (poisonwatch verify AUDIT.yaml --head)"


@dataclass(slots=True)
class _Run:
    """Deliveries to one target."""

    ledger: Ledger
    config: AuditConfig
    target: Target
    patience: Patience
    head: str
    at_once: bool
    fixed_time: datetime | None
    arrived: int = 0
    problem: str | None = None
    failures: int = field(default=0, init=False)
    begun: float = field(default_factory=time.monotonic, init=False)

    @property
    def moment(self) -> datetime:
        return self.fixed_time or datetime.now(UTC)

    def deliver(self, pending: Sequence[PendingAlert], outages: Mapping[str, Outage]) -> None:
        outage = outages.get(self.target.id)
        resolves, reopenings = self._list_resolves(), self._list_reopenings()
        if outage is not None and self._waits(outage):
            if pending or resolves or reopenings:
                self.problem = f"{outage.reason} (tried again after {outage.next_try_at})"
            return
        parcels = plan_parcels(pending, self.config, self.moment, self.patience, self.at_once)
        if not parcels and not resolves and not reopenings:
            self._tell_refused(pending)
            return
        try:
            sender = make_sender(self.target, self.patience)
        except PoisonwatchError as error:
            self._end(Refusal(Cause.DENIED, str(error)), outage)
            return
        last = self._send_all(sender, parcels)
        if last is None or last.cause == Cause.REFUSED:
            last = self._reopen_all(sender, reopenings) or last
        # Incidents that were opened in this run may be over already.
        if last is None or last.cause == Cause.REFUSED:
            last = self._resolve_all(sender, self._list_resolves()) or last
        self._end(last, outage)
        self._tell_refused(pending)

    def _waits(self, outage: Outage) -> bool:
        left = datetime.fromisoformat(outage.next_try_at) - self.moment
        # More than anybody waits: the clock has jumped back.
        jumped = left > self.patience.longest_request + timedelta(minutes=1)
        return left > timedelta(0) and not self.at_once and not jumped

    def _list_resolves(self) -> list[PendingResolve]:
        found = _list_resolves(self.ledger, self.config.name)
        return [resolve for resolve in found if resolve.target == self.target.id]

    def _list_reopenings(self) -> list[Reopening]:
        found = _list_reopenings(self.ledger, self.config.name, self.fixed_time)
        return [reopening for reopening in found if reopening.target == self.target.id]

    def _send_all(self, sender: Sender, parcels: Sequence[Parcel]) -> Refusal | None:
        """Send until the target says that it takes no more: what it said of the last one."""
        refusal = None
        for count, parcel in enumerate(parcels):
            if self._is_late() or count >= self.patience.most_messages:
                self._tell(f"is told {plural(len(parcels) - count, 'more message')} next time")
                break
            message = replace(parcel.message, body=f"{parcel.message.body}\n{self.head}")
            refusal = self._try(partial(sender.send, message))
            self._record(parcel, refusal)
            if refusal is None or refusal.cause == Cause.REFUSED:
                self.failures = 0
                continue
            self.failures += 1
            asked_to_wait = refusal.retry_after is not None
            if refusal.cause == Cause.UNREACHABLE or asked_to_wait or self._has_enough():
                break
        return refusal

    def _is_late(self) -> bool:
        return time.monotonic() - self.begun > self.patience.most_seconds

    def _write_time(self) -> str:
        return self.moment.isoformat(timespec="seconds")

    def _has_enough(self) -> bool:
        return self.failures >= self.patience.most_failures

    def _try(self, send: Callable[[], Refusal | None]) -> Refusal | None:
        """Send, and once more where the target asks for a pause that is bearable."""
        refusal = send()
        pause = None if refusal is None else refusal.retry_after
        if pause is None or pause > self.patience.longest_pause:
            return refusal
        time.sleep(pause)
        return send()

    def _record(self, parcel: Parcel, refusal: Refusal | None) -> None:
        # At once, in a transaction of its own: a crash repeats one message at most.
        self.ledger.retry(partial(self._mark, parcel, refusal, self._write_time()))
        if refusal is not None and refusal.cause == Cause.REFUSED:
            for alert in filter(self._is_hopeless, parcel.alerts):
                self._tell(
                    f"{refusal.words} to alert {alert.key} for "
                    f"{self.patience.give_up_after.days} days, which is given up: read it in "
                    f"the report of audit {alert.audit_id}"
                )
        if refusal is None:
            self.arrived += len(parcel.alerts)
        elif self.problem is None:
            self.problem = refusal.words

    def _mark(self, parcel: Parcel, refusal: Refusal | None, at: str) -> None:
        with self.ledger.write() as connection:
            for alert in parcel.alerts:
                if refusal is None:
                    merged = parcel.message.key != alert.key
                    sent_as = parcel.message.key if merged else None
                    outbox.mark_sent(connection, alert.delivery, at, sent_as)
                    continue
                refused = refusal.cause == Cause.REFUSED
                outbox.mark_failed(
                    connection,
                    alert.delivery,
                    at,
                    refusal.words,
                    refused=refused,
                    give_up=refused and self._is_hopeless(alert),
                )

    def _is_hopeless(self, alert: PendingAlert) -> bool:
        if alert.refused_at is None or alert.attempts + 1 < self.patience.least_tries:
            return False
        since = datetime.fromisoformat(alert.refused_at)
        return self.moment - since >= self.patience.give_up_after

    def _tell(self, problem: str) -> None:
        self.problem = problem if self.problem is None else f"{self.problem}; {problem}"

    def _tell_refused(self, pending: Sequence[PendingAlert]) -> None:
        """What was refused before and is not due yet is owed all the same."""
        if self.problem is None and any(alert.refused_at for alert in pending):
            count = sum(alert.refused_at is not None for alert in pending)
            self.problem = f"refused {plural(count, 'alert')} before, to be tried again"

    def _reopen_all(self, sender: Sender, reopenings: Sequence[Reopening]) -> Refusal | None:
        """Tell that incidents are open again, until the target says that it takes no more."""
        for reopening in reopenings[: self.patience.most_messages]:
            refusal = None
            if sender.resolves:
                if self._is_late():
                    break
                message = compose_reopening(reopening, self.config, self.head)
                refusal = self._try(partial(sender.send, message))
            if refusal is not None and refusal.cause != Cause.REFUSED:
                self._tell(f"{refusal.words} to an incident that is open again, sent again")
                return refusal
            if refusal is not None:
                self._tell(f"{refusal.words} to alert {reopening.key}, which is open again")
            _mark_reopened(self.ledger, reopening)
        return None

    def _resolve_all(self, sender: Sender, resolves: Sequence[PendingResolve]) -> Refusal | None:
        """Tell that incidents are over, until the target says that it takes no more."""
        for resolve in resolves[: self.patience.most_messages]:
            refusal = None
            if sender.resolves:
                if self._is_late():
                    break
                refusal = self._try(partial(sender.resolve, resolve.key))
            if refusal is not None and refusal.cause != Cause.REFUSED:
                self._tell(f"{refusal.words} to a resolve, which is sent again")
                return refusal
            if refusal is not None:
                self._tell(f"{refusal.words} to the resolve of alert {resolve.key}: close it there")
            _mark_resolved(self.ledger, resolve, self._write_time())
        return None

    def _end(self, last: Refusal | None, outage: Outage | None) -> None:
        """Note that the target is out of reach, or that it is not any more."""
        self.ledger.retry(partial(self._note_end, last, outage))

    def _note_end(self, last: Refusal | None, outage: Outage | None) -> None:
        with self.ledger.write() as connection:
            if last is None or last.cause == Cause.REFUSED:
                if outage is not None:
                    clear_outage(connection, self.config.name, self.target.id)
                return
            self.problem = self.problem or last.words
            failures = 1 if outage is None or self.arrived else outage.failures + 1
            wait = self.patience.compute_wait(failures)
            if last.retry_after is not None:
                asked = self.patience.longest_request
                if last.retry_after < asked.total_seconds():
                    asked = timedelta(seconds=last.retry_after)
                wait = max(wait, asked)
            now = self._write_time()
            noted = Outage(
                target=self.target.id,
                since=now if outage is None or self.arrived else outage.since,
                failures=failures,
                next_try_at=(self.moment + wait).isoformat(timespec="seconds"),
                reason=last.words,
            )
            note_outage(connection, self.config.name, noted)
