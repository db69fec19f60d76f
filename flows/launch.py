"""Start an audit from the command line, on either engine."""

import logging
import os
from pathlib import Path
from typing import Literal

from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError, PoisonwatchError
from poisonwatch.flows.terminal import Reporter

# A temporary Prefect server takes 7 to 20 s to start on a busy machine; its own patience ends at 20.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")

from prefect.logging.configuration import setup_logging
from prefect.logging.handlers import PrefectConsoleHandler

from poisonwatch.flows.audit import Outcome, audit, audit_inline
from poisonwatch.runs import new_audit_id


class _ExpectedErrors(logging.Filter):
    """Keeps tracebacks of errors that the command line explains in one line off the terminal; the server still gets them."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return (
            record.levelno >= logging.WARNING and not isinstance(error, PoisonwatchError) and "Finished in state" not in record.getMessage()
        )


def run_audit(config: Path, settings: AuditConfig, run_dir: Path | None, engine: Literal["prefect", "inline"], quiet: bool) -> Outcome:
    """Run the audit of the file `config`, read before as `settings`."""
    reporter = Reporter(quiet=quiet)
    run_dir = run_dir or config.parent / "runs" / new_audit_id()
    outcome = audit_inline(settings, run_dir, reporter) if engine == "inline" else _run_flow(config, run_dir, reporter)
    for trouble in outcome.troubles:
        Reporter().note(f"warning: {trouble}")
    return outcome


def _run_flow(config: Path, run_dir: Path, reporter: Reporter) -> Outcome:
    setup_logging()  # now, so that the handlers exist; Prefect's own call comes too late for the first messages
    for name in ("root", *logging.Logger.manager.loggerDict):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, PrefectConsoleHandler):
                handler.addFilter(_ExpectedErrors())
    server = os.environ.get("PREFECT_API_URL")
    reporter.note("starting Prefect" + ("" if server else " (a temporary server: 10 to 20 s) ..."))
    try:
        return audit(str(config.resolve()), str(run_dir.resolve()), quiet=reporter.quiet)
    except RuntimeError as error:
        if "Failed to reach API" not in str(error):
            raise
        raise OperationError(
            f"no Prefect server answers at PREFECT_API_URL={server}: start it, unset the variable, or use --engine inline"
        ) from error
