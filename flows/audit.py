"""The audit: pull, validate, attribute, judge, record, alert.

`run_audit_stages` is the whole of it. An engine calls the stages: as Prefect tasks, or as the plain
functions inside them.
"""

from datetime import UTC, datetime
from pathlib import Path

from prefect import flow, get_run_logger, runtime

from poisonwatch.atomic import open_run_folder, open_scratch_folder, refuse_unfit_name, sync_tree
from poisonwatch.checkpoints.key import compute_checkpoint_key
from poisonwatch.checkpoints.store import CheckpointStore
from poisonwatch.concealment import conceal_all
from poisonwatch.config import AuditConfig
from poisonwatch.config_file import load_config
from poisonwatch.detection.detection import Detection
from poisonwatch.detection.result import AttributionResult
from poisonwatch.examples import AuditRows
from poisonwatch.failures import tell_failures
from poisonwatch.flows.announcement import announce_audit
from poisonwatch.flows.engine import AuditOutcome, Engine
from poisonwatch.flows.late_runs import cover_late_runs
from poisonwatch.flows.liveness import tell_monitor
from poisonwatch.flows.lost_ledger import describe_lost_ledger
from poisonwatch.flows.nothing_new import list_readers, record_without_rows
from poisonwatch.flows.pause import ask_for_verdict
from poisonwatch.flows.reporter import Reporter
from poisonwatch.flows.wind_up import notify_all, wind_up
from poisonwatch.integrations.mlflow.system_metrics import sample_system_metrics
from poisonwatch.integrations.ray.cluster import require_ray
from poisonwatch.ledger.audits import commit_audit, open_audit
from poisonwatch.ledger.batches import (
    hash_checks,
    hash_measurement,
    load_trusted,
    locate_rejections,
)
from poisonwatch.ledger.history import find_by_flow_run
from poisonwatch.ledger.ledger import Ledger, Version
from poisonwatch.ledger.verdict_settings import describe_verdict_settings
from poisonwatch.model.batching import adapt_token_budget
from poisonwatch.model.files import ModelFiles
from poisonwatch.reports.discovery import summarise_discovery
from poisonwatch.reports.summary import count_rows, describe_source, summarise
from poisonwatch.run_directory.checksums import require_unchanged_settings
from poisonwatch.run_directory.layout import choose_run_dir, make_audit_id
from poisonwatch.screens.finding import renumber_findings
from poisonwatch.screens.trigger_ngrams import NgramMine
from poisonwatch.sentinels.sentinel import Sentinel, compute_sentinels_version, load_sentinels
from poisonwatch.sources.unread import count_unread
from poisonwatch.stride.settings import warn_of_few_subsets
from poisonwatch.stride.unmeasured import leave_out_unmeasured
from poisonwatch.tasks.alerts import compose_alerts, describe_readers
from poisonwatch.tasks.attribution import (
    add_copies,
    check_sentinels,
    find_model,
    find_near_copies,
    fit_operators,
    gather_evidence,
    judge,
    load_model,
    recover,
    screen,
)
from poisonwatch.tasks.data import choose, claim, pull, pull_reference, validate
from poisonwatch.tasks.discovery import discover
from poisonwatch.tasks.results import conclude, explain_verdicts, record
from poisonwatch.tasks.reviews import read_reviews
from poisonwatch.tasks.tracking import open_run
from poisonwatch.validation import Validation

# Rows from which an audit reads them from a file each time, and holds none in memory.
PACKED_FROM = 20_000


