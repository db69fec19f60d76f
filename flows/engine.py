"""How stages are called: as Prefect tasks, or as the plain functions inside them, each timed.

The list of stages itself is in `flows/audit.py` and `flows/drill.py`, and does not know which.
"""

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from poisonwatch import interrupt
from poisonwatch.atomic import read_jsonl
from poisonwatch.concealment import guard
from poisonwatch.config import AuditConfig
from poisonwatch.detection.detection import Detection
from poisonwatch.errors import PoisonwatchError
from poisonwatch.examples import Rejection
from poisonwatch.failures import Attempts, tell_failures
from poisonwatch.flows.prefect_server import (
    describe_server_trouble,
    is_refused,
    is_server_gone,
)
from poisonwatch.flows.prefect_settings import find_prefect_api
from poisonwatch.ledger.history import PastAudit
from poisonwatch.run_directory.checksums import require_unchanged
from poisonwatch.run_directory.timing import StageClock
from poisonwatch.tasks.options import Step
from poisonwatch.text.secrets import Secrets

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class AuditOutcome:
    """What an audit found, where it is, and what went wrong beside it (a picture that could not be
    drawn, a tracking server or an alert target that was down).

    Where the audit was done by an earlier attempt, `detection` (what was found) and `rejected`
    are empty: they are in the run directory. One without new rows may have left none.
    """

    run_dir: Path
    summary: Mapping[str, Any]
    detection: Detection
    rejected: list[Rejection]
    warnings: list[str]

    @classmethod
    def from_past(cls, past: PastAudit, config: AuditConfig, warnings: list[str]) -> "AuditOutcome":
        """What an audit left that was done before."""
        return cls.of_summary(past.run_dir, past.summary, config, warnings)

    @classmethod
    def of_summary(
        cls, run_dir: Path, summary: Mapping[str, Any], config: AuditConfig, warnings: list[str]
    ) -> "AuditOutcome":
        """What a summary alone tells."""
        nothing = Detection.empty(config.detection)
        return cls(run_dir, summary, nothing, [], [*tell_failures(summary), *warnings])

    @property
    def flags(self) -> list[dict[str, Any]]:
        """The lines of the run directory's `flags.jsonl`. Raises RunError where it is not what the
        audit wrote.
        """
        if not self.summary["counts"]["flagged"]:
            return []
        require_unchanged(self.run_dir, "flags.jsonl")
        return list(read_jsonl(self.run_dir / "flags.jsonl"))


class Engine:
    """Calls tasks, timing each: through Prefect, or `inline` as plain functions, not retried.

    `enter` is told the name of each task before it begins.
    `attempts` has what failed within tasks, beside the verdicts; `warnings` has tasks that failed,
    and `failed` their last errors by name.
    No error that leaves a task holds any of the `secrets`: Prefect's server stores what it says.
    """

    def __init__(
        self,
        inline: bool,
        secrets: Secrets | None = None,
        enter: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.inline = inline
        self.enter = enter
        self.clock = StageClock()
        self.attempts = Attempts()
        self.attempts.secrets = secrets or Secrets()
        self.warnings: list[str] = []
        self.failed: dict[str, Exception] = {}

    def __call__(self, task: Step[..., R], *args: Any) -> R:
        """Call a task, and note what it cost under its name."""
        # before each stage, since Prefect's own callbacks can lose a Ctrl-C
        interrupt.raise_if_interrupted()
        self.enter(task.name)
        function: Callable[..., R] = guard(task.fn, self.attempts.secrets)
        if not self.inline:
            guarded = copy(task.prefect_task)
            guarded.fn = function
            function = guarded
        with self.clock.stage(task.name):
            return function(*args)

    def attempt(self, task: Step[..., R], *args: Any) -> R | None:
        """Call a task that the audit can do without; its failure is kept in `warnings`, once."""
        try:
            return self(task, *args)
        except PoisonwatchError as error:
            self.failed[task.name] = error
            warning = str(error)
        except Exception as error:
            # Prefect's own server, and none of the task's: whoever started the flow goes on
            # without it
            if not self.inline and is_server_gone(error):
                raise
            self.failed[task.name] = error
            why = self.attempts.describe(error)
            if is_refused(error):
                why = describe_server_trouble(error, find_prefect_api())
            warning = f"{task.name} failed: {why}"
        # several tasks meet the same server that is down: one line is enough
        if warning not in self.warnings:
            self.warnings.append(warning)
        return None
