"""That audits come is told while they do, and that they do not by whoever is alive."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from poisonwatch.alerts.targets import list_targets
from poisonwatch.concealment import conceal_errors
from poisonwatch.config import AuditConfig
from poisonwatch.errors import PoisonwatchError
from poisonwatch.flows.engine import Engine
from poisonwatch.flows.reporter import Reporter
from poisonwatch.flows.times import Times
from poisonwatch.integrations.notices import tell_silences
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.notices import is_notice_due
from poisonwatch.ledger.schedules import list_schedules, record_schedule
from poisonwatch.ledger.transactions import retried
from poisonwatch.schedule_config import PingMoment, ScheduleConfig
from poisonwatch.tasks.liveness import ping_monitor

LOOKS_EVERY_S = 60.0


def ping(config: AuditConfig, engine: Engine, moment: PingMoment) -> None:
    """Ping the monitor of the audit file, if it has one that is to hear of this. An audit that is
    repeated by a run's own settings is none that was expected.
    """
    if config.replay.audit_id is not None:
        return
    if config.schedule.ping is not None and moment in config.schedule.ping_on:
        engine.attempt(ping_monitor, config, moment)


@contextmanager
def tell_monitor(config: AuditConfig, engine: Engine) -> Iterator[None]:
    """Ping the monitor at the start of the block, and where it fails; an audit that came to its
    results says so itself. One that is interrupted did not fail.
    """
    ping(config, engine, "start")
    try:
        yield
    except Exception:
        # Where this fails, too, the error that counts is the first.
        with suppress(Exception):
            ping(config, engine, "fail")
        raise


@retried
def expects_audits(ledger: Ledger, config: AuditConfig) -> bool:
    """Whether anybody expects audits on this ledger: else none can be overdue."""
    if config.schedule.is_set:
        return True
    with ledger.read() as connection:
        return bool(list_schedules(connection))


@retried
def owes_notices(ledger: Ledger, config: AuditConfig) -> bool:
    """Whether a target of the audit file is to get a notice now, of whatever kind."""
    targets = [target.id for target in list_targets(config)]
    with ledger.read() as connection:
        return is_notice_due(connection, targets, datetime.now(UTC))


def _expect(schedule: ScheduleConfig, times: Times) -> ScheduleConfig:
    """The schedule with these times. Raises ValidationError where a cron expression is one that
    Prefect alone knows.
    """
    every, cron, timezone = times
    said = schedule.model_dump() | {"every": every, "cron": cron, "timezone": timezone}
    return ScheduleConfig.model_validate(said)


@contextmanager
def keep_guard(
    config: AuditConfig, times: Times, reporter: Reporter, every_s: float = LOOKS_EVERY_S
) -> Iterator[None]:
    """While the block lasts, look whether audits come at these times, and tell of those that do
    not.

    The ledger remembers the times, for whoever is alive when this process is not. What goes wrong
    with looking is noted, and stops nothing.
    """
    ended = threading.Event()
    try:
        schedule = _expect(config.schedule, times)
    except ValidationError as error:
        why = error.errors()[0]["ctx"]["error"]
        reporter.note(f"warning: nobody will be told where audits do not come: {why}")
        yield
        return
    expected = config.model_copy(update={"schedule": schedule})

    def look_on() -> None:
        said = ""
        while not ended.wait(every_s):
            problem = _look(expected)
            # One that lasts is said once.
            if problem and problem != said:
                reporter.note(f"warning: {problem}")
            said = problem

    try:
        with Ledger.at(config.state) as ledger, ledger.write() as connection:
            record_schedule(connection, config.name, schedule, datetime.now(UTC))
    except PoisonwatchError as error:
        # It is remembered at the first look that succeeds.
        reporter.note(f"warning: {error}")
    guard = threading.Thread(target=look_on, name="poisonwatch-guard", daemon=True)
    guard.start()
    try:
        yield
    finally:
        ended.set()


def _look(config: AuditConfig) -> str:
    """Look once; what went wrong, empty where nothing did."""
    try:
        with conceal_errors(config.find_secrets()):
            tell_silences(config, datetime.now(UTC))
    except (PoisonwatchError, SQLAlchemyError, OSError) as error:
        return " ".join(str(error).split())
    return ""
