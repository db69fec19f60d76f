"""Messages reach people by a block of a real Prefect server."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from apprise.plugins.pagerduty import PAGERDUTY_API_LOOKUP
from clusters import HIGH, audit, found
from notified import SECRET, SMALL, block, delivered, hostile_rows
from prefect import flow
from prefect.blocks.notifications import (
    CustomWebhookNotificationBlock,
    NotificationBlock,
    PagerDutyWebHook,
)
from prefect.blocks.system import Secret
from prefect_servers import prefect_server
from servers import HttpReceiver

from poisonwatch.alerts.targets import list_targets
from poisonwatch.errors import OperationError
from poisonwatch.integrations.notify import send_message
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.tasks.deliveries import deliver


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    """A real Prefect server on its own database."""
    with prefect_server():
        yield


def test_a_prefect_block_tells_people_too(
    server: None, ledger: Ledger, receiver: HttpReceiver, tmp_path: Path
) -> None:
    """Outside of a flow and within one; row text does not reach into the block's own template and
    its secrets.
    """
    template = {"text": "{{subject}}: {{body}}", "token": "{{token}}"}
    hook = CustomWebhookNotificationBlock(
        name="ops", url=f"http://{receiver.address}/", json_data=template, secrets={"token": SECRET}
    )
    hook.save("ops", overwrite=True)
    config = block("custom-webhook/ops")
    audit(ledger, tmp_path / "one", config, hostile_rows)
    receiver.answer = 500
    with pytest.raises(
        OperationError,
        match=r"alerts\[1\] \(block\) Prefect's block custom-webhook/ops did not take the message",
    ):
        delivered(ledger, config)
    receiver.answer = 200
    assert delivered(ledger, config) == 1
    assert receiver.received[0]["text"].startswith("Poisonwatch: 1 row pushes panel shop in tiny")
    assert SECRET not in receiver.received[0]["text"]

    audit(ledger, tmp_path / "two", config, lambda rows: found([(HIGH, rows[2:4])]))

    @flow
    def telling() -> int:
        with ledger.lock("tiny"):
            return deliver(ledger, config)

    assert telling() == 1
    assert len(receiver.received) == 2


def test_a_block_that_pages_gets_one_line(
    server: None, receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PagerDuty refuses a summary of more than 1,024 characters."""
    monkeypatch.setitem(PAGERDUTY_API_LOOKUP, "us", f"http://{receiver.address}/v2/enqueue")
    pager = PagerDutyWebHook(integration_key="k" * 32, api_key="token")
    pager.save("ops", overwrite=True)
    long = replace(SMALL, body="a word and another " * 300)
    send_message(list_targets(block("pager-duty-webhook/ops"))[0], long)
    (event,) = receiver.received
    assert event["payload"]["summary"] == f"title Alert {SMALL.key}"


class Pigeon(NotificationBlock):
    """A block as Prefect's base class describes it: its `notify` is a coroutine."""

    address: str

    async def notify(self, body: str, subject: str | None = None) -> None:
        import httpx

        async with httpx.AsyncClient() as client:
            await client.post(self.address, json={"subject": subject, "body": body})


def test_a_block_of_anybody_s_own_is_told(server: None, receiver: HttpReceiver) -> None:
    """A coroutine is waited for."""
    Pigeon(address=f"http://{receiver.address}/").save("grey", overwrite=True)
    send_message(list_targets(block("pigeon/grey"))[0], SMALL)
    assert receiver.received == [{"subject": "title", "body": "body"}]


def test_a_block_that_cannot_be_used_is_named(server: None) -> None:
    """One that does not exist, one that is no address at all, one that sends nothing."""
    Secret(value=SECRET).save("quiet", overwrite=True)
    for slug, said in (
        (
            "slack-webhook/nobody",
            "Prefect has no block slack-webhook/nobody: create it, or correct the name",
        ),
        ("nobody", "Prefect has no block nobody"),
        ("secret/quiet", "Prefect's block secret/quiet sends no notifications"),
    ):
        with pytest.raises(OperationError, match=said):
            send_message(list_targets(block(slug))[0], SMALL)
