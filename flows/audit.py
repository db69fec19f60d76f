"""The audit: pull, validate, attribute, judge, record, alert.

`run_stages` is the whole of it. An engine calls the stages: as Prefect tasks, or as the plain
functions inside them.
"""

from datetime import UTC, datetime
from pathlib import Path

from prefect import flow, get_run_logger, runtime

from poisonwatch.atomic import open_run_folder
from poisonwatch.checkpoints.key import compute_checkpoint_key
from poisonwatch.checkpoints.store import CheckpointStore
from poisonwatch.config import AuditConfig, load_config
from poisonwatch.detection.detect import Detection
from poisonwatch.examples import AuditRows
from poisonwatch.flows.engine import AuditOutcome, Engine
from poisonwatch.flows.pause import ask_for_verdict
from poisonwatch.flows.reporter import Reporter
from poisonwatch.integrations.mlflow.system_metrics import sample_system_metrics
from poisonwatch.ledger.batches import hash_checks
from poisonwatch.ledger.history import find_by_flow_run
from poisonwatch.ledger.ledger import Ledger, Version
from poisonwatch.ledger.outbox import MLFLOW, PREFECT
from poisonwatch.model.files import ModelFiles
from poisonwatch.reports.summary import AttributionResult, summarise
from poisonwatch.run_directory.layout import choose_run_dir, make_audit_id
from poisonwatch.sentinels.sentinel import Sentinel, compute_sentinels_version, load_sentinels
from poisonwatch.tasks.alerts import compose_alerts, deliver
from poisonwatch.tasks.attribution import (
    add_probes,
    check_sentinels,
    find_model,
    fit_operators,
    gather_evidence,
    judge,
    load_model,
    recover,
    screen,
)
from poisonwatch.tasks.data import choose, pull, pull_reference, validate
from poisonwatch.tasks.publishing import publish
from poisonwatch.tasks.results import record
from poisonwatch.tasks.reviews import queue_reviews, read_reviews
from poisonwatch.tasks.tracking import open_run, track


def run_audit_stages(
    config: AuditConfig,
    run_dir: Path,
    engine: Engine,
    reporter: Reporter,
    again: bool = False,
    flow_run: str | None = None,
) -> AuditOutcome:
    """One audit, start to end."""
    audit_id = make_audit_id()
    sentinels = load_sentinels(config.sentinels)
    with Ledger.at(config.state) as ledger, ledger.alone(reporter.note_waiting):
        taken = engine(pull, ledger, config, reporter.progress)
        files = engine(find_model, config.model)
        version = Version(files.fingerprint, compute_sentinels_version(sentinels))
        report_to = [MLFLOW, *([PREFECT] if flow_run else [])]
        with (
            ledger.audit(audit_id, config.name, version, run_dir, report_to, flow_run) as number,
            open_run_folder(run_dir) as folder,
        ):
            tracked = engine.attempt(open_run, config, audit_id) or {}
            if config.review and tracked:
                engine.attempt(read_reviews, ledger, config)
            with sample_system_metrics(config, tracked.get("mlflow_run_id")):
                batch = engine(choose, ledger, config, version, again)
                valid = engine(validate, batch.rows, config, ledger)
                reference = engine(
                    pull_reference, config, valid.examples, ledger.trusted(config.name)
                )
                reporter.rows(taken, len(batch), valid, reference)
                rows = AuditRows(tuple(valid.examples), tuple(reference.examples))
                found = attribute(config, files, sentinels, rows, engine, reporter)
                counts = {
                    "pulled": len(batch),
                    "rejected": len(valid.rejected),
                    "reference": len(reference.examples),
                    "read": taken.read,
                }
                summary = {
                    **summarise(config, audit_id, version, counts, found, engine.clock.costs),
                    **tracked,
                }
                engine(record, ledger, folder, config, summary, found, valid)
                alerts = engine(compose_alerts, ledger, config, summary, found, run_dir)
            ledger.commit(
                number,
                batch,
                valid.examples,
                valid.rejected,
                found.verdicts.flags,
                hash_checks(config.validation),
                summary,
                alerts,
                found.groups,
            )
            found.work.clear()
        notify_all(ledger, config, engine, prefect=flow_run is not None)
    return AuditOutcome(run_dir, summary, found.verdicts, valid.rejected, engine.warnings)


