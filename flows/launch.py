"""Start an audit, a drill or a probe from the command line, with Prefect or without.

Where Prefect's server is down, or goes down, the work goes on without it.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from poisonwatch import interrupt
from poisonwatch.config import AuditConfig
from poisonwatch.drills.results import DrillPlan
from poisonwatch.errors import PoisonwatchError
from poisonwatch.flows.reporter import Reporter
from poisonwatch.flows.stages import DRILL_STAGES
from poisonwatch.ledger.history import find_by_run_dir
from poisonwatch.ledger.ledger import Ledger

# Set before Prefect is imported, which reads them once; what a user has set stays.
# A temporary Prefect server takes 7 to 20 s to start on a busy machine; its own patience ends at
# 20.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")
# where the server goes away, it complains for each event
os.environ.setdefault("PREFECT_LOGGING_INTERNAL_LEVEL", "CRITICAL")
# a server that is down is noticed in seconds; the audit goes on without it
os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "1")

import httpx
from prefect.exceptions import PrefectHTTPStatusError
from prefect.logging.configuration import setup_logging
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.settings import PREFECT_HOME

from poisonwatch.flows.audit import audit, audit_inline
from poisonwatch.flows.drill import DrillOutcome, drill, drill_inline
from poisonwatch.flows.engine import AuditOutcome
from poisonwatch.flows.homes import has_room
from poisonwatch.flows.prefect_server import (
    describe_server_trouble,
    is_refused,
    is_server_gone,
)
from poisonwatch.flows.prefect_settings import find_prefect_api
from poisonwatch.flows.probe import (
    ProbedFolder,
    ProbeOutcome,
    probe,
    probe_inline,
    probe_new,
    probe_new_inline,
)
from poisonwatch.probing.checkpoint_choice import ProbedCheckpoint
from poisonwatch.run_directory.layout import choose_run_dir

R = TypeVar("R")

EXPECTED = (PoisonwatchError, httpx.TransportError)
# Loggers of what our flows and tasks do, rather than Prefect itself.
RUNS = ("prefect.engine", "prefect.flow_runs", "prefect.task_runs")


@dataclass
class Connection:
    """Whether the Prefect server went away. Then what Prefect still has to send would keep the
    process for minutes when it ends.
    """

    lost: bool = False


connection = Connection()


class _ToldErrors(logging.Filter):
    """Keeps tracebacks of errors that the command line tells of in one line off the terminal; the
    server still gets them.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is shown: of warnings and errors, those that nobody else explains."""
        if record.levelno < logging.WARNING:
            return False
        # whatever ends a task or a flow ends the command, or is one of its warnings
        if record.exc_info and record.name.startswith(RUNS):
            return False
        if record.exc_info and isinstance(record.exc_info[1], EXPECTED):
            return False
        # Prefect says the same once more as "Finished in state Failed(...)", and calls a signal a
        # crash
        said = record.getMessage()
        return "Finished in state" not in said and "Execution was aborted by" not in said


def run_audit(
    config: Path,
    settings: AuditConfig,
    run_dir: Path | None,
    engine: Literal["prefect", "inline"],
    quiet: bool,
    again: bool = False,
) -> AuditOutcome:
    """Run the audit of the file `config`, read before as `settings`. Warnings go to stderr, also
    where the rest is quiet. Without a `run_dir` one is made where a row is new.
    """
    reporter = Reporter(quiet=quiet)
    skip_empty = run_dir is None
    run_dir = run_dir or choose_run_dir(config)
    if engine == "inline":
        outcome = audit_inline(settings, run_dir, reporter, again, skip_empty)
    else:
        # whole paths: a flow run may have another working directory
        file, folder = config.resolve(), run_dir.resolve()
        outcome = _run_flow(
            lambda: audit(
                str(file),
                str(folder),
                quiet=reporter.quiet,
                again=again,
                skip_empty=skip_empty,
            ),
            lambda: _finish_inline(settings, folder, reporter, again, skip_empty),
            reporter,
        )
    _note_warnings(outcome.warnings)
    left = None if outcome.summary.get("nothing_new") else str(outcome.run_dir)
    reporter.file.finish(
        {
            "run_dir": left,
            "audit_id": outcome.summary["audit_id"],
            "counts": dict(outcome.summary["counts"]),
        }
    )
    return outcome


def run_drill(
    config: Path,
    settings: AuditConfig,
    plan: DrillPlan,
    run_dir: Path | None,
    engine: Literal["prefect", "inline"],
) -> DrillOutcome:
    """Run a drill of the audit in the file `config`, read before as `settings`, whose seed may
    differ from the file's.
    """
    reporter = Reporter(stages=DRILL_STAGES)
    run_dir = run_dir or choose_run_dir(config, "drill-")
    if engine == "inline":
        outcome = drill_inline(settings, plan, run_dir, reporter)
    else:
        file, folder = config.resolve(), run_dir.resolve()
        outcome = _run_flow(
            # a flow's parameters are stored by the server, as JSON: lists and numbers, no plan
            lambda: drill(
                str(file),
                str(folder),
                recipes=list(plan.recipes),
                counts=list(plan.counts),
                repeats=plan.repeats,
                seed=settings.seed,
                quiet=False,
            ),
            lambda: drill_inline(settings, plan, folder, reporter),
            reporter,
        )
    _note_warnings(outcome.warnings)
    sentences = [power.sentence for power in outcome.drill.headline]
    reporter.file.finish({"run_dir": str(outcome.run_dir), "sentences": sentences})
    return outcome


def run_probe(
    config: Path,
    settings: AuditConfig,
    checkpoint: ProbedCheckpoint,
    engine: Literal["prefect", "inline"],
    quiet: bool,
) -> ProbeOutcome:
    """Probe a checkpoint of the model of the audit in the file `config`, read before as
    `settings`.
    """
    reporter = Reporter(quiet=quiet)
    if engine == "inline":
        outcome = probe_inline(settings, checkpoint, reporter)
    else:
        release = checkpoint.release
        outcome = _run_flow(
            lambda: probe(
                str(config.resolve()),
                model=_resolve_place(checkpoint.model),
                adapter=_resolve_place(checkpoint.adapter),
                release=str(release.resolve()) if release else None,
                trusted=_resolve_place(checkpoint.trusted),
                quiet=quiet,
            ),
            lambda: probe_inline(settings, checkpoint, reporter),
            reporter,
        )
    _note_warnings(outcome.warnings)
    return outcome


def run_probe_new(
    config: Path, settings: AuditConfig, engine: Literal["prefect", "inline"], quiet: bool
) -> list[ProbedFolder]:
    """Probe the checkpoints of the audit in the file `config`, read before as `settings`, that were
    not probed yet.
    """
    reporter = Reporter(quiet=quiet)
    if engine == "inline":
        probed = probe_new_inline(settings, reporter)
    else:
        probed = _run_flow(
            lambda: probe_new(str(config.resolve()), quiet=quiet, strict=False),
            lambda: probe_new_inline(settings, reporter),
            reporter,
        )
    warnings = [text for each in probed if each.outcome for text in each.outcome.warnings]
    _note_warnings(list(dict.fromkeys(warnings)))
    return probed


def _resolve_place(place: str | None) -> str | None:
    """A folder's whole path, since a flow run may have another working directory; a hub id as it
    is.
    """
    return str(Path(place).resolve()) if place and Path(place).is_dir() else place


def _note_warnings(warnings: list[str]) -> None:
    # a reporter of its own, that is not quiet: --quiet leaves out all but errors and these
    reporter = Reporter()
    for warning in warnings:
        reporter.note(f"warning: {warning}")


def _finish_inline(
    settings: AuditConfig, run_dir: Path, reporter: Reporter, again: bool, skip_empty: bool
) -> AuditOutcome:
    """Without Prefect, what a flow run left undone: nothing, if its audit came to its results."""
    lock = settings.name, reporter.note_waiting
    with Ledger.at(settings.state) as ledger, ledger.lock(*lock):
        past = find_by_run_dir(ledger, run_dir)
    if past is None:
        return audit_inline(settings, run_dir, reporter, again, skip_empty)
    return AuditOutcome.from_past(past, settings, [])


def _run_flow(start: Callable[[], R], without: Callable[[], R], reporter: Reporter) -> R:
    """Run a flow, and `without` Prefect where its server is down, goes down or refuses us."""
    _quieten_prefect()
    server = os.environ.get("PREFECT_API_URL")
    home = Path(PREFECT_HOME.value())
    if not find_prefect_api() and not has_room(home):
        # it would end as it starts, and print why at length
        _note_warnings([f"no room for a temporary Prefect server in {home}: going on without it"])
        return without()
    if server:
        reporter.note("starting Prefect")
    else:
        reporter.note("starting Prefect (a temporary server: 10 to 20 s) ...")
    try:
        return start()
    except (RuntimeError, httpx.TransportError, PrefectHTTPStatusError) as error:
        if not is_server_gone(error) and not is_refused(error):
            raise
        connection.lost = True
        # Ctrl-C reaches a temporary server, too, as it is of the same group: that one went away
        # for a reason, and nothing goes on
        ended_by = interrupt.find_interrupt(error)
        if ended_by is not None:
            raise ended_by from None
        trouble = describe_server_trouble(error, server or "its temporary address")
        _note_warnings(
            [f"{trouble}: going on without it; `poisonwatch sync` shows the audit there later"]
        )
        return without()


def _quieten_prefect() -> None:
    """Only what nobody else explains is shown of Prefect's log."""
    # now, so that the handlers exist; Prefect's own call comes too late for the first messages
    setup_logging()
    for name in ("root", *logging.Logger.manager.loggerDict):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, PrefectConsoleHandler):
                handler.addFilter(_ToldErrors())
    # where the server goes away, one line of ours says so
    logging.getLogger("prefect.events.clients").setLevel(logging.CRITICAL)
    # and what the log could not be sent of is written to stderr unless this is off
    logging.raiseExceptions = False
