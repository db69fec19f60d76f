"""Audits whose targets are to be notified, and what reaches them."""

from typing import Any

from clusters import HIGH, found, settings
from ledgers import NAME
from servers import HttpReceiver

from poisonwatch.alerts.fitting import Message as AlertMessage
from poisonwatch.config import AlertConfig, AuditConfig
from poisonwatch.detection.result import AttributionResult
from poisonwatch.examples import Example, Message
from poisonwatch.integrations.notify import deliver_pending
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import list_pending_alerts

HOSTILE = "@everyone <!channel> [x](http://evil.com) <b>bold</b> `code` | t | {{ token }} <@U1> https://evil.com **b** &lt;"


SECRET = "hunter2secret"
SMALL = AlertMessage("0123456789abcdef", "low", "title", "body")


def to(*receivers: HttpReceiver, **more: Any) -> AuditConfig:
    return settings(*(f"json://{receiver.address}/" for receiver in receivers), **more)


def delivered(ledger: Ledger, config: AuditConfig, **more: Any) -> int:
    """Deliver as `poisonwatch sync` does: how many alerts arrived."""
    with ledger.lock("tiny"):
        return deliver_pending(ledger, config, **{"at_once": True, **more})


def owed(ledger: Ledger) -> int:
    with ledger.read() as connection:
        return len(list_pending_alerts(connection, NAME))


def three_rows(rows: list[Example]) -> AttributionResult:
    return found([(HIGH, rows[:3])])


def hostile_rows(rows: list[Example]) -> AttributionResult:
    """The ledger's first row, saying what is hostile."""
    messages = (Message("user", HOSTILE), Message("assistant", HOSTILE))
    return found(
        [(HIGH, [Example(rows[0].id, messages, rows[0].source, rows[0].position)])], said=HOSTILE
    )


def block(slug: str) -> AuditConfig:
    return settings(AlertConfig(block=slug))
