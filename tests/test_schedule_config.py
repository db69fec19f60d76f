"""When audits are expected: durations, cron expressions as Prefect counts them, a monitor."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml
from paths import ROOT
from prefect.server.schemas.schedules import CronSchedule

from poisonwatch.config import AuditConfig
from poisonwatch.config_file import resolve_config
from poisonwatch.errors import ConfigError
from poisonwatch.schedule_config import ScheduleConfig

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
# Beside and within the hours in which clocks are changed, in each of the zones.
MOMENTS = [
    "2026-03-28T22:13:00",
    "2026-03-29T00:30:00",
    "2026-10-24T23:10:00",
    "2026-10-25T00:20:00",
    "2026-10-25T01:10:30",
    "2026-03-08T05:10:00",
    "2026-11-01T05:10:00",
    "2026-04-04T14:10:00",
    "2026-10-03T15:20:00",
    "2026-01-31T12:00:00",
]
EXPRESSIONS = [
    "0 2 * * *",
    "30 2 * * *",
    "0 * * * *",
    "*/15 * * * *",
    "15,45 1-3 * * *",
    "0 9 * * 1-5",
    "0 0 */2 * 1",
    "0 0 1,15 * FRI",
    "30 1 * MAR,OCT SUN",
    "0 5 * * 7",
    "0 0 ? * 1",
    "0 12 L * *",
    "@weekly",
]


def read(schedule: Any) -> ScheduleConfig:
    settings = {"source": "rows.jsonl", "sentinels": "s.yaml", "schedule": schedule}
    return resolve_config(settings, Path("/nowhere")).schedule


@pytest.mark.parametrize(
    "zone", ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]
)
def test_a_cron_expression_means_what_prefect_starts(zone: str) -> None:
    """Also where clocks are changed: the next moments are those of Prefect's own scheduler, less
    what it would start that has passed; of a time that the clock leaves out, one of the two that
    are allowed for.
    """
    comes_later = does_prefect_start_later()
    for expression in EXPRESSIONS:
        ours = ScheduleConfig(cron=expression, timezone=zone)
        theirs = CronSchedule(cron=expression, timezone=zone)
        for text in MOMENTS:
            moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
            dates = asyncio.run(theirs.get_dates(6, moment + timedelta(seconds=1)))
            wanted = sorted({date.astimezone(UTC) for date in dates if date > moment})
            # one that was left out may come yet, though the earlier of its two times has passed
            since = islice(ours._iterate_cron(moment - timedelta(hours=1)), len(wanted) + 8)
            found = [each.latest if comes_later else each.earliest for each in since]
            assert [at for at in found if at > moment][: len(wanted)] == wanted, (expression, text)


def does_prefect_start_later() -> bool:
    """Whether a time that is left out in spring comes an hour later (from 3.9 on) or earlier."""
    night = CronSchedule(cron="30 2 * * *", timezone="Europe/Berlin")
    (date,) = asyncio.run(night.get_dates(1, datetime(2026, 3, 28, 12, tzinfo=UTC)))
    return bool(date.astimezone(UTC) == datetime(2026, 3, 29, 1, 30, tzinfo=UTC))


def test_a_night_whose_time_is_left_out_may_have_its_audit_an_hour_later() -> None:
    """Which hour it comes in, Prefect's server decides: nobody is told that it is late before."""
    nightly = read({"cron": "30 2 * * *", "timezone": "Europe/Berlin", "grace": "10m"})
    before = datetime(2026, 3, 28, 2, tzinfo=UTC)
    assert nightly.find_next(before) == datetime(2026, 3, 29, 0, 30, tzinfo=UTC)
    assert nightly.find_grace(before) == timedelta(minutes=70)
    # an audit that came in either hour is that night's
    for hour in (0, 1):
        came = datetime(2026, 3, 29, hour, 30, tzinfo=UTC)
        assert nightly.find_next(came) == datetime(2026, 3, 30, 0, 30, tzinfo=UTC)
        assert nightly.find_grace(came) == timedelta(minutes=10)


def test_a_night_without_a_grace_of_its_own_has_half_of_the_time_to_the_next() -> None:
    """And where its time is left out, the hour that it may come later."""
    nightly = read({"cron": "30 2 * * *", "timezone": "Europe/Berlin"})
    assert nightly.find_grace(datetime(2026, 5, 3, 2, tzinfo=UTC)) == timedelta(hours=12)
    left_out = datetime(2026, 3, 28, 2, tzinfo=UTC)
    assert nightly.find_grace(left_out) == nightly.find_gap(left_out) / 2 + timedelta(hours=1)


