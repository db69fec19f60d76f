"""Cron monitors: a ping when an audit comes, to whoever tells people when none does."""

import time
from urllib.parse import urlsplit, urlunsplit

import httpx

from poisonwatch.errors import OperationError
from poisonwatch.integrations.log_capture import capture_logs
from poisonwatch.schedule_config import PingMoment, ScheduleConfig
from poisonwatch.text.addresses import HIDDEN
from poisonwatch.text.environment import open_variables, refuse_hidden

PATIENCE_S = 10.0  # with a monitor that does not answer
TRIES = 3
PAUSE_S = 0.5  # between two tries
# What is put behind the address, as healthchecks.io documents it.
PATHS: dict[PingMoment, str] = {"start": "/start", "success": "", "fail": "/fail"}


def ping_monitor(schedule: ScheduleConfig, moment: PingMoment) -> bool:
    """Ping the monitor of a schedule, if it has one that is to hear of this moment: whether it did.

    Raises ConfigError where the address names a variable that is not set, and OperationError where
    nobody takes the ping; neither holds the address, which is a secret.
    """
    if schedule.ping is None or moment not in schedule.ping_on:
        return False
    if HIDDEN in schedule.ping:
        refuse_hidden("schedule.ping")
    address = _add_path(open_variables(schedule.ping, "schedule.ping"), PATHS[moment])
    problem = ""
    with capture_logs():
        for attempt in range(TRIES):
            if attempt:
                time.sleep(PAUSE_S)
            problem, is_final = _get(address)
            if not problem:
                return True
            if is_final:
                break
    # Not chained: what httpx says holds the address.
    raise OperationError(
        f"the monitor of schedule.ping {problem}: check its address; it may tell people that this "
        "audit did not come"
    )


def _get(address: str) -> tuple[str, bool]:
    """What is wrong, empty where nothing is, and whether another try is of no use."""
    try:
        answer = httpx.get(address, timeout=PATIENCE_S, follow_redirects=True)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError):
        return "is no http(s) address", True
    except httpx.HTTPError as error:
        return f"cannot be reached ({type(error).__name__})", False
    if answer.is_success:
        return "", True
    return f"answered {answer.status_code}", answer.is_client_error


def _add_path(address: str, path: str) -> str:
    if not path:
        return address
    parts = urlsplit(address)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path))
