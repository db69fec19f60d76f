"""Incidents are opened under an alert's key and closed by it, as the services describe it."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from apprise.plugins.jira import JIRA_API_LOOKUP, NotifyJira
from apprise.plugins.opsgenie import OPSGENIE_API_LOOKUP, NotifyOpsgenie
from apprise.plugins.pagerduty import PAGERDUTY_API_LOOKUP, NotifyPagerDuty
from clusters import audit, settings
from muting import muted
from notified import delivered, three_rows
from servers import HttpReceiver

from poisonwatch.alerts.backlog import Patience
from poisonwatch.alerts.trial import make_trial_message
from poisonwatch.errors import OperationError
from poisonwatch.integrations.apprise.send import UrlSender
from poisonwatch.ledger.decisions import record_decisions
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.mutes import end_mutes
from poisonwatch.ledger.outbox import list_notified_ids

KEY = "k" * 32
TRIAL = make_trial_message(settings("json://x", dashboard="https://audits.example.org"))
TEXT = {"type": "string"}
# The request body of POST /v2/enqueue, after
# https://github.com/PagerDuty/api-schema/blob/main/reference/events-v2/openapiv3.json, with the
# limits of https://developer.pagerduty.com/docs/events-api-v2/trigger-events/.
EVENT: dict[str, Any] = {
    "type": "object",
    "required": ["routing_key", "event_action"],
    "additionalProperties": False,
    "properties": {
        "routing_key": {**TEXT, "minLength": 32, "maxLength": 32},
        "event_action": {"enum": ["trigger", "acknowledge", "resolve"]},
        "dedup_key": {**TEXT, "maxLength": 255},
        "client": TEXT,
        "client_url": TEXT,
        "images": {"type": "array"},
        "links": {
            "type": "array",
            "items": {"required": ["href"], "properties": {"href": TEXT, "text": TEXT}},
        },
        "payload": {
            "type": "object",
            "required": ["summary", "severity", "source"],
            "additionalProperties": False,
            "properties": {
                "summary": {**TEXT, "minLength": 1, "maxLength": 1024},
                "severity": {"enum": ["critical", "warning", "error", "info"]},
                "source": {**TEXT, "minLength": 1},
                "timestamp": TEXT,
                "component": TEXT,
                "group": TEXT,
                "class": TEXT,
                "custom_details": {"type": "object"},
            },
        },
    },
    "if": {"properties": {"event_action": {"const": "trigger"}}},
    "then": {"required": ["payload"]},
    "else": {"required": ["dedup_key"]},
}


@pytest.fixture(autouse=True)
def pointed_here(receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The services' addresses are the receiver's."""
    at = f"http://{receiver.address}"
    monkeypatch.setitem(PAGERDUTY_API_LOOKUP, "us", f"{at}/v2/enqueue")
    monkeypatch.setitem(OPSGENIE_API_LOOKUP, "us", f"{at}/v2/alerts")
    monkeypatch.setitem(JIRA_API_LOOKUP, "us", f"{at}/jsm/alerts")
    for plugin in (NotifyPagerDuty, NotifyOpsgenie, NotifyJira):
        monkeypatch.setattr(plugin, "request_rate_per_sec", 0)


def test_pagerduty_gets_events_as_it_publishes_them(receiver: HttpReceiver) -> None:
    """A summary of one line with the key, the whole message in the details, a link; and a resolve
    under the same key.
    """
    sender = UrlSender(f"pagerduty://{KEY}@token/shop/rows?group=ops&class=data", Patience())
    assert sender.send(TRIAL) is None
    assert sender.resolve(TRIAL.key) is None
    opened, closed = receiver.received
    for event in (opened, closed):
        jsonschema.validate(event, EVENT)
        assert len(json.dumps(event)) < 512_000
    payload = opened["payload"]
    assert payload["summary"].startswith(f"{TRIAL.title} Alert {TRIAL.key} https://audits.")
    assert payload["custom_details"] == {"message": TRIAL.body}
    named = (payload["source"], payload["component"], payload["group"], payload["class"])
    assert named == ("shop", "rows", "ops", "data")
    assert opened["links"][0]["href"] == TRIAL.link
    assert closed == {"routing_key": KEY, "event_action": "resolve", "dedup_key": TRIAL.key}


