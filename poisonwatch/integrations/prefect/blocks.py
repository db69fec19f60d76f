"""Messages of plain text by a notification block of the Prefect server."""

import inspect

from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from prefect.utilities.asyncutils import run_coro_as_sync

from poisonwatch.alerts.fitting import Message, fit
from poisonwatch.alerts.services import find_service
from poisonwatch.integrations.log_capture import capture_logs
from poisonwatch.integrations.refusals import Cause, Refusal


class BlockSender:
    """A Prefect block, named TYPE/NAME: it gets what the service of its type takes."""

    # Whatever a block opens, it says under no key.
    resolves = False

    def __init__(self, slug: str) -> None:
        self.slug = slug

    def send(self, message: Message) -> Refusal | None:
        """Send a message; None, or why it was not taken."""
        block = self._load()
        if isinstance(block, Refusal):
            return block
        service = find_service(self.slug.partition("/")[0])
        for title, body in fit(message, service):
            try:
                # Without the second a block that failed returns as if all were well.
                with capture_logs(), block.raise_on_failure():
                    sent = block.notify(body=body, subject=title or None)
                    # Prefect's base class has `notify` as a coroutine, its own blocks have it both
                    # ways.
                    if inspect.isawaitable(sent):
                        run_coro_as_sync(sent)
            except Exception as error:
                kind = type(error).__name__
                words = f"Prefect's block {self.slug} did not take the message ({kind})"
                return Refusal(Cause.UNKNOWN, words)
        return None

    def resolve(self, key: str) -> Refusal | None:  # noqa: ARG002 - what senders are called with
        """Nothing: no block can be told."""
        return None

    def _load(self) -> NotificationBlock | Refusal:
        # Blocks are anybody's code: any error may come out of them, and its text may hold an
        # address. Only the error's type is told.
        try:
            with capture_logs():
                block = Block.load(self.slug)
        except ValueError:
            words = f"Prefect has no block {self.slug}: create it, or correct the name (TYPE/NAME)"
            return Refusal(Cause.DENIED, words)
        except Exception as error:
            kind = type(error).__name__
            problem = f"Prefect's block {self.slug} cannot be loaded ({kind})"
            words = f"{problem}: is the server at PREFECT_API_URL up?"
            return Refusal(Cause.UNREACHABLE, words)
        if not isinstance(block, NotificationBlock):
            return Refusal(Cause.DENIED, f"Prefect's block {self.slug} sends no notifications")
        return block