def run_audit_stages(
    config: AuditConfig,
    run_dir: Path,
    engine: Engine,
    reporter: Reporter,
    again: bool = False,
    flow_run: str | None = None,
    skip_empty: bool = False,
) -> AuditOutcome:
    """One audit, start to end: of rows that no audit has covered, or of all (`again`).

    Results are in `run_dir`, which is there whole or not at all, and in the ledger. What fails once
    rows are judged, while verdicts are explained or people notified, is told and costs no verdict.
    With `skip_empty` an audit that no row waits for is a line in the ledger, without a `run_dir`.
    """
    attempts = engine.attempts
    refuse_unfit_name(run_dir)
    audit_id = make_audit_id()
    # Before anything is pulled: what is not installed now is not installed later.
    if config.compute.engine == "ray":
        require_ray()
    sentinels = load_sentinels(config.sentinels)
    signer = config.signing.load_signer()
    if signer is not None:
        signer.try_out()
    ledger_at = Ledger.at(config.state, signer=signer)
    with ledger_at as ledger, ledger.lock(config.name, reporter.note_waiting):
        lost = describe_lost_ledger(ledger, config.name, run_dir.parent)
        if lost is not None:
            engine.warnings.append(lost)
        ingested = engine(pull, ledger, config, reporter.progress, attempts)
        # found, and not loaded: which rows are new depends on the model's fingerprints alone, and
        # with none there is nothing to load it for
        files = engine(find_model, config.model)
        version = Version(
            files.fingerprint,
            compute_sentinels_version(sentinels),
            files.reading,
            files.reads_as_before,
            describe_verdict_settings(config),
        )
        # Verdicts that people gave in MLflow come before the rows are chosen: what was called
        # benign is among the trusted rows of this audit already.
        if config.review.mlflow:
            engine.attempt(read_reviews, ledger, config)
        batch = engine(choose, ledger, config, version, again)
        if skip_empty and not len(batch):
            reporter.note_rows(ingested, 0, Validation.empty(), reference=Validation.empty())
            summary = record_without_rows(
                ledger, config, engine, audit_id, version, run_dir, ingested, batch, flow_run
            )
            wind_up(ledger, config, engine, prefect=flow_run is not None)
            summary["failures"] = attempts.to_records()
            return AuditOutcome.of_summary(run_dir, summary, config, engine.warnings)
        report_to = list_readers(config, flow_run)
        opened = open_audit(
            ledger, audit_id, config.name, version, run_dir, report_to=report_to, flow_run=flow_run
        )
        with opened as number, open_run_folder(run_dir) as folder, open_scratch_folder() as scratch:
            tracked = engine.attempt(open_run, config, audit_id) or {}
            with sample_system_metrics(config, tracked.get("mlflow_run_id")):
                batch = engine(claim, ledger, config, version, again, number)
                pack = None
                if len(batch) >= PACKED_FROM:
                    pack = scratch / "rows.arrow"
                valid = engine(validate, batch.rows, config, ledger, pack)
                benign = load_trusted(ledger, config.name)
                reference = engine(pull_reference, config, valid.examples, benign)
                unread = count_unread(batch.rows, config.source.ignore)
                reporter.note_rows(ingested, len(batch), valid, reference=reference, unread=unread)
                rows = AuditRows(valid.examples, tuple(reference.examples))
                # nobody is asked for hours: a server may end such sessions, or have few to give
                ledger.disconnect()
                found = attribute(config, files, sentinels, rows, engine, reporter)
                groups = None
                if config.discover:
                    groups = engine(
                        discover, ledger, config, audit_id, found, reporter.progress, attempts
                    )
                unmeasured = locate_rejections(batch, found.unmeasured.new)
                audited = valid.reject_unmeasured(found.detection.examples, unmeasured)
                counts = count_rows(ingested, len(batch), audited, reference)
                counts["reference"] -= len(found.unmeasured.trusted)
                costs = engine.clock.costs
                source = describe_source(ingested, batch.rows, unread)
                summary = summarise(
                    config,
                    audit_id,
                    version,
                    counts=counts,
                    source=source,
                    attributed=found,
                    stages=costs,
                )
                summary["discovery"] = summarise_discovery(groups)
                summary |= tracked
                readers = engine(describe_readers, ledger, config, found, attempts)
                summary |= readers
                # where the chain of records ended when the audit came to its results
                summary["chain"] = str(ledger.read_head())
                engine(record, folder, config, summary, found, audited)
                engine(
                    explain_verdicts,
                    ledger,
                    folder,
                    config,
                    summary,
                    found,
                    audited,
                    attempts,
                    groups,
                )
                alerts = engine(compose_alerts, ledger, config, summary, found, run_dir, attempts)
                summary["failures"] = attempts.to_records()
                seal = engine(conclude, folder, summary)
            # On the disk before the ledger says so: else a machine that loses power has an audit
            # whose files are empty.
            sync_tree(folder)
            # Alerts are committed with the results, and sent later: none is lost, or sent for an
            # audit that did not come about.
            commit_audit(
                ledger,
                number,
                batch,
                examples=audited.examples,
                rejected=valid.rejected,
                flagged=found.detection.flags,
                checks=hash_checks(config.validation),
                summary=summary,
                unmeasured=unmeasured,
                measurement=hash_measurement(config, version),
                alerts=alerts,
                groups=found.groups,
                seal=seal,
                attempts=attempts,
            )
            # only now: an audit that ended before its commit goes on from its checkpoints
            if found.store is not None:
                found.store.clear()
        wind_up(ledger, config, engine, prefect=flow_run is not None)
    # What failed since the summary was written, too.
    failures = {"failures": attempts.to_records()}
    warnings = [*tell_failures(failures), *engine.warnings]
    return AuditOutcome(run_dir, summary, found.detection, audited.rejected, warnings)


