"""One message of plain text to the address of an Apprise URL."""

import apprise
from apprise.common import OverflowMode

from poisonwatch.text.environment import open_variables

# What Apprise calls severities: it chooses a chat's colours and PagerDuty's severity by them.
APPRISE_TYPES = {"low": "info", "medium": "warning", "high": "failure"}

# Apprise's own pictures would be fetched from its site by whoever opens the message.
APPRISE_ASSET = apprise.AppriseAsset(
    app_id="Poisonwatch", app_desc="Poisonwatch", image_url_mask="", image_url_logo=""
)


def send_to_url(url: str, title: str, body: str, kind: str) -> str | None:
    """Send by Apprise as a message of the type `kind`; None, or why the message was not taken.

    Raises ConfigError where the URL names a variable that is not set.
    """
    server = apprise.Apprise.instantiate(open_variables(url, "alerts"), asset=APPRISE_ASSET)
    if server is None:
        return "is no Apprise URL"
    # A message that is too long for a medium is refused by it: unless the user says otherwise, it
    # goes in parts.
    if "overflow=" not in url:
        server.overflow_mode = OverflowMode.SPLIT
    sender = apprise.Apprise()
    sender.add(server)
    accepted = sender.notify(
        title=title,
        body=body,
        body_format=apprise.NotifyFormat.TEXT,
        notify_type=apprise.NotifyType(kind),
    )
    if not accepted:
        return "did not take the message"
    return None
