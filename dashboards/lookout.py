"""While the dashboard runs, it looks whether audits come, and has people told of those that do not.

What is told goes through the outbox. What sends it (Apprise, Prefect) is nothing that the dashboard
loads: where something is to be sent, `poisonwatch status --alert` is run.
"""

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sqlalchemy.exc import SQLAlchemyError

from poisonwatch.alerts.silences import look_after
from poisonwatch.alerts.targets import list_targets
from poisonwatch.dashboards.pages import Desk, NoAuditError
from poisonwatch.errors import PoisonwatchError
from poisonwatch.ledger.notices import is_notice_due

LOOKS_EVERY_S = 60.0
SENDING_S = 300  # that sending may take

log = logging.getLogger(__name__)


@contextmanager
def keep_lookout(desk: Desk, every_s: float = LOOKS_EVERY_S) -> Iterator[None]:
    """Look every so often, on a thread of its own, while the block lasts."""
    ended = threading.Event()

    def look_on() -> None:
        said = ""
        while not ended.wait(every_s):
            problem = look(desk, datetime.now(UTC))
            # One that lasts is said once.
            if problem and problem != said:
                log.warning("whether audits come was not told: %s", problem)
            said = problem

    threading.Thread(target=look_on, name="poisonwatch-lookout", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def look(desk: Desk, now: datetime) -> str:
    """Look once, and send what is to be sent: what went wrong, empty where nothing did."""
    targets = [target.id for target in list_targets(desk.config)]
    try:
        ledger = desk.ledger
        look_after(ledger, desk.config, now)
        with ledger.read() as connection:
            if not is_notice_due(connection, targets, now):
                return ""
        command = [sys.executable, "-m", "poisonwatch.flows.cli", "status", str(desk.path)]
        # What it prints says how the audit stands: the page does that here.
        done = subprocess.run(
            [*command, "--alert", "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=SENDING_S,
            check=False,
        )
    except NoAuditError:
        return ""
    except (PoisonwatchError, SQLAlchemyError, OSError, subprocess.TimeoutExpired) as error:
        return desk.config.find_secrets().conceal_error(error)
    lines = done.stderr.decode(errors="replace").splitlines()
    return lines[-1] if lines else ""