def test_audits_are_expected_by_interval() -> None:
    """A text alone is one; grace is half of it, at least five minutes, or what is said."""
    hourly = read("1h")
    assert hourly.is_set
    assert hourly.find_next(NOON) == NOON + timedelta(hours=1)
    assert hourly.find_grace(NOON) == timedelta(minutes=30)
    assert hourly.describe() == "every 1 h"
    assert read("2m").find_grace(NOON) == timedelta(minutes=5)
    assert read({"every": "1d", "grace": "10m"}).find_grace(NOON) == timedelta(minutes=10)
    assert not read({}).is_set
    assert read({"cron": "0 2 * * *"}).find_gap(NOON) == timedelta(days=1)


def test_a_run_keeps_the_schedule_as_it_was_written() -> None:
    """Without the address that is pinged, unless that is a variable's name alone."""
    written = {"every": "1h30m", "grace": "0s", "ping": "https://hc.example/abc-123"}
    public = AuditConfig(
        source="rows.jsonl",  # type: ignore[arg-type]
        sentinels=["s.yaml"],
        schedule=ScheduleConfig.model_validate(written),
    ).to_public_dict()["schedule"]
    assert (public["every"], public["grace"], public["ping"]) == ("1h30m", "0s", "https://***")
    assert ScheduleConfig.model_validate(public).find_next(NOON) == NOON + timedelta(minutes=90)
    assert "hc.example" not in ScheduleConfig.model_validate(written).write()


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ({"every": 60}, "schedule.every: is no duration: write a number and its unit"),
        ({"every": "30s"}, "at least a minute"),
        ({"every": "3000000d"}, "every and grace are ten years at most"),
        ({"every": "1h", "grace": "99999999d"}, "every and grace are ten years at most"),
        ({"every": "1h", "ping": "http://[bad"}, "ping is the address of a monitor"),
        ({"every": "1h", "ping": "https://"}, "ping is the address of a monitor"),
        ({"every": "1h", "cron": "0 2 * * *"}, "leave one of them out"),
        ({"every": "1h", "grace": "soon"}, "schedule.grace: is no duration"),
        ({"cron": "0 2 * *"}, "is no cron expression of five fields"),
        ({"cron": "0 0 31 2 *"}, "cron 0 0 31 2 .* never comes: give one such as"),
        ({"cron": "0 0 30 FEB *"}, "never comes"),
        ({"cron": "0 0 31 13 *"}, "is no cron expression of five fields"),
        ({"cron": "0 0 32 2 *"}, "is no cron expression of five fields"),
        (
            {"every": "1h", "timezone": "Europe/Berlin"},
            "schedule.timezone: Europe/Berlin says whose",
        ),
        ({"ping": "https://hc.example/1", "timezone": "Asia/Tokyo"}, "leave timezone out"),
        ({"cron": "0 2 * * *", "timezone": "Mars/Phobos"}, "timezone Mars/Phobos is none"),
        ({"cron": "0 2 * * *", "timezone": "../../etc/passwd"}, "is none: give one such as"),
        ({"evry": "1h"}, "unknown key schedule.evry; the nearest known key is every"),
        ({"every": "1h", "ping_on": ["sucess"]}, "schedule.ping_on"),
        ({"every": "1h", "ping": "${POISONWATCH_NOT_SET}"}, "POISONWATCH_NOT_SET is not set"),
    ],
)
def test_what_is_no_schedule_says_what_would_be(schedule: Any, said: str) -> None:
    """In one line."""
    with pytest.raises(ConfigError, match=said) as refused:
        read(schedule)
    assert "\n" not in str(refused.value)


def test_a_run_s_own_settings_may_have_a_needless_time_zone() -> None:
    """Earlier versions took it, and what their runs left opens still."""
    schedule = {"every": "1h", "timezone": "Europe/Berlin"}
    settings = {"source": "rows.jsonl", "sentinels": "s.yaml", "schedule": schedule}
    written = {**settings, "replay": {"version": "0.1.0"}}
    assert resolve_config(written, Path("/nowhere")).schedule.describe() == "every 1 h"


def test_an_address_that_is_none_is_not_repeated() -> None:
    """It may be a secret that stands in the wrong place."""
    with pytest.raises(ConfigError, match=r"http\(s\) URL") as refused:
        read({"every": "1h", "ping": "hunter2secret"})
    assert "hunter2" not in str(refused.value)


def test_the_docs_say_what_each_key_is() -> None:
    """In a table; and the section that they show is one."""
    text = (ROOT / "docs/operation.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", text, re.MULTILINE))))
    assert set(ScheduleConfig.model_fields) <= named
    first, second = re.findall(r"^schedule: (.*?) *(?:#.*)?$", text, flags=re.MULTILINE)
    assert ScheduleConfig(every=timedelta(hours=1)).means_the_same(read(first))
    shown = yaml.safe_load(second.replace("${PING_URL}", "https://hc.example/1"))
    assert read(shown).describe() == "at 0 2 * * * (Europe/Berlin)"
