"""`poisonwatch watch`: one process that audits on a schedule, with a Prefect server of its own
where none is configured.
"""

import logging
import re
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.settings import (
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_RUNNER_POLL_FREQUENCY,
    temporary_settings,
)
from prefect.types.entrypoint import EntrypointType
from pydantic import ValidationError

from poisonwatch import interrupt
from poisonwatch.concealment import conceal_all
from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError
from poisonwatch.flows.audit import audit
from poisonwatch.flows.drill import drill
from poisonwatch.flows.own_server import OwnServer, hold_signals, open_server
from poisonwatch.flows.prefect_server import (
    describe_server_trouble,
    is_refused,
    is_server_gone,
)
from poisonwatch.flows.probe import probe_new
from poisonwatch.flows.reporter import Reporter
from poisonwatch.flows.run_lines import describe_audit, describe_drill, describe_probes
from poisonwatch.flows.run_process import RunProcess, is_cancelling, start_due_run
from poisonwatch.flows.times import make_cron_error, require_interval, require_times
from poisonwatch.flows.watched_server import WatchedServer
from poisonwatch.liveness.liveness import TELLS_NOBODY, tells_somebody
from poisonwatch.text.redaction import show_place

R = TypeVar("R")


def make_schedule(
    every: timedelta | None, cron: str | None, timezone: str
) -> IntervalSchedule | CronSchedule:
    """The schedule that was asked for. Raises InputError where it is none, or not exactly one is
    given.
    """
    require_times((every, cron, timezone))
    if every is not None:
        return make_interval(every)
    try:
        return CronSchedule(cron=str(cron), timezone=timezone)
    # Prefect's own words are several lines, and name its fields
    except ValidationError:
        raise make_cron_error(str(cron)) from None


def make_interval(every: timedelta) -> IntervalSchedule:
    """An interval that begins at once. Raises InputError where it is too short."""
    require_interval(every)
    # from now, and not from Prefect's own anchor, which would have the first run come any time
    return IntervalSchedule(interval=every, anchor_date=datetime.now(UTC))


def watch(
    config: Path,
    settings: AuditConfig,
    schedule: IntervalSchedule | CronSchedule,
    drills: IntervalSchedule | None,
    port: int,
    reporter: Reporter,
) -> None:
    """Audit at once, and on a schedule until SIGINT or SIGTERM. Raises InputError where another
    audit has the name on the same Prefect server, OperationError where that one cannot be used.
    """
    # a shell has what it starts in the background ignore SIGINT
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    # where the server goes away, one line of ours says so
    logging.getLogger("prefect").setLevel(logging.CRITICAL)
    secrets = settings.find_secrets()
    try:
        with (
            interrupt.unwrapped(),
            conceal_all(secrets),
            open_server(port, reporter) as (api, own),
        ):
            try:
                _serve(config, settings, schedule, drills, api, own, reporter)
            except Exception as error:
                if not is_server_gone(error) and not is_refused(error):
                    raise
                trouble = describe_server_trouble(error, api)
                raise OperationError(f"{trouble}: see to it, or unset PREFECT_API_URL") from None
    except KeyboardInterrupt:
        reporter.note("stopped watching; an audit that was at work is done next time")


def _serve(
    config: Path,
    settings: AuditConfig,
    schedule: IntervalSchedule | CronSchedule,
    drills: IntervalSchedule | None,
    api: str,
    own: OwnServer | None,
    reporter: Reporter,
) -> None:
    deployments = [make_deployment(audit, config, settings, schedule)]
    if drills is not None:
        deployments.append(make_deployment(drill, config, settings, drills))
    if settings.probe.checkpoints is not None:
        often = make_interval(settings.probe.every)
        deployments.append(make_deployment(probe_new, config, settings, often))
    # a server that is away is asked again in a moment anyway
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 1}),
        get_client(sync_client=True) as client,
    ):
        server = WatchedServer(client, api, own, deployments, reporter)
        server.register()
        for line in describe_watch(settings, api):
            reporter.note(line)
        _Watch(client, server, config, reporter).keep()


