"""Send the notices that audits do not come, or are back.

What sends is loaded once there is something to send: whoever looks each minute mostly has nothing.
"""

from collections.abc import Sequence
from datetime import datetime

from poisonwatch.alerts.fitting import Message
from poisonwatch.alerts.silences import look_after
from poisonwatch.alerts.targets import Target, list_targets
from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError, PoisonwatchError
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.notices import ClaimedNotice, claim_notice, settle_notice
from poisonwatch.ledger.outbox import Delivery
from poisonwatch.ledger.transactions import retried
from poisonwatch.liveness.liveness import Liveness
from poisonwatch.text.words import plural

LEDGER_WAIT_S = 10  # for another process that writes to a ledger in SQLite


def tell_silences(config: AuditConfig, now: datetime) -> list[Liveness]:
    """See whether audits come, and tell the targets of the audit file of those that do not: what
    was seen, this name first. Raises InputError where there is no ledger, OperationError where it
    cannot be used, or a target did not take a notice.
    """
    with Ledger.existing(config.state, LEDGER_WAIT_S) as ledger:
        seen = look_after(ledger, config, now)
        deliver_notices(ledger, config, now)
    return seen


def deliver_notices(ledger: Ledger, config: AuditConfig, now: datetime) -> int:
    """Send what the audit's targets are to be told now of audits that do not come: how many
    notices arrived.

    Nobody needs to hold `ledger.lock()`. Raises OperationError where a target did not take one; it
    waits in the outbox, and the others have theirs.
    """
    targets = {target.id: target for target in list_targets(config)}
    arrived, failed = 0, 0
    reasons: dict[str, str] = {}
    while True:
        notice = _claim(ledger, list(targets), now)
        if notice is None:
            break
        target = targets[notice.delivery.target]
        reason = _send(target, notice)
        # At once, in a transaction of its own: a crash repeats one message at most.
        _settle(ledger, notice.delivery, now, reason)
        if reason is None:
            arrived += 1
        else:
            failed += 1
            reasons[target.id] = f"{target} {reason}"
    if reasons:
        raise OperationError(
            f"{plural(failed, 'notice')} not delivered; sent later: {'; '.join(reasons.values())}"
        )
    return arrived


@retried
def _claim(ledger: Ledger, targets: Sequence[str], now: datetime) -> ClaimedNotice | None:
    with ledger.write() as connection:
        return claim_notice(connection, targets, now)


@retried
def _settle(ledger: Ledger, delivery: Delivery, now: datetime, reason: str | None) -> None:
    with ledger.write() as connection:
        settle_notice(connection, delivery, now, reason)


def _send(target: Target, notice: ClaimedNotice) -> str | None:
    """None, or why the target did not take it, without its address. Where a silence was an
    incident of a paging service, its end closes that, and opens none.
    """
    from poisonwatch.integrations.notify import make_sender

    try:
        sender = make_sender(target)
    except PoisonwatchError as error:
        return str(error)
    if notice.silence is not None and sender.resolves:
        refusal = sender.resolve(notice.silence)
    else:
        message = Message(notice.key, notice.severity, notice.title, body=notice.body)
        refusal = sender.send(message)
    return None if refusal is None else refusal.words
