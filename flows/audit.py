"""The audit: pull, validate, attribute, judge, record, alert.

`run_stages` is the whole of it. An engine calls the stages: as Prefect tasks, or as the plain functions inside them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from prefect import Task, flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from poisonwatch.config import AuditConfig, load_config
from poisonwatch.errors import OperationError
from poisonwatch.examples import Rejection
from poisonwatch.flows.terminal import Reporter
from poisonwatch.runs import new_audit_id, run_folder, summarise
from poisonwatch.sentinels import load_sentinels
from poisonwatch.stages import StageClock
from poisonwatch.tasks.alerts import alert
from poisonwatch.tasks.attribution import add_probes, check_sentinels, fit_operators, gather_evidence, judge, load_model, recover, screen
from poisonwatch.tasks.data import pull, pull_reference, validate
from poisonwatch.tasks.results import record
from poisonwatch.tasks.tracking import open_run, track
from poisonwatch.verdicts import Verdicts

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an audit found, where it is, and what went wrong beside it (a tracking server or an alert target that was down)."""

    run_dir: Path
    summary: dict[str, Any]
    verdicts: Verdicts
    rejected: list[Rejection]
    troubles: list[str]


class Engine:
    """Calls tasks, timing each: through Prefect, or `inline`, as plain functions without retries."""

    def __init__(self, inline: bool) -> None:
        self.inline = inline
        self.clock = StageClock()
        self.troubles: list[str] = []

    def __call__(self, task: Task[..., R], *args: Any) -> R:
        function: Callable[..., R] = task.fn if self.inline else task
        with self.clock.stage(task.name):
            return function(*args)

    def attempt(self, task: Task[..., R], *args: Any) -> R | None:
        """Call a task that the audit can do without; its failure is kept in `troubles`."""
        try:
            return self(task, *args)
        except OperationError as error:
            self.troubles.append(str(error))
            return None


def run_stages(config: AuditConfig, run_dir: Path, engine: Engine, reporter: Reporter) -> Outcome:
    """One audit, start to end."""
    audit_id = new_audit_id()
    sentinels = load_sentinels(config.sentinels)
    with run_folder(run_dir) as folder:
        rows = engine(pull, config.source)
        new, rejected = engine(validate, rows, config.validation)
        reference, unfit = engine(pull_reference, config.reference, config.validation, new)
        reporter.trusted(len(reference), len(unfit))
        model = engine(load_model, config.model)
        problems = engine(check_sentinels, model, sentinels, config.stride)
        reporter.problems(problems)
        findings = engine(screen, new, reference, model, config.screens)
        sentinels = engine(add_probes, sentinels, new, reference, config.probes)
        fitted = engine(fit_operators, model, new + reference, config, reporter.progress)
        influence, fitted = engine(recover, fitted, sentinels, config, reporter.progress)
        verdicts = engine(judge, influence, new, config.decision, findings)
        evidence = engine(gather_evidence, fitted, influence, verdicts, sentinels, config, reporter.progress)
        run_id = engine.attempt(open_run, config, audit_id)
        summary = summarise(
            config, audit_id, len(rows), rejected, reference, problems, fitted, influence, verdicts, model.fingerprint, engine.clock.costs
        )
        summary["mlflow_run_id"] = run_id
        engine(record, folder, config, summary, fitted, verdicts, evidence, rejected)
        if run_id:
            engine.attempt(track, config, summary, verdicts, folder, fitted.curve)
    engine.attempt(alert, config.alerts, config.name, verdicts, str(run_dir / "report.html"))
    return Outcome(run_dir, summary, verdicts, rejected, engine.troubles)


def audit_inline(config: AuditConfig, run_dir: Path, reporter: Reporter | None = None) -> Outcome:
    """Run an audit without Prefect: for tests, notebooks and quick looks."""
    return run_stages(config, run_dir, Engine(inline=True), reporter or Reporter(quiet=True))


@flow(name="poisonwatch-audit", persist_result=False)
def audit(config: str, run_dir: str, quiet: bool = True) -> Outcome:
    """Run the audit described by the file `config` as a Prefect flow, leaving its results in `run_dir`."""
    settings = load_config(config)
    outcome = run_stages(settings, Path(run_dir), Engine(inline=False), Reporter(quiet=quiet))
    publish(settings, outcome)
    for trouble in outcome.troubles:
        get_run_logger().warning(trouble)
    return outcome


def publish(config: AuditConfig, outcome: Outcome) -> None:
    """The flags as Prefect artifacts. Row text stays out: the UI renders Markdown, and row text is hostile."""
    key = f"flags-{_artifact_key(config.name)}"
    counts = outcome.summary["counts"]
    table = [
        {
            "source": f.example.source,
            "row": f.example.position,
            "panel": f.panel,
            "sentinel": f.sentinel.id,
            "score": round(f.score, 2),
            "q": float(f"{f.q_value:.2g}"),
            "example": f.example.id[:16],
        }
        for f in outcome.verdicts.flags
    ]
    create_table_artifact(key=key, table=table, description=f"{counts['flagged']} of {counts['new']} new rows flagged")
    panels = [f"| {_plain(p['name'])} | {p['flagged']} | {p['largest_score']:.1f} |" for p in outcome.summary["panels"]]
    lines = [
        f"# {counts['flagged']} of {counts['new']} new rows flagged",
        "",
        "| panel | flagged | largest score |",
        "|---|---|---|",
        *panels,
    ]
    lines += ["", f"Report: `{outcome.run_dir / 'report.html'}`", f"MLflow run: `{outcome.summary['mlflow_run_id']}`"]
    create_markdown_artifact(key=f"audit-{_artifact_key(config.name)}", markdown="\n".join(lines))


def _plain(text: str) -> str:
    return "".join(c if c.isalnum() or c in " -_." else "_" for c in text)


def _artifact_key(name: str) -> str:
    """Prefect allows lower-case letters, digits and dashes."""
    return "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in name.lower()).split()) or "audit"