def attribute(
    config: AuditConfig,
    files: ModelFiles,
    sentinels: list[Sentinel],
    rows: AuditRows,
    engine: Engine,
    reporter: Reporter,
) -> AttributionResult:
    """From rows to flags with their evidence; with nothing new, the model is not even loaded."""
    if not rows.new:
        return AttributionResult(Detection.empty(config.detection))
    model = engine(load_model, config.model, files)
    # on a GPU, as many tokens a batch as its memory holds
    stride = adapt_token_budget(model.model, config.stride)
    config = config.model_copy(update={"stride": stride})

    def note(text: str) -> None:
        reporter.say(text)
        # a flow run's reader has no terminal: Prefect shows its log alone
        if not engine.inline:
            get_run_logger().info(text)

    if not (reporter.quiet and engine.inline):
        announce_audit(config, model, sentinels, rows, reporter, note)

    # What an audit that was cut short left is taken up where the key is the same: same rows, same
    # model, same settings, same code.
    key = compute_checkpoint_key(config, files, model, sentinels, rows)
    shared = Path(config.compute.folder) if config.compute.folder else None
    store = CheckpointStore.open(key, note, model.device, shared)
    problems = engine(check_sentinels, model, sentinels, config.stride, store)
    reporter.note_problems(problems)
    # screens and probes ask for the same n-grams
    mine = NgramMine(rows)
    findings = engine(screen, rows, model, config.screens, mine)
    sentinels = engine(add_copies, sentinels, rows, config.probes, mine)
    fitted = engine(fit_operators, model, rows, sentinels, config, reporter.progress, store)
    rows, unmeasured = leave_out_unmeasured(rows, fitted.faulty, model.precision)
    for line in unmeasured.describe():
        note(line)
    if not rows.new:
        nothing = Detection.empty(config.detection)
        return AttributionResult(
            nothing, problems=tuple(problems), unmeasured=unmeasured, store=store
        )
    findings = renumber_findings(findings, [row.row for row in fitted.faulty])
    few = warn_of_few_subsets(fitted.settings, len(rows))
    if few is not None:
        note(few)
    influence, fitted = engine(recover, fitted, sentinels, config, reporter.progress, store)
    attempts = engine.attempts
    detection, topics = engine(judge, influence, rows, config.detection, findings, attempts)
    evidence = engine(
        gather_evidence,
        fitted,
        influence,
        detection,
        sentinels,
        config,
        reporter.progress,
        store,
        attempts,
    )
    near_copies = engine(find_near_copies, influence, detection, attempts)
    return AttributionResult(
        detection,
        evidence,
        tuple(problems),
        topics,
        near_copies=near_copies,
        unmeasured=unmeasured,
        fitted=fitted,
        influence=influence,
        model=model,
        store=store,
    )


