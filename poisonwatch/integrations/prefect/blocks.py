"""One message of plain text by a notification block of the Prefect server."""

import inspect

from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from prefect.utilities.asyncutils import run_coro_as_sync


def send_to_block(slug: str, title: str, body: str) -> str | None:
    """Send by a Prefect block, named TYPE/NAME; None, or why the message was not taken."""
    # Blocks are anybody's code: any error may come out of them, and its text may hold an address.
    # Only the error's type is told.
    try:
        block = Block.load(slug)
    except ValueError:
        return f"Prefect has no block {slug}: create it, or correct the name (TYPE/NAME)"
    except Exception as error:
        kind = type(error).__name__
        problem = f"Prefect's block {slug} cannot be loaded ({kind})"
        return f"{problem}: is the server at PREFECT_API_URL up?"
    if not isinstance(block, NotificationBlock):
        return f"Prefect's block {slug} sends no notifications"
    try:
        # Without this a block that failed returns as if all were well.
        with block.raise_on_failure():
            sent = block.notify(body=body, subject=title)
            # Prefect's base class has `notify` as a coroutine, its own blocks have it both ways.
            if inspect.isawaitable(sent):
                run_coro_as_sync(sent)
    except Exception as error:
        return f"Prefect's block {slug} did not take the message ({type(error).__name__})"
    return None
