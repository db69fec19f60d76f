"""When `watch` audits: as options say, or the audit file. What cannot be is refused before Prefect
is imported, which takes two seconds.
"""

from datetime import timedelta
from zoneinfo import available_timezones

from poisonwatch.errors import InputError
from poisonwatch.schedule_config import SHORTEST_INTERVAL, UTC_NAME, ScheduleConfig

# every, cron, and whose time the latter means
Times = tuple[timedelta | None, str | None, str]

# Of a cron expression: with seconds and years.
FIELDS = range(5, 8)


def choose_times(
    schedule: ScheduleConfig, every: timedelta | None, cron: str | None, timezone: str
) -> Times:
    """When to audit: as options say, else as the audit file does. Raises InputError where the two
    do not agree, since what is expected would not be what comes, or a time zone means nothing.
    """
    if timezone != UTC_NAME and cron is None and schedule.cron is None:
        raise InputError(
            f"--timezone {timezone[:60]} says whose time --cron means, and there is no --cron: "
            "leave --timezone out, or give --cron instead of --every"
        )
    if every is None and cron is None:
        return schedule.every, schedule.cron, schedule.timezone if schedule.cron else timezone
    said = schedule.every, schedule.cron
    if schedule.is_set and said != (every, cron):
        raise InputError(
            f"schedule: in the audit file says {schedule.describe()}, and the options say "
            "something else: leave --every and --cron out, or change the audit file"
        )
    if schedule.cron is not None:
        timezone = schedule.timezone
    return every, cron, timezone


def require_times(times: Times) -> None:
    """Raises InputError where these are surely no times at which to audit; of a cron expression,
    Prefect has the last word.
    """
    every, cron, timezone = times
    if (every is None) == (cron is None):
        raise InputError(
            "when to audit is one of --every and --cron: give --every 1h, or --cron '0 2 * * *'"
        )
    if every is not None:
        require_interval(every)
    if cron is None:
        return
    if len(cron.split()) not in FIELDS and not cron.startswith("@"):
        raise make_cron_error(cron)
    if timezone not in available_timezones():
        raise _make_error(f"--timezone {timezone} is no time zone")


def require_interval(every: timedelta) -> None:
    """Raises InputError where audits or drills would come too often."""
    if every < SHORTEST_INTERVAL:
        raise InputError(
            f"every {every.total_seconds():g} seconds is too often: "
            "give at least a minute, as in --every 1m"
        )


def make_cron_error(cron: str) -> InputError:
    """That this is no cron expression, as an error to be raised."""
    return _make_error(f"--cron {cron} is no cron expression")


def _make_error(wrong: str) -> InputError:
    return InputError(f"{wrong}: give, for example, --cron '0 2 * * *' --timezone Europe/Berlin")