def audit_inline(
    config: AuditConfig,
    run_dir: Path,
    reporter: Reporter | None = None,
    again: bool = False,
    skip_empty: bool = False,
) -> AuditOutcome:
    """Run an audit without Prefect: for tests, notebooks and quick looks."""
    secrets = config.find_secrets()
    reporter = reporter or Reporter(quiet=True)
    engine = Engine(inline=True, secrets=secrets, enter=reporter.enter_task)
    with conceal_all(secrets), tell_monitor(config, engine):
        return run_audit_stages(config, run_dir, engine, reporter, again, skip_empty=skip_empty)


def _make_flow_run_name() -> str:
    """The audit file's folder and name, and the time: Prefect's own names say nothing."""
    config = Path(runtime.flow_run.get_parameters()["config"])
    return f"{config.parent.name}/{config.stem} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"


@flow(name="poisonwatch-audit", flow_run_name=_make_flow_run_name, persist_result=False)
def audit(
    config: str,
    run_dir: str | None = None,
    quiet: bool = True,
    again: bool = False,
    skip_empty: bool = False,
) -> AuditOutcome:
    """Run the audit described by the file `config` as a Prefect flow, leaving its results in
    `run_dir`.

    Only rows that no audit has covered are audited; with `again`, all. Without `run_dir`, results
    go to a new folder below `runs`, beside the audit file, where a row is new; `skip_empty` says
    the same of a `run_dir`. A flow run that is retried or resumed after its audit came to its
    results does not audit again.
    """
    settings = load_config(config)
    require_unchanged_settings(Path(config))
    with conceal_all(settings.find_secrets()):
        skip_empty = skip_empty or run_dir is None
        folder = Path(run_dir) if run_dir else choose_run_dir(Path(config))
        return _run_in_flow(settings, folder, quiet=quiet, again=again, skip_empty=skip_empty)


def _run_in_flow(
    settings: AuditConfig, run_dir: Path, quiet: bool, again: bool, skip_empty: bool
) -> AuditOutcome:
    flow_run = str(runtime.flow_run.get_id())
    outcome = load_finished_outcome(settings, flow_run)
    if outcome is None:
        cover_late_runs()
        reporter = Reporter(quiet=quiet)
        secrets = settings.find_secrets()
        engine = Engine(inline=False, secrets=secrets, enter=reporter.enter_task)
        with tell_monitor(settings, engine):
            outcome = run_audit_stages(
                settings,
                run_dir,
                engine,
                reporter=reporter,
                again=again,
                flow_run=flow_run,
                skip_empty=skip_empty,
            )
    for warning in outcome.warnings:
        get_run_logger().warning(warning)
    # last, since a run of a deployment ends here, and is started again with the answer
    if settings.on_flag == "pause":
        ask_for_verdict(settings, flow_run)
    return outcome


def load_finished_outcome(config: AuditConfig, flow_run: str) -> AuditOutcome | None:
    """What this flow run's audit left, where it came to its results in an earlier attempt."""
    engine = Engine(inline=False, secrets=config.find_secrets())
    with Ledger.at(config.state) as ledger:
        past = find_by_flow_run(ledger, flow_run)
        if past is None:
            return None
        # the earlier attempt may have ended between its commit and its notifications
        with ledger.lock(config.name):
            notify_all(ledger, config, engine, prefect=True)
    return AuditOutcome.from_past(past, config, engine.warnings)
