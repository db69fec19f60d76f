"""Messages of plain text to the address of an Apprise URL, as its service takes them."""

from typing import Any

import apprise
from apprise.common import OverflowMode
from apprise.plugins.email import NotifyEmail
from apprise.plugins.jira import NotifyJira
from apprise.plugins.opsgenie import NotifyOpsgenie
from apprise.plugins.pagerduty import NotifyPagerDuty

from poisonwatch.alerts.backlog import Patience
from poisonwatch.alerts.fitting import Message, fit
from poisonwatch.alerts.services import Service, find_service
from poisonwatch.integrations.apprise import incidents
from poisonwatch.integrations.apprise.answers import judge_mail, watch_answers
from poisonwatch.integrations.log_capture import capture_logs
from poisonwatch.integrations.refusals import Cause, Refusal
from poisonwatch.text.environment import open_variables

# What Apprise calls severities: it chooses a chat's colours and PagerDuty's severity by them.
APPRISE_TYPES = {"low": "info", "medium": "warning", "high": "failure"}

# Apprise's own pictures would be fetched from its site by whoever opens the message.
APPRISE_ASSET = apprise.AppriseAsset(
    app_id="Poisonwatch", app_desc="Poisonwatch", image_url_mask="", image_url_logo=""
)
INCIDENT_PLUGINS = (NotifyPagerDuty, NotifyOpsgenie, NotifyJira)


class UrlSender:
    """The address of an Apprise URL: one object for all of its messages, so that those keep the
    distance that the service asks for.

    Raises ConfigError where the URL names a variable that is not set.
    """

    def __init__(self, url: str, patience: Patience) -> None:
        opened = open_variables(url, "alerts")
        # What cannot be read may hold a token all the same: its log would show it.
        with capture_logs():
            self.server: Any = apprise.Apprise.instantiate(opened, asset=APPRISE_ASSET)
        # A user who says what becomes of long messages is taken at their word.
        self.fits = "overflow=" not in opened
        if self.server is not None:
            self._prepare(opened, patience)

    def _prepare(self, url: str, patience: Patience) -> None:
        if "rto=" not in url:
            self.server.socket_read_timeout = patience.read_seconds
        if "cto=" not in url:
            # A mail server has one time-out, for each thing that it is asked.
            is_mail = isinstance(self.server, NotifyEmail)
            waits = patience.read_seconds if is_mail else patience.connect_seconds
            self.server.socket_connect_timeout = waits
        self.service = self._find_service()
        if self.fits:
            # What was fitted is sent as it is.
            self.server.overflow_mode = OverflowMode.UPSTREAM
        # Apprise has a note added for low severities, to an incident that nobody opened.
        if isinstance(self.server, NotifyOpsgenie | NotifyJira) and self.server.action == "map":
            self.server.action = "new"

    def _find_service(self) -> Service:
        scheme = self.server.schema
        if scheme == "slack" and self.server.use_blocks:
            scheme = "slack blocks"
        return find_service(scheme, self.server.body_maxlen)

    @property
    def resolves(self) -> bool:
        """Whether the service is told when an alert is decided on."""
        return isinstance(self.server, INCIDENT_PLUGINS)

    def send(self, message: Message) -> Refusal | None:
        """Send a message, in as many parts as the service needs; None, or why one was not taken:
        then none after it was sent.
        """
        if self.server is None:
            return Refusal(Cause.DENIED, "is no Apprise URL")
        parts = [(message.title, message.body)]
        if self.fits:
            parts = fit(message, self.service)
        for title, body in parts:
            with capture_logs() as logged, watch_answers() as refusals:
                taken = self._send_part(message, title, body)
            if not taken:
                return _choose(refusals, logged)
        return None

    def _send_part(self, message: Message, title: str, body: str) -> bool:
        kind = apprise.NotifyType(APPRISE_TYPES[message.severity])
        if isinstance(self.server, NotifyPagerDuty) and self.fits:
            return incidents.trigger_pagerduty(self.server, message, body, kind)
        if isinstance(self.server, NotifyOpsgenie | NotifyJira):
            self.server.alias = message.key
        longest = self.server.title_maxlen
        # A part's number, at its end, is the least of it: the body says all that a title does.
        if self.fits and len(title) > longest > 0:
            title = title[: longest - 1].rstrip() + "…"
        sender = apprise.Apprise()
        sender.add(self.server)
        text = apprise.NotifyFormat.TEXT
        taken = sender.notify(title=title, body=body, body_format=text, notify_type=kind)
        return bool(taken)

    def resolve(self, key: str) -> Refusal | None:
        """Close the incident of an alert's key; None, or why that was not taken."""
        if self.server is None:
            return Refusal(Cause.DENIED, "is no Apprise URL")
        with capture_logs() as logged, watch_answers() as refusals:
            taken = incidents.resolve(self.server, key)
        if not taken:
            return _choose(refusals, logged)
        return None


def _choose(refusals: list[Refusal], logged: list[str]) -> Refusal:
    """What was said last: plugins that try again say the same, or know more."""
    if refusals:
        return refusals[-1]
    return judge_mail(logged) or Refusal(Cause.UNKNOWN, "did not take the message")