def notify_all(
    ledger: Ledger, config: AuditConfig, engine: Engine, prefect: bool
) -> dict[str, int | None]:
    """Tell everybody who is still to be told of this audit, or of earlier ones: how many of what,
    by task.

    What fails is None; it stays owed, and is tried again next time.
    """
    told = {
        "deliver": engine.attempt(deliver, ledger, config),
        "track": engine.attempt(track, ledger, config),
    }
    if config.review and told["track"] is not None:
        told["queue_reviews"] = engine.attempt(queue_reviews, ledger, config)
    if prefect:
        told["publish"] = engine.attempt(publish, ledger, config)
    return told


def attribute(
    config: AuditConfig,
    files: ModelFiles,
    sentinels: list[Sentinel],
    rows: AuditRows,
    engine: Engine,
    reporter: Reporter,
) -> AttributionResult:
    """From rows to verdicts; with nothing new, the model is not even loaded."""
    if not rows.new:
        return AttributionResult(Detection.empty(config.decision))
    model = engine(load_model, config.model, files)

    def said(text: str) -> None:
        reporter.note(text)
        if not engine.inline:
            get_run_logger().info(text)

    work = CheckpointStore.open(
        compute_checkpoint_key(config, files, model, sentinels, rows),
        said,
        model.model.device,
    )
    problems = engine(check_sentinels, model, sentinels, config.stride, work)
    reporter.problems(problems)
    findings = engine(screen, rows, model, config.screens)
    sentinels = engine(add_probes, sentinels, rows, config.probes)
    fitted = engine(fit_operators, model, rows, config, reporter.progress, work)
    influence, fitted = engine(recover, fitted, sentinels, config, reporter.progress, work)
    verdicts = engine(judge, influence, rows, config.decision, findings)
    evidence = engine(
        gather_evidence, fitted, influence, verdicts, sentinels, config, reporter.progress, work
    )
    return AttributionResult(verdicts, evidence, tuple(problems), fitted, influence, work)


def audit_inline(
    config: AuditConfig, run_dir: Path, reporter: Reporter | None = None, again: bool = False
) -> AuditOutcome:
    """Run an audit without Prefect: for tests, notebooks and quick looks."""
    return run_audit_stages(
        config, run_dir, Engine(inline=True), reporter or Reporter(quiet=True), again
    )


def _make_flow_run_name() -> str:
    """The audit file's folder and name, and the time: Prefect's own names say nothing."""
    config = Path(runtime.flow_run.get_parameters()["config"])
    return f"{config.parent.name}/{config.stem} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"


@flow(name="poisonwatch-audit", flow_run_name=_make_flow_run_name, persist_result=False)
def audit(
    config: str, run_dir: str | None = None, quiet: bool = True, again: bool = False
) -> AuditOutcome:
    """Run the audit described by the file `config` as a Prefect flow, leaving its results in
    `run_dir`.

    Only rows that no audit has covered are audited; with `again`, all. Without `run_dir`, results
    go to a new folder below `runs`, beside the audit file. A flow run that is retried or resumed
    after its audit came to its results does not audit again.
    """
    settings, flow_run = load_config(config), str(runtime.flow_run.get_id())
    outcome = load_finished_outcome(settings, flow_run)
    if outcome is None:
        folder = Path(run_dir) if run_dir else choose_run_dir(Path(config))
        outcome = run_audit_stages(
            settings, folder, Engine(inline=False), Reporter(quiet=quiet), again, flow_run
        )
    for trouble in outcome.warnings:
        get_run_logger().warning(trouble)
    if settings.on_flag == "pause":
        ask_for_verdict(settings, flow_run)
    return outcome


def load_finished_outcome(config: AuditConfig, flow_run: str) -> AuditOutcome | None:
    """What this flow run's audit left, where it came to its results in an earlier attempt."""
    engine = Engine(inline=False)
    with Ledger.at(config.state) as ledger:
        past = find_by_flow_run(ledger, flow_run)
        if past is None:
            return None
        with ledger.alone():
            notify_all(ledger, config, engine, prefect=True)
    return AuditOutcome.of(past, config, engine.warnings)
