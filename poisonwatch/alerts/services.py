"""What the services that alerts go to take of one message, each with the place that says so.

A service that is not listed takes what Apprise's plugin for it allows.
"""

from dataclasses import dataclass
from typing import Literal

Unit = Literal["characters", "bytes", "bytes of JSON"]


@dataclass(frozen=True, slots=True)
class Service:
    """A service by the `schemes` of its Apprise URLs and the types of its Prefect blocks.

    It takes `most` of a `unit`, title included. A `brief` one rings a telephone, or has room for a
    line: it gets the short form. One with `incidents` is told when an alert is decided on, and gets
    one message an alert, whatever is left out of it.
    """

    name: str
    schemes: tuple[str, ...]
    most: int
    source: str
    unit: Unit = "characters"
    brief: bool = False
    incidents: bool = False


SERVICES = (
    Service(
        "PagerDuty",
        ("pagerduty", "pager-duty-webhook"),
        1_024,  # of payload.summary; the whole event may have 512 KB
        "https://developer.pagerduty.com/docs/events-api-v2/trigger-events/",
        brief=True,
        incidents=True,
    ),
    Service(
        "Opsgenie",
        ("opsgenie", "opsgenie-webhook"),
        15_000,  # of the description; the message has 130, and Apprise cuts the title to them
        "https://docs.opsgenie.com/docs/alerts-and-alert-fields",
        incidents=True,
    ),
    Service(
        "Jira Service Management",
        ("jira",),
        15_000,
        "https://developer.atlassian.com/cloud/jira/service-desk-ops/rest/v2/api-group-alerts/",
        incidents=True,
    ),
    Service(
        "Pushover",
        ("pover",),
        1_024,
        "https://pushover.net/api#limits",
        brief=True,
    ),
    Service(
        "Twilio",
        ("twilio", "twilio-sms"),
        160,  # one SMS; what is longer is billed as several
        "https://www.twilio.com/docs/glossary/what-sms-character-limit",
        brief=True,
    ),
    Service(
        "Slack",
        ("slack", "slack-webhook"),
        35_000,  # cut by Slack at 40,000, which & < > count for more towards
        "https://docs.slack.dev/changelog/2018-truncating-really-long-messages",
    ),
    Service(
        "Slack, blocks=yes",
        ("slack blocks",),
        3_000,  # of a section's text; a message may have 50 blocks
        "https://docs.slack.dev/reference/block-kit/blocks/section-block",
    ),
    Service(
        "Microsoft Teams",
        ("workflow", "workflows", "ms-teams-webhook"),
        20_000,  # the whole card may have 28 KB, of which users count 21 before it is refused
        "https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/"
        "add-incoming-webhook",
        unit="bytes of JSON",
    ),
    Service(
        "Discord",
        ("discord", "discord-webhook"),
        2_000,
        "https://docs.discord.com/developers/resources/webhook",
    ),
    Service("Telegram", ("tgram",), 4_096, "https://core.telegram.org/bots/api#sendmessage"),
    Service(
        "ntfy",
        ("ntfy", "ntfys"),
        4_096,  # what is longer becomes an attachment
        "https://docs.ntfy.sh/publish/#limitations",
        unit="bytes",
    ),
    Service(
        "e-mail",
        ("mailto", "mailtos"),
        10_000,  # every server takes 64 KB; the text stands in it twice, encoded in up to three
        "https://datatracker.ietf.org/doc/html/rfc5321#section-4.5.3.1.7",
        unit="bytes",
    ),
)
BY_SCHEME = {scheme: service for service in SERVICES for scheme in service.schemes}
BRIEF_BELOW = 1_300  # characters of a message, as Apprise has it, that make a service a brief one


def find_service(scheme: str, most: int | None = None) -> Service:
    """The service of an Apprise URL's scheme or a Prefect block's type; where none is listed, one
    that takes `most` characters (None: nobody knows).
    """
    if scheme in BY_SCHEME:
        return BY_SCHEME[scheme]
    unlisted = most or 32_768
    brief = unlisted < BRIEF_BELOW
    return Service(scheme, (scheme,), unlisted, "Apprise's plugin for it", brief=brief)
