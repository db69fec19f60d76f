"""Tell people: alerts are composed with an audit's results, and delivered once these are in the
ledger.
"""

import inspect
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import apprise
from apprise.common import OverflowMode
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from prefect.utilities.asyncutils import run_coro_as_sync

from poisonwatch.alerts.targets import Target
from poisonwatch.errors import OperationError
from poisonwatch.text.environment import expand_variables

APPRISE_TYPES = {
    "low": "info",
    "medium": "warning",
    "high": "failure",
}  # what Apprise calls severities: colours, PagerDuty's severity
APPRISE_ASSET = apprise.AppriseAsset(
    app_id="Poisonwatch", app_desc="Poisonwatch", image_url_mask="", image_url_logo=""
)  # no pictures from elsewhere
NOISY_LOGGERS = (
    "apprise",
    "httpcore",
    "httpx",
    "urllib3",
)  # loggers whose messages hold addresses, and so tokens


class UnreachableTargetError(OperationError):
    """Nothing answers at a target's address."""


def send_message(target: Target, title: str, body: str, kind: str = "info") -> None:
    """Send one message of plain text. Raises ConfigError or OperationError, which never hold the
    address.
    """
    with _capture_logs() as heard:
        refused = (
            _send_to_url(target.setting.url, title, body, kind)
            if target.setting.url
            else _send_to_block(str(target.setting.block), title, body)
        )
    if refused is None:
        return
    if any("onnection error" in line for line in heard):
        raise UnreachableTargetError("cannot be reached")
    answers = [match[1] for line in heard for match in re.finditer(r"error=(\d{3})\b", line)]
    raise OperationError(f"answered {answers[-1]}" if answers else refused)


def _send_to_url(url: str, title: str, body: str, kind: str) -> str | None:
    """Send by Apprise; None, or why the message was not taken."""
    server = apprise.Apprise.instantiate(expand_variables(url, "alerts"), asset=APPRISE_ASSET)
    if server is None:
        return "is no Apprise URL"
    if "overflow=" not in url:
        server.overflow_mode = (
            OverflowMode.SPLIT
        )  # a message that is too long for a medium is refused by it
    sender = apprise.Apprise()
    sender.add(server)
    taken = sender.notify(
        title=title,
        body=body,
        body_format=apprise.NotifyFormat.TEXT,
        notify_type=apprise.NotifyType(kind),
    )
    return None if taken else "did not take the message"


def _send_to_block(slug: str, title: str, body: str) -> str | None:
    """Send by a Prefect block; None, or why the message was not taken. Blocks are anybody's code:
    any error may come out of them.
    """
    try:
        block = Block.load(slug)
    except ValueError:
        return f"Prefect has no block {slug}: create it, or correct the name (TYPE/NAME)"
    except Exception as error:
        return f"Prefect's block {slug} cannot be loaded ({type(error).__name__}): is the server at PREFECT_API_URL up?"
    if not isinstance(block, NotificationBlock):
        return f"Prefect's block {slug} sends no notifications"
    try:
        with block.raise_on_failure():
            sent = block.notify(body=body, subject=title)
            if inspect.isawaitable(sent):
                run_coro_as_sync(sent)
    except Exception as error:
        return f"Prefect's block {slug} did not take the message ({type(error).__name__})"
    return None


class _LogCapture(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record.getMessage())


@contextmanager
def _capture_logs() -> Iterator[list[str]]:
    """Keep what libraries log about addresses out of every log; yields their warnings, to be
    searched, never to be shown.
    """
    listener = _LogCapture()
    loggers = [logging.getLogger(name) for name in NOISY_LOGGERS]
    before = [(logger, logger.level, logger.propagate, logger.handlers) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
        logger.propagate, logger.handlers = False, [listener]
    try:
        yield listener.heard
    finally:
        for logger, level, propagate, handlers in before:
            logger.setLevel(level)
            logger.propagate, logger.handlers = propagate, handlers
