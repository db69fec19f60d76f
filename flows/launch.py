"""Start an audit from the command line, on either engine."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from poisonwatch.config import AuditConfig
from poisonwatch.drills.results import DrillPlan
from poisonwatch.errors import PoisonwatchError
from poisonwatch.flows import interrupt
from poisonwatch.flows.reporter import Reporter
from poisonwatch.ledger.history import find_by_run_dir
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.text.redaction import redact_url

# A temporary Prefect server takes 7 to 20 s to start on a busy machine; its own patience ends at
# 20.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")
os.environ.setdefault(
    "PREFECT_LOGGING_INTERNAL_LEVEL", "CRITICAL"
)  # where the server goes away, it complains for each event
os.environ.setdefault(
    "PREFECT_CLIENT_MAX_RETRIES", "1"
)  # a server that is down is noticed in seconds; the audit goes on without it

import httpx
from prefect.exceptions import PrefectHTTPStatusError
from prefect.logging.configuration import setup_logging
from prefect.logging.handlers import PrefectConsoleHandler

from poisonwatch.flows.audit import audit, audit_inline
from poisonwatch.flows.drill import DrillOutcome, drill, drill_inline
from poisonwatch.flows.engine import AuditOutcome
from poisonwatch.run_directory.layout import choose_run_dir

R = TypeVar("R")


@dataclass
class Connection:
    """Whether the Prefect server went away. Then what Prefect still has to send would keep the
    process for minutes when it ends.
    """

    lost: bool = False


connection = Connection()


class _ExpectedErrors(logging.Filter):
    """Keeps tracebacks of errors that the command line explains in one line off the terminal; the
    server still gets them.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        expected = (
            isinstance(error, PoisonwatchError | httpx.TransportError)
            or "Finished in state" in record.getMessage()
        )
        return record.levelno >= logging.WARNING and not expected


def run_audit(
    config: Path,
    settings: AuditConfig,
    run_dir: Path | None,
    engine: Literal["prefect", "inline"],
    quiet: bool,
    again: bool = False,
) -> AuditOutcome:
    """Run the audit of the file `config`, read before as `settings`."""
    reporter = Reporter(quiet=quiet)
    run_dir = run_dir or choose_run_dir(config)
    if engine == "inline":
        outcome = audit_inline(settings, run_dir, reporter, again)
    else:
        place = run_dir.resolve()
        outcome = _run_flow(
            lambda: audit(str(config.resolve()), str(place), quiet=reporter.quiet, again=again),
            lambda: _finish_inline(settings, place, reporter, again),
            reporter,
        )
    for trouble in outcome.warnings:
        Reporter().note(f"warning: {trouble}")
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
    reporter = Reporter()
    run_dir = run_dir or choose_run_dir(config, "drill-")
    if engine == "inline":
        outcome = drill_inline(settings, plan, run_dir, reporter)
    else:
        asked = list(plan.recipes), list(plan.counts), plan.repeats, settings.seed
        place = run_dir.resolve()
        outcome = _run_flow(
            lambda: drill(str(config.resolve()), str(place), *asked, quiet=False),
            lambda: drill_inline(settings, plan, place, reporter),
            reporter,
        )
    for trouble in outcome.warnings:
        Reporter().note(f"warning: {trouble}")
    return outcome


def _server_is_gone(error: Exception) -> bool:
    """Rather than something of ours going wrong: nobody answers, or what answers is out of order."""
    if isinstance(error, PrefectHTTPStatusError):
        return error.response.is_server_error
    return isinstance(error, httpx.TransportError) or "Failed to reach API" in str(error)


def _finish_inline(
    settings: AuditConfig, run_dir: Path, reporter: Reporter, again: bool
) -> AuditOutcome:
    """Without Prefect, what a flow run left undone: nothing, where its audit came to its results."""
    with Ledger.at(settings.state) as ledger, ledger.alone(reporter.note_waiting):
        past = find_by_run_dir(ledger, run_dir)
    return (
        audit_inline(settings, run_dir, reporter, again)
        if past is None
        else AuditOutcome.of(past, settings, [])
    )


def _run_flow(start: Callable[[], R], without: Callable[[], R], reporter: Reporter) -> R:
    """Run a flow, and `without` Prefect where its server is down, or goes down."""
    # now, so that the handlers exist; Prefect's own call comes too late for the first messages
    setup_logging()
    for name in ("root", *logging.Logger.manager.loggerDict):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, PrefectConsoleHandler):
                handler.addFilter(_ExpectedErrors())
    logging.getLogger("prefect.events.clients").setLevel(logging.CRITICAL)
    server = os.environ.get("PREFECT_API_URL")
    reporter.note("starting Prefect" + ("" if server else " (a temporary server: 10 to 20 s) ..."))
    try:
        return start()
    except (RuntimeError, httpx.TransportError, PrefectHTTPStatusError) as error:
        if not _server_is_gone(error):
            raise
        connection.lost = True
        if interrupt.was_interrupted(error):
            raise KeyboardInterrupt from None
        Reporter().note(
            f"warning: no Prefect server answers at {redact_url(server or 'its temporary address')}: going on without it; "
            "`poisonwatch sync` shows the audit there later"
        )
        return without()
