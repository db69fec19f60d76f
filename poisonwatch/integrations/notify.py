"""Notify people: send what the outbox holds to the audit's targets, by Apprise or by Prefect."""

import re
from collections.abc import Sequence

from poisonwatch.alerts.targets import Target, list_targets
from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError, PoisonwatchError
from poisonwatch.integrations.apprise.send import APPRISE_TYPES, send_to_url
from poisonwatch.integrations.log_capture import capture_logs
from poisonwatch.integrations.prefect.blocks import send_to_block
from poisonwatch.ledger import outbox
from poisonwatch.ledger.ledger import Ledger, now
from poisonwatch.ledger.records import MIN_HEAD_DIGITS, ChainHead, read_head
from poisonwatch.text.words import plural


class UnreachableTargetError(OperationError):
    """Nothing answers at a target's address."""


def deliver_pending(ledger: Ledger, config: AuditConfig) -> int:
    """Send what the audit's targets have not received yet, oldest first: how many messages arrived.

    Each ends with the head of the chain of records: a ledger that is cut off later does not hold
    it. Whoever calls it holds `ledger.lock()`. Raises OperationError where a target did not take a
    message; the others have theirs.
    """
    targets = {target.id: target for target in list_targets(config)}
    with ledger.write() as connection:
        outbox.retarget(connection, config.name, list(targets))
        messages = outbox.list_pending_alerts(connection, config.name)
        head = _describe_head(read_head(connection))
    arrived = 0
    reasons: dict[str, str] = {}
    unreachable: set[str] = set()
    for message in messages:
        # One time-out a target is enough. A target that answers is given every message: it may
        # refuse one and take the next.
        if message.target in unreachable:
            continue
        target = targets[message.target]
        delivered_at = None
        try:
            kind = APPRISE_TYPES[message.severity]
            send_message(target, message.title, f"{message.body}\n{head}", kind=kind)
            delivered_at = now()
            arrived += 1
        except PoisonwatchError as error:
            reasons[message.target] = f"{target} {error}"
            if isinstance(error, UnreachableTargetError):
                unreachable.add(message.target)
        # At once, in a transaction of its own: a crash repeats one message at most.
        with ledger.write() as connection:
            outbox.mark_delivered(connection, message.delivery, delivered_at)
    if reasons:
        left = plural(len(messages) - arrived, "alert")
        raise OperationError(
            f"{left} not delivered; the next audit sends them: {'; '.join(reasons.values())}"
        )
    return arrived


def _describe_head(head: ChainHead) -> str:
    """What every alert ends with once it is sent."""
    # Half of the digits say as much, in a message that people read.
    digits = head.hash[:MIN_HEAD_DIGITS]
    return f"Chain of records {head.number}:{digits} (poisonwatch verify AUDIT.yaml --head)"


def send_message(target: Target, title: str, body: str, kind: str = "info") -> None:
    """Send one message of plain text, of Apprise's type `kind`. Raises ConfigError or
    OperationError, which never hold the address.
    """
    with capture_logs() as logged:
        if target.setting.url:
            refusal = send_to_url(target.setting.url, title, body, kind)
        else:
            refusal = send_to_block(str(target.setting.block), title, body)
    if refusal is not None:
        raise _make_delivery_error(refusal, logged)


def _make_delivery_error(refusal: str, logged: Sequence[str]) -> OperationError:
    """Why a message was not taken, as well as it can be told."""
    # Apprise returns True or False alone: whether anybody answered, and what, stands in its log.
    if any("onnection error" in line for line in logged):
        return UnreachableTargetError("cannot be reached")
    answers = re.findall(r"error=(\d{3})\b", "\n".join(logged))
    if answers:
        return OperationError(f"answered {answers[-1]}")
    return OperationError(refusal)