@pytest.mark.parametrize(("scheme", "path"), [("opsgenie", "/v2/alerts"), ("jira", "/jsm/alerts")])
def test_opsgenie_and_jira_get_an_alias_and_close_by_it(
    scheme: str, path: str, receiver: HttpReceiver
) -> None:
    """Of low severities, too, of which Apprise would make a note to nothing. A message has 130
    characters, a description 15,000.
    """
    sender = UrlSender(f"{scheme}://{KEY}", Patience())
    receiver.answer_body = b'{"requestId": "1"}'
    assert sender.send(TRIAL) is None
    assert sender.resolve(TRIAL.key) is None
    opened, closed = receiver.received
    assert (opened["alias"], opened["message"]) == (TRIAL.key, TRIAL.title)
    assert opened["description"].startswith(TRIAL.body[:1000])
    assert len(opened["message"]) <= 130
    assert len(opened["description"]) <= 15_000
    assert set(closed) == {"source", "note"}
    assert receiver.paths == [path, f"{path}/{TRIAL.key}/close?identifierType=alias"]


def test_what_has_no_incidents_is_told_nothing(receiver: HttpReceiver) -> None:
    """Nor does it fail."""
    sender = UrlSender(f"json://{receiver.address}", Patience())
    assert not sender.resolves
    assert sender.resolve(TRIAL.key) is None
    assert receiver.received == []


def test_a_pager_is_told_when_a_group_is_decided_on(
    ledger: Ledger, receiver: HttpReceiver, tmp_path: Path
) -> None:
    """The incident is opened under the alert's key, and resolved under it with the next delivery;
    a resolve that fails is owed, and told.
    """
    config = settings(f"pagerduty://{KEY}@token")
    audit(ledger, tmp_path / "one", config, three_rows)
    assert delivered(ledger, config) == 1
    with ledger.read() as connection:
        ids = list_notified_ids(connection, config.name)
    record_decisions(ledger, sorted(ids), "poison")
    receiver.answer = 500
    with pytest.raises(OperationError, match=r"answered 500 to a resolve, which is sent again$"):
        delivered(ledger, config)
    receiver.answer = 200
    for _ in range(2):
        assert delivered(ledger, config) == 0
    opened, closed = receiver.received
    assert (opened["event_action"], closed["event_action"]) == ("trigger", "resolve")
    assert opened["dedup_key"] == closed["dedup_key"]


def test_a_decision_that_is_taken_back_opens_its_incident_again(
    ledger: Ledger, receiver: HttpReceiver, tmp_path: Path
) -> None:
    """Under the same key, once, unless its rows are muted; what fails is sent later. It is over again
    with the next decision.
    """
    config = settings(f"pagerduty://{KEY}@token")
    audit(ledger, tmp_path / "one", config, three_rows)
    delivered(ledger, config)
    with ledger.read() as connection:
        ids = sorted(list_notified_ids(connection, config.name))
    record_decisions(ledger, ids, "benign")
    delivered(ledger, config)
    record_decisions(ledger, ids[:2], "unsure")
    mute = muted(ledger, "one/1")
    assert delivered(ledger, config) == 0
    end_mutes(ledger, config.name, str(mute.number), "", author="ann")
    receiver.answer = 500
    with pytest.raises(OperationError, match="answered 500 to an incident that is open again"):
        delivered(ledger, config)
    receiver.answer = 200
    for _ in range(2):
        assert delivered(ledger, config) == 0
    record_decisions(ledger, ids[:2], "poison")
    delivered(ledger, config)
    events = receiver.received
    actions = [event["event_action"] for event in events]
    assert actions == ["trigger", "resolve", "trigger", "resolve"]
    assert len({event["dedup_key"] for event in events}) == 1
    jsonschema.validate(events[2], EVENT)
    assert events[2]["payload"]["summary"].startswith("Open again: Poisonwatch: 3 rows push")
    assert "To be decided on: 2 rows" in events[2]["payload"]["custom_details"]["message"]


def test_a_resolve_that_is_refused_is_told_once(
    ledger: Ledger, receiver: HttpReceiver, tmp_path: Path
) -> None:
    """By the alert's key, for somebody to close it."""
    config = settings(f"pagerduty://{KEY}@token")
    audit(ledger, tmp_path / "one", config, three_rows)
    assert delivered(ledger, config) == 1
    with ledger.read() as connection:
        ids = list_notified_ids(connection, config.name)
    record_decisions(ledger, sorted(ids), "benign")
    receiver.answer = 400
    key = receiver.received[0]["dedup_key"]
    with pytest.raises(OperationError, match=f"answered 400 to the resolve of alert {key}: close"):
        delivered(ledger, config)
    assert delivered(ledger, config) == 0