def describe_watch(settings: AuditConfig, api: str) -> list[str]:
    """What is said where watching begins: how it ends, where its runs are, and whether nobody would
    hear of audits that do not come.
    """
    page = show_place(api.removesuffix("/api"))
    lines = [f"watching {settings.name}: Ctrl-C ends it; runs, and pages to answer on, at {page}"]
    if not tells_somebody(settings):
        lines.append(TELLS_NOBODY)
    return lines


class _Watch:
    """Starts what is due, one run after the other: two audits of a ledger would wait for each
    other, with two models in memory.
    """

    def __init__(
        self, client: SyncPrefectClient, server: WatchedServer, config: Path, reporter: Reporter
    ) -> None:
        self._client = client
        self._server = server
        self._config = config
        self._reporter = reporter
        self._at_work: RunProcess | None = None
        # runs that ended while no server answered
        self._unsettled: list[RunProcess] = []
        # seconds between two looks at the server
        self._pause = float(PREFECT_RUNNER_POLL_FREQUENCY.value())

    def keep(self) -> None:
        """Until a signal, which ends the run at work, and no other."""
        try:
            while True:
                in_order = self._server.is_in_order()
                if self._at_work is not None:
                    self._look_after(self._at_work, in_order)
                elif in_order:
                    self._settle_others()
                    self._start()
                else:
                    time.sleep(self._pause)
        finally:
            if self._at_work is not None:
                self._stop(self._at_work)

    def _start(self) -> None:
        # held, so that a run is either another's, or ours and ended by us
        with hold_signals():
            self._at_work = self._ask(lambda: start_due_run(self._client, self._server.ids))
        if self._at_work is None:
            time.sleep(self._pause)

    def _look_after(self, run: RunProcess, in_order: bool) -> None:
        ended = run.wait(self._pause)
        if not ended and in_order and self._ask(lambda: is_cancelling(self._client, run.id)):
            self._ask(lambda: run.cancel(self._client))
            ended = True
        if ended:
            self._at_work = None
            if in_order:
                self._settle(run)
            else:
                self._unsettled.append(run)

    def _settle_others(self) -> None:
        runs, self._unsettled = self._unsettled, []
        for run in runs:
            self._settle(run)

    def _settle(self, run: RunProcess) -> None:
        try:
            state = run.settle(self._client)
        except Exception as error:
            if not is_server_gone(error) and not is_refused(error):
                raise
            # told once the server says how it ended
            self._unsettled.append(run)
        else:
            self._tell_of(run, state)

    def _tell_of(self, run: RunProcess, state: State | None) -> None:
        flow = self._server.find_flow(run.deployment)
        line: str | None
        if flow == drill.name:
            line = describe_drill(state, began=run.began, took=run.took)
        elif flow == probe_new.name:
            line = describe_probes(self._config, state, began=run.began, took=run.took)
        else:
            line = describe_audit(self._config, str(run.id), state, began=run.began, took=run.took)
        # Most looks for checkpoints find none.
        if line is not None:
            self._reporter.note(line)

    def _ask(self, ask: Callable[[], R]) -> R | None:
        """What the server answers; None where it does not, which is said at the next look at it, or
        where it does not know any more what it is asked about.
        """
        try:
            return ask()
        except ObjectNotFound:
            return None
        except Exception as error:
            if not is_server_gone(error) and not is_refused(error):
                raise
            return None

    def _stop(self, run: RunProcess) -> None:
        # for the server it would be at work for ever
        with hold_signals():
            run.end()
            self._ask(lambda: run.settle(self._client, why="`poisonwatch watch` was stopped"))


def make_deployment(
    flow: object, config: Path, settings: AuditConfig, schedule: IntervalSchedule | CronSchedule
) -> RunnerDeployment:
    """The deployment of a flow for an audit file: registered anew it replaces what was there."""
    made: RunnerDeployment = flow.to_deployment(  # type: ignore[attr-defined]
        # these characters, Prefect does not allow in a name
        name=re.sub(r"[/%&<>]", "_", settings.name),
        parameters={"config": str(config.resolve())},
        schedules=[schedule],
        # who starts to watch wants audits, whatever was before
        paused=False,
        tags=["poisonwatch", f"name:{settings.name}"],
        entrypoint_type=EntrypointType.MODULE_PATH,
        description=f"Served by `poisonwatch watch`: {settings.name}.",
    )
    return made
