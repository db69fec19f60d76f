"""Start an audit from the command line, on either engine."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

from poisonwatch.config import AuditConfig
from poisonwatch.drill import Plan
from poisonwatch.errors import OperationError, PoisonwatchError
from poisonwatch.flows.terminal import Reporter

# A temporary Prefect server takes 7 to 20 s to start on a busy machine; its own patience ends at 20.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")

from prefect.logging.configuration import setup_logging
from prefect.logging.handlers import PrefectConsoleHandler

from poisonwatch.flows.audit import Outcome, audit, audit_inline
from poisonwatch.flows.drill import DrillOutcome, drill, drill_inline
from poisonwatch.runs import new_run_dir

R = TypeVar("R")


class _ExpectedErrors(logging.Filter):
    """Keeps tracebacks of errors that the command line explains in one line off the terminal; the server still gets them."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return (
            record.levelno >= logging.WARNING and not isinstance(error, PoisonwatchError) and "Finished in state" not in record.getMessage()
        )


def run_audit(
    config: Path, settings: AuditConfig, run_dir: Path | None, engine: Literal["prefect", "inline"], quiet: bool, again: bool = False
) -> Outcome:
    """Run the audit of the file `config`, read before as `settings`."""
    reporter = Reporter(quiet=quiet)
    run_dir = run_dir or new_run_dir(config)
    if engine == "inline":
        outcome = audit_inline(settings, run_dir, reporter, again)
    else:
        outcome = _run_flow(lambda: audit(str(config.resolve()), str(run_dir.resolve()), quiet=reporter.quiet, again=again), reporter)
    for trouble in outcome.troubles:
        Reporter().note(f"warning: {trouble}")
    return outcome


def run_drill(config: Path, settings: AuditConfig, plan: Plan, run_dir: Path | None, engine: Literal["prefect", "inline"]) -> DrillOutcome:
    """Run a drill of the audit in the file `config`, read before as `settings`, whose seed may differ from the file's."""
    reporter = Reporter()
    run_dir = run_dir or new_run_dir(config, "drill-")
    if engine == "inline":
        outcome = drill_inline(settings, plan, run_dir, reporter)
    else:
        asked = list(plan.recipes), list(plan.counts), plan.repeats, settings.seed
        outcome = _run_flow(lambda: drill(str(config.resolve()), str(run_dir.resolve()), *asked, quiet=False), reporter)
    for trouble in outcome.troubles:
        Reporter().note(f"warning: {trouble}")
    return outcome


def _run_flow(start: Callable[[], R], reporter: Reporter) -> R:
    setup_logging()  # now, so that the handlers exist; Prefect's own call comes too late for the first messages
    for name in ("root", *logging.Logger.manager.loggerDict):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, PrefectConsoleHandler):
                handler.addFilter(_ExpectedErrors())
    server = os.environ.get("PREFECT_API_URL")
    reporter.note("starting Prefect" + ("" if server else " (a temporary server: 10 to 20 s) ..."))
    try:
        return start()
    except RuntimeError as error:
        if "Failed to reach API" not in str(error):
            raise
        raise OperationError(
            f"no Prefect server answers at PREFECT_API_URL={server}: start it, unset the variable, or use --engine inline"
        ) from error
