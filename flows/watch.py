"""`poisonwatch watch`: one process that audits on a schedule, with a Prefect server of its own where none is configured."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast
from uuid import UUID

import httpx
from prefect import serve
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.deployments import run_deployment
from prefect.deployments.runner import RunnerDeployment
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import ValidationError

from poisonwatch.config import AuditConfig
from poisonwatch.errors import InputError, OperationError
from poisonwatch.flows.audit import audit
from poisonwatch.flows.drill import drill
from poisonwatch.flows.terminal import Reporter
from poisonwatch.redaction import redact_url

LEAST = timedelta(minutes=1)
START_UP_S = 120  # that a server may take on a busy machine


def schedule_of(every: timedelta | None, cron: str | None, timezone: str) -> IntervalSchedule | CronSchedule:
    """The schedule that was asked for. Raises InputError where it is none, or not exactly one is given."""
    if (every is None) == (cron is None):
        raise InputError("when to audit is one of --every and --cron: give --every 1h, or --cron '0 2 * * *'")
    if every is not None:
        return interval_of(every)
    try:
        return CronSchedule(cron=str(cron), timezone=timezone)
    except ValidationError as error:
        wrong = (
            f"--timezone {timezone} is no time zone"
            if "timezone" in str(error.errors()[0]["loc"])
            else f"--cron {cron} is no cron expression"
        )
        raise InputError(f"{wrong}: give, for example, --cron '0 2 * * *' --timezone Europe/Berlin") from None


def interval_of(every: timedelta) -> IntervalSchedule:
    """An interval that begins at once. Raises InputError where it is too short."""
    if every < LEAST:
        raise InputError(f"every {every.total_seconds():g} seconds is too often: give at least a minute, as in --every 1m")
    return IntervalSchedule(interval=every, anchor_date=datetime.now(UTC))


def watch(
    config: Path,
    settings: AuditConfig,
    schedule: IntervalSchedule | CronSchedule,
    drills: IntervalSchedule | None,
    port: int,
    reporter: Reporter,
) -> None:
    """Audit on a schedule until the process is told to end. Raises OperationError where the Prefect server cannot be used."""
    with server(port, reporter) as api:
        deployments: list[RunnerDeployment] = [_deployment(audit, config, settings, schedule)]
        if drills is not None:
            deployments.append(_deployment(drill, config, settings, drills))
        reporter.note(f"watching {settings.name}: runs, and pages to answer on, at {redact_url(api.removesuffix('/api'))}; Ctrl-C ends it")
        try:
            for deployment in deployments:
                if isinstance(schedule, IntervalSchedule):  # the first run at once: people see that it works
                    run_deployment(cast(UUID, deployment.apply()), timeout=0)
            serve(*deployments, limit=1, print_starting_message=False)
        except (httpx.TransportError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "Failed to reach API" not in str(error):
                raise
            raise OperationError(f"no Prefect server answers at {redact_url(api)}: start it, or unset PREFECT_API_URL") from error


def _deployment(flow: object, config: Path, settings: AuditConfig, schedule: IntervalSchedule | CronSchedule) -> RunnerDeployment:
    made: RunnerDeployment = flow.to_deployment(  # type: ignore[attr-defined]
        name=settings.name,
        parameters={"config": str(config.resolve())},
        schedules=[schedule],
        tags=["poisonwatch", f"name:{settings.name}"],
        concurrency_limit=1,
        description=f"Served by `poisonwatch watch`: {settings.name}.",
    )
    return made


@contextmanager
def server(port: int, reporter: Reporter) -> Iterator[str]:
    """The API of the configured Prefect server; without one, of a local one that ends with the block."""
    configured = PREFECT_API_URL.value()
    if configured:
        yield str(configured)
        return
    api = f"http://127.0.0.1:{port}/api"
    if _healthy(api):
        raise InputError(
            f"something answers on port {port} already: set PREFECT_API_URL={api} if it is a Prefect server, or choose another --port"
        )
    reporter.note(f"no Prefect server is configured (PREFECT_API_URL): starting one at http://127.0.0.1:{port} ...")
    own = {"PREFECT_SERVER_API_HOST": "127.0.0.1", "PREFECT_SERVER_API_PORT": str(port), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start"],
        env={**os.environ, **own},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for us: a run at work still has to tell it how it ended
    )
    try:
        _wait(process, api)
        os.environ["PREFECT_API_URL"] = api  # for the processes of flow runs
        with temporary_settings({PREFECT_API_URL: api}):
            yield api
    finally:
        os.environ.pop("PREFECT_API_URL", None)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], api: str) -> None:
    deadline = time.monotonic() + START_UP_S
    while not _healthy(api):
        if process.poll() is not None or time.monotonic() > deadline:
            raise OperationError(f"the Prefect server did not start at {api}: try `prefect server start` to see why, or another --port")
        time.sleep(0.3)


def _healthy(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health", timeout=2).is_success
    except httpx.HTTPError:
        return False
