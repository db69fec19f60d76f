"""Incidents of services that page people: opened under an alert's key, and closed by it.

Apprise's plugins know neither a key for each message nor, but for what they opened themselves, how
to close one. Both need one request to an address that the plugin has, with what it was given.
"""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import requests
from apprise.plugins.jira import JIRA_API_LOOKUP, NotifyJira
from apprise.plugins.opsgenie import OPSGENIE_API_LOOKUP, NotifyOpsgenie
from apprise.plugins.pagerduty import (
    PAGERDUTY_API_LOOKUP,
    PAGERDUTY_SEVERITY_MAP,
    NotifyPagerDuty,
)

from poisonwatch.alerts.fitting import Message

LONGEST_DETAILS = 100_000  # characters of a message; PagerDuty takes 512 KB a whole event
OVER = "Every row of this alert is decided on."


def trigger_pagerduty(server: Any, message: Message, summary: str, kind: Any) -> bool:
    """Open an incident under the message's key, with the whole message as its details. A key that
    is open already stays one incident.
    """
    payload = {
        "summary": summary,
        "severity": server.severity or PAGERDUTY_SEVERITY_MAP[kind],
        "source": _name(server.source, NotifyPagerDuty.template_tokens["source"]["default"]),
        "component": _name(
            server.component, NotifyPagerDuty.template_tokens["component"]["default"]
        ),
        "custom_details": {**server.details, "message": message.body[:LONGEST_DETAILS]},
    }
    for field, value in (("group", server.group), ("class", server.class_id)):
        if value:
            payload[field] = value
    event: dict[str, Any] = {
        "routing_key": server.integration_key,
        "event_action": "trigger",
        "dedup_key": message.key,
        "client": "Poisonwatch",
        "payload": payload,
    }
    link = server.click or message.link
    if link:
        event["links"] = [{"href": link, "text": "Poisonwatch"}]
    return _post_pagerduty(server, event)


def _name(given: str, default: str) -> str:
    """What an address says, unless it says nothing and Apprise does."""
    if given == default:
        return "Poisonwatch"
    return given


def resolve(server: Any, key: str) -> bool:
    """Close the incident that was opened under this key, where the service has any; whether that
    was taken.
    """
    if isinstance(server, NotifyPagerDuty):
        event = {
            "routing_key": server.integration_key,
            "event_action": "resolve",
            "dedup_key": key,
        }
        return _post_pagerduty(server, event)
    if isinstance(server, NotifyOpsgenie | NotifyJira):
        lookup = OPSGENIE_API_LOOKUP if isinstance(server, NotifyOpsgenie) else JIRA_API_LOOKUP
        url = f"{lookup[server.region_name]}/{quote(key, safe='')}/close"
        headers = {"Authorization": f"GenieKey {server.apikey}"}
        closing = {"source": "Poisonwatch", "note": OVER}
        by_alias = {"identifierType": "alias"}
        return _post(server, url, closing, headers=headers, params=by_alias)
    return True


def _post_pagerduty(server: Any, event: Mapping[str, Any]) -> bool:
    headers = {"Authorization": f"Token token={server.apikey}"}
    return _post(server, PAGERDUTY_API_LOOKUP[server.region_name], event, headers=headers)


def _post(
    server: Any,
    url: str,
    body: Mapping[str, Any],
    *,
    headers: Mapping[str, str],
    params: Mapping[str, str] | None = None,
) -> bool:
    """POST with all that the target's address says of requests; whether it was taken."""
    server.throttle()
    try:
        answer = requests.post(
            url,
            data=json.dumps(body),
            params=params,
            headers={"User-Agent": "Poisonwatch", "Content-Type": "application/json", **headers},
            verify=server.verify_certificate,
            timeout=server.request_timeout,
            allow_redirects=server.redirects,
        )
    except requests.RequestException:
        # Whoever watches answers has it.
        return False
    return answer.ok
