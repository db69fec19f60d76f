"""When audits are expected, and whom else to tell that one came: the section `schedule` of an audit
file.

The section starts nothing by itself: `poisonwatch watch` and deployments do. It is what audits are
held against: one that does not come is overdue (`poisonwatch/liveness`).
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Annotated, Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from poisonwatch.source_config import Section
from poisonwatch.text.addresses import HIDDEN, is_web_address
from poisonwatch.text.durations import parse_duration, tell_duration, write_duration
from poisonwatch.text.environment import find_variables

SHORTEST_INTERVAL = timedelta(minutes=1)
SHORTEST_GRACE = timedelta(minutes=5)  # by default
# Longer is a slip of the pen, and what is added to a date would leave the calendar.
LONGEST = timedelta(days=3660)
UTC_NAME = "UTC"

_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


def _read_duration(value: Any) -> Any:
    """A text such as 1h; a number says no unit, and pydantic would take it for seconds."""
    if isinstance(value, timedelta):
        return value
    return parse_duration(str(value))


Duration = Annotated[
    timedelta, BeforeValidator(_read_duration), PlainSerializer(write_duration, when_used="json")
]
PingMoment = Literal["start", "success", "fail"]


class ExpectedMoment(NamedTuple):
    """When an audit is expected, in UTC: two times where the clock on the wall leaves its own out,
    else twice the same.
    """

    earliest: datetime
    latest: datetime


class ScheduleConfig(Section):
    """When audits are expected: `every` or `cron`, or neither; and the monitor that is pinged."""

    every: Duration | None = None
    """How often, as in 30m, 1h or 1d."""
    cron: str | None = None
    """When, as a cron expression of five fields, as in '0 2 * * *'."""
    timezone: str = UTC_NAME
    """Whose time `cron` means, as in Europe/Berlin; without `cron` there is none to give."""
    grace: Duration | None = None
    """How late an audit may be; default half of the time between two, at least 5 minutes."""
    ping: str | None = None
    """A monitor's address (healthchecks.io, Uptime Kuma, ...), asked for with GET when an audit has
    come to its results. It is a secret: write ${NAME}.
    """
    ping_on: list[PingMoment] = Field(["success"], min_length=1)
    """When it is pinged. start and fail are /start and /fail behind the address, as healthchecks.io
    takes them: ask for these only where your monitor documents them.
    """

    @model_validator(mode="after")
    def _check_times(self) -> "ScheduleConfig":
        if self.every is not None and self.cron is not None:
            raise ValueError("every and cron are two ways to say when: leave one of them out")
        if self.every is not None and self.every < SHORTEST_INTERVAL:
            raise ValueError("every is too often: give at least a minute, as in 1m")
        if max(self.every or timedelta(), self.grace or timedelta()) > LONGEST:
            raise ValueError("every and grace are ten years at most: give one such as 30m or 7d")
        if self.grace is not None and self.grace < timedelta():
            raise ValueError("grace is less than nothing: give a duration such as 30m")
        try:
            ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError):
            raise ValueError(
                f"timezone {self.timezone[:60]} is none: give one such as Europe/Berlin"
            ) from None
        if self.cron is not None:
            _require_cron(self.cron)
        return self

    @model_validator(mode="after")
    def _check_ping(self) -> "ScheduleConfig":
        ping = self.ping or ""
        is_address = ping == HIDDEN or is_web_address(ping)
        if self.ping is not None and not is_address and not find_variables(ping):
            raise ValueError("ping is the address of a monitor: give an http(s) URL, or ${NAME}")
        return self

    @property
    def is_set(self) -> bool:
        """Whether audits are expected at all."""
        return self.every is not None or self.cron is not None

    def find_next(self, moment: datetime) -> datetime:
        """When the audit after `moment` is expected to start. Times are aware, those that come back
        in UTC.
        """
        if self.every is not None:
            return moment.astimezone(UTC) + self.every
        return next(self._iterate_cron(moment)).earliest

    def find_gap(self, moment: datetime) -> timedelta:
        """The time between the two audits that are expected after `moment`."""
        if self.every is not None:
            return self.every
        first, second = islice(self._iterate_cron(moment), 2)
        return second.earliest - first.earliest

    def find_grace(self, moment: datetime) -> timedelta:
        """How late the audit after `moment` may be."""
        if self.cron is None:
            return self._choose_grace(self.find_gap(moment))
        first, second = islice(self._iterate_cron(moment), 2)
        grace = self._choose_grace(second.earliest - first.earliest)
        return grace + (first.latest - first.earliest)

    def _choose_grace(self, gap: timedelta) -> timedelta:
        return max(gap / 2, SHORTEST_GRACE) if self.grace is None else self.grace

    def describe(self) -> str:
        """The schedule in words: "every 1 h"."""
        if self.every is not None:
            return f"every {tell_duration(self.every)}"
        return f"at {self.cron} ({self.timezone})"

    def means_the_same(self, other: "ScheduleConfig") -> bool:
        """Whether audits are expected at the same times."""
        return self._times == other._times

    @property
    def _times(self) -> tuple[object, ...]:
        return self.every, self.cron, self.timezone if self.cron else None

    def write(self) -> str:
        """The schedule as JSON, for the ledger: without the address that is pinged."""
        kept = {"every", "cron", "timezone", "grace"}
        return json.dumps(self.model_dump(mode="json", include=kept), sort_keys=True)

    def _iterate_cron(self, moment: datetime) -> Iterator[ExpectedMoment]:
        """The moments after `moment`, as Prefect counts them: a cron expression is of what the
        clock on the wall shows. An hour that comes twice counts once, the first time; one that is
        left out in spring comes in the place of the hour before it (Prefect 3.8), or after it
        (from 3.9 on): which of them, the server knows.
        """
        zone = ZoneInfo(self.timezone)
        wall = moment.astimezone(zone).replace(tzinfo=None)
        last = moment.astimezone(UTC)
        for at in _make_cron(str(self.cron), wall):
            found = latest = at.replace(tzinfo=zone).astimezone(UTC)
            if latest.astimezone(zone).replace(tzinfo=None) != at:
                found = at.replace(tzinfo=zone, fold=1).astimezone(UTC)
            # In the hour that comes for the second time, its moments have passed.
            if found > last:
                last = found
                yield ExpectedMoment(found, latest)


def _make_cron(expression: str, wall: datetime) -> CronSim:
    """The moments of an expression after a time on the wall. Raises CronSimError."""
    fields = _split_cron(expression)
    cron = CronSim(" ".join(fields), wall)
    # Both days must fit where one of them is any day; else either will do, as with Prefect.
    cron.day_and = "*" in (fields[2], fields[4])
    return cron


def _split_cron(expression: str) -> list[str]:
    """The five fields of an expression. Raises CronSimError."""
    fields = _ALIASES.get(expression.strip().lower(), expression).replace("?", "*").split()
    if len(fields) != 5:
        raise CronSimError("five fields")
    return fields


def _require_cron(expression: str) -> None:
    """Raise ValueError where an expression is none, or means no time at all."""
    wrong = ""
    try:
        next(_make_cron(expression, datetime(2026, 1, 1)))
    except CronSimError:
        wrong = "is no cron expression of five fields"
        if _has_valid_fields(expression):
            wrong = "never comes"
    except StopIteration:
        wrong = "never comes"
    if wrong:
        raise ValueError(f"cron {expression[:60]} {wrong}: give one such as '0 2 * * *'")


def _has_valid_fields(expression: str) -> bool:
    """Whether each field is one: a day that none of its months has is refused as no day."""
    try:
        minute, hour, day, month, weekday = _split_cron(expression)
        for fields in ((minute, hour, day, "*", weekday), (minute, hour, "*", month, weekday)):
            CronSim(" ".join(fields), datetime(2026, 1, 1))
    except CronSimError:
        return False
    return True
