"""`poisonwatch watch`: one process that audits on a schedule, with a Prefect server of its own
where none is configured.
"""

import asyncio
import contextlib
import io
import logging
import re
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId, FlowRunFilter
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.deployments import run_deployment
from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner
from prefect.states import Crashed
from prefect.types.entrypoint import EntrypointType
from pydantic import ValidationError

from poisonwatch.config import AuditConfig
from poisonwatch.errors import InputError, OperationError
from poisonwatch.flows.audit import audit
from poisonwatch.flows.drill import drill
from poisonwatch.flows.prefect_server import is_server_gone, open_server
from poisonwatch.flows.reporter import Reporter
from poisonwatch.text.redaction import show_place

SHORTEST_INTERVAL = timedelta(minutes=1)


def make_schedule(
    every: timedelta | None, cron: str | None, timezone: str
) -> IntervalSchedule | CronSchedule:
    """The schedule that was asked for. Raises InputError where it is none, or not exactly one is
    given.
    """
    if (every is None) == (cron is None):
        raise InputError(
            "when to audit is one of --every and --cron: give --every 1h, or --cron '0 2 * * *'"
        )
    if every is not None:
        return make_interval(every)
    try:
        return CronSchedule(cron=str(cron), timezone=timezone)
    except ValidationError as error:
        # Prefect's own words are several lines, and name its fields
        wrong = f"--cron {cron} is no cron expression"
        if "timezone" in str(error.errors()[0]["loc"]):
            wrong = f"--timezone {timezone} is no time zone"
        raise InputError(
            f"{wrong}: give, for example, --cron '0 2 * * *' --timezone Europe/Berlin"
        ) from None


def make_interval(every: timedelta) -> IntervalSchedule:
    """An interval that begins at once. Raises InputError where it is too short."""
    if every < SHORTEST_INTERVAL:
        raise InputError(
            f"every {every.total_seconds():g} seconds is too often: "
            "give at least a minute, as in --every 1m"
        )
    # from now, and not from Prefect's own anchor, which would have the first run come any time
    return IntervalSchedule(interval=every, anchor_date=datetime.now(UTC))


class _Runner(Runner):
    """Prefect's runner, but that SIGTERM ends it as Ctrl-C does."""

    def handle_sigterm(self, *_: Any, **__: Any) -> None:
        """As Ctrl-C, which asyncio makes an orderly end of."""
        signal.raise_signal(signal.SIGINT)


def watch(
    config: Path,
    settings: AuditConfig,
    schedule: IntervalSchedule | CronSchedule,
    drills: IntervalSchedule | None,
    port: int,
    reporter: Reporter,
) -> None:
    """Audit at once, and on a schedule until SIGINT or SIGTERM. Raises OperationError where the
    Prefect server cannot be used.
    """
    # a shell has what it starts in the background ignore SIGINT
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    # where the server goes away, one line of ours says so
    for noisy in ("prefect.FlowRunCancellingObserver", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    try:
        with open_server(port, reporter) as api:
            try:
                _serve(config, settings, schedule, drills, api, reporter)
            except Exception as error:
                if not is_server_gone(error):
                    raise
                raise OperationError(
                    f"no Prefect server answers at {show_place(api)}: "
                    "start it, or unset PREFECT_API_URL"
                ) from None
    except KeyboardInterrupt:
        reporter.note("stopped watching; an audit that was at work is done next time")


def _serve(
    config: Path,
    settings: AuditConfig,
    schedule: IntervalSchedule | CronSchedule,
    drills: IntervalSchedule | None,
    api: str,
    reporter: Reporter,
) -> None:
    deployments = [_make_deployment(audit, config, settings, schedule)]
    if drills is not None:
        deployments.append(_make_deployment(drill, config, settings, drills))
    # one at a time: two audits of a ledger would wait for each other, with two models in memory
    runner = _Runner(limit=1)
    served = [cast(UUID, runner.add_deployment(deployment)) for deployment in deployments]
    # the first at once: people see that it works
    run_deployment(served[0], timeout=0)
    page = show_place(api.removesuffix("/api"))
    reporter.note(
        f"watching {settings.name}: runs, and pages to answer on, at {page}; Ctrl-C ends it"
    )
    try:
        # Prefect prints tracebacks on stdout when the server goes away
        with contextlib.redirect_stdout(io.StringIO()):
            asyncio.run(runner.start())
    except KeyboardInterrupt:
        _end_runs(served)
        raise


def _end_runs(deployments: list[UUID]) -> None:
    """Say what became of runs whose process ended with this one: for the server they would run for
    ever.
    """
    at_work = FlowRunFilter.model_validate({"state": {"type": {"any_": ["PENDING", "RUNNING"]}}})
    ours = DeploymentFilter(id=DeploymentFilterId(any_=deployments))
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=at_work, deployment_filter=ours):
            client.set_flow_run_state(
                run.id, Crashed(message="`poisonwatch watch` was stopped"), force=True
            )


def _make_deployment(
    flow: object, config: Path, settings: AuditConfig, schedule: IntervalSchedule | CronSchedule
) -> RunnerDeployment:
    made: RunnerDeployment = flow.to_deployment(  # type: ignore[attr-defined]
        # these characters, Prefect does not allow in a name
        name=re.sub(r"[/%&<>]", "_", settings.name),
        parameters={"config": str(config.resolve())},
        schedules=[schedule],
        tags=["poisonwatch", f"name:{settings.name}"],
        entrypoint_type=EntrypointType.MODULE_PATH,
        description=f"Served by `poisonwatch watch`: {settings.name}.",
    )
    return made
