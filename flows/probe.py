"""The probe: a tuned checkpoint is asked what its base is asked, on a schedule like an audit."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger

from poisonwatch.concealment import conceal_all
from poisonwatch.config import AuditConfig, ModelConfig
from poisonwatch.config_file import load_config
from poisonwatch.errors import OperationError, PoisonwatchError
from poisonwatch.flows.engine import Engine
from poisonwatch.flows.late_runs import cover_late_runs
from poisonwatch.flows.reporter import Reporter
from poisonwatch.ledger.probe_looks import FailedProbe
from poisonwatch.probing.checkpoint import name_checkpoint
from poisonwatch.probing.checkpoint_choice import ProbedCheckpoint
from poisonwatch.probing.new_checkpoints import FoundCheckpoint
from poisonwatch.probing.panels import PanelMovement, list_moved_panels
from poisonwatch.probing.probe import (
    Comparison,
    ProbedSentinel,
    compare_models,
    describe_panel,
    list_moved_sentinels,
)
from poisonwatch.reports.summary import describe_model
from poisonwatch.run_directory.checksums import require_unchanged_settings
from poisonwatch.run_directory.layout import make_audit_id
from poisonwatch.run_directory.provenance import describe_origin
from poisonwatch.sentinels.sentinel import (
    Sentinel,
    compute_sentinels_version,
    load_sentinels,
)
from poisonwatch.tasks.attribution import find_model
from poisonwatch.tasks.probe import (
    ask,
    compare_families,
    gather_questions,
    identify_release,
    look_for_checkpoints,
    record_look,
    record_probe,
    tell_movement,
    track_probe,
)
from poisonwatch.tasks.tracking import open_run
from poisonwatch.text.display import get_first_line, make_visible
from poisonwatch.text.words import plural


@dataclass(frozen=True, slots=True)
class ProbeOutcome:
    """What a probe found, by sentinel and by panel, its report as JSON, and what went wrong beside
    it (a tracking server that was down).
    """

    found: Comparison
    report: dict[str, Any]
    warnings: list[str]

    @property
    def moved(self) -> list[ProbedSentinel]:
        """The sentinels that moved beyond their band, furthest first."""
        return list_moved_sentinels(self.found.sentinels)

    @property
    def moved_panels(self) -> list[PanelMovement]:
        """The panels that moved as a whole, furthest first."""
        return list_moved_panels(self.found.panels)

    @property
    def has_moved(self) -> bool:
        """Whether a sentinel or a panel moved."""
        return bool(self.moved or self.moved_panels)

    @property
    def furthest(self) -> Sentinel | None:
        """The sentinel to look at first; None where nothing moved."""
        for each in self.moved:
            return each.movement.sentinel
        for panel in self.moved_panels:
            return panel.furthest.sentinel
        return None


def run_probe_stages(
    config: AuditConfig, checkpoint: ProbedCheckpoint, engine: Engine, reporter: Reporter
) -> ProbeOutcome:
    """One probe, start to end. Its result is a record of the ledger's chain, and a run in
    MLflow.
    """
    tuned_config = name_checkpoint(config.model, checkpoint.model, checkpoint.adapter)
    release = engine(identify_release, config, checkpoint.release)
    base_files = engine(find_model, config.model)
    tuned_files = engine(find_model, tuned_config)
    engine(compare_families, config.model, base_files, tuned_files)
    trusted_config = _name_trusted(config, checkpoint)
    trusted_files = None
    if trusted_config is not None:
        trusted_files = engine(find_model, trusted_config)
        engine(compare_families, config.model, base_files, trusted_files)
    questions = engine(gather_questions, config, checkpoint.release)
    reporter.note(
        f"asking {plural(len(questions.sentinels), 'sentinel')} and "
        f"{plural(len(questions.ordinary) // 2, 'ordinary prompt')} of the base, then of the "
        "checkpoint"
    )
    # One after the other: memory need not hold both.
    base = engine(ask, config.model, base_files, questions, config.stride.max_tokens)
    tuned = engine(ask, tuned_config, tuned_files, questions, config.stride.max_tokens)
    trusted, honest = None, None
    if trusted_config is not None and trusted_files is not None:
        trusted = engine(ask, trusted_config, trusted_files, questions, config.stride.max_tokens)
        honest = describe_model(trusted_config, trusted_files.fingerprint, trusted_files.reading)
    found = compare_models(base, tuned, trusted)
    probe_id = make_audit_id()
    report = {
        "probe_id": probe_id,
        **describe_origin(config),
        "model": describe_model(config.model, base_files.fingerprint, base_files.reading),
        "checkpoint": describe_model(tuned_config, tuned_files.fingerprint, tuned_files.reading),
        "sentinels": compute_sentinels_version(load_sentinels(config.sentinels)),
        "release": release,
        "trusted": honest,
        **summarise_probe(found),
    }
    outcome = ProbeOutcome(found, report, engine.warnings)
    report["chain"] = engine(record_probe, config, report)
    tracked = engine.attempt(open_run, config, probe_id, "probe")
    if tracked:
        report |= tracked
        engine.attempt(track_probe, config, report)
    if outcome.has_moved and config.alerts:
        engine.attempt(tell_movement, config)
    return outcome


def _name_trusted(config: AuditConfig, checkpoint: ProbedCheckpoint) -> ModelConfig | None:
    """The settings of the checkpoint that was tuned on trusted rows, if one is named."""
    named = checkpoint.trusted or config.probe.trusted
    return None if named is None else name_checkpoint(config.model, named, None)


def summarise_probe(found: Comparison) -> dict[str, Any]:
    """What a probe found, as its report has it."""
    moved = [each.movement.sentinel.id for each in list_moved_sentinels(found.sentinels)]
    panels = [each.panel for each in list_moved_panels(found.panels)]
    of_panels = ""
    if found.panels:
        of_panels = f" and {len(panels)} of {plural(len(found.panels), 'panel')}"
    sentence = (
        f"{len(moved)} of {plural(len(found.sentinels), 'sentinel')}{of_panels} moved further than "
        "honest tuning explains"
    )
    return {
        "sentence": sentence,
        "moved": moved,
        "moved_panels": panels,
        "asked": [each.record() for each in found.sentinels],
        "panels": [describe_panel(each) for each in found.panels],
    }


def suggest_explanation(config: Path, checkpoint: ProbedCheckpoint, moved: Sentinel) -> str:
    """The command that names the rows behind a sentinel's movement."""
    words = ["poisonwatch", "incident", str(config), *checkpoint.options]
    return shlex.join([*words, "--sentinel", moved.id])


def probe_inline(
    config: AuditConfig, checkpoint: ProbedCheckpoint, reporter: Reporter | None = None
) -> ProbeOutcome:
    """Probe a checkpoint without Prefect."""
    secrets = config.find_secrets()
    engine, reporter = Engine(inline=True, secrets=secrets), reporter or Reporter(quiet=True)
    with conceal_all(secrets):
        return run_probe_stages(config, checkpoint, engine, reporter)


@flow(name="poisonwatch-probe", persist_result=False)
def probe(
    config: str,
    model: str | None = None,
    adapter: str | None = None,
    release: str | None = None,
    trusted: str | None = None,
    quiet: bool = True,
) -> ProbeOutcome:
    """Probe a checkpoint of the model of the audit file `config` as a Prefect flow: a `model`
    (folder or hub id), an `adapter`, or both, the manifest of the `release` that it was trained on,
    and a checkpoint that was tuned on `trusted` rows.
    """
    settings = load_config(config)
    require_unchanged_settings(Path(config))
    secrets = settings.find_secrets()
    manifest = Path(release) if release else None
    with conceal_all(secrets):
        outcome = run_probe_stages(
            settings,
            ProbedCheckpoint(model, adapter, manifest, trusted),
            engine=Engine(inline=False, secrets=secrets),
            reporter=Reporter(quiet=quiet),
        )
        for warning in outcome.warnings:
            get_run_logger().warning(warning)
    return outcome


@dataclass(frozen=True, slots=True)
class ProbedFolder:
    """A new checkpoint, and what its probe found: None where it could not be probed."""

    found: FoundCheckpoint
    outcome: ProbeOutcome | None
    problem: str | None = None


def probe_new_stages(
    config: AuditConfig, engine: Engine, reporter: Reporter
) -> Iterator[ProbedFolder]:
    """Probe the checkpoints of the audit file's `probe` that were not probed yet, oldest first: one
    that cannot be probed keeps no other from it, and is remembered until the next look.
    """
    failed: list[FailedProbe] = []
    for found in engine(look_for_checkpoints, config):
        probed = _probe_found(config, found, engine, reporter)
        if probed.problem is not None:
            failed.append(FailedProbe(str(found.folder), probed.problem))
        yield probed
    engine.attempt(record_look, config, failed)


def _probe_found(
    config: AuditConfig, found: FoundCheckpoint, engine: Engine, reporter: Reporter
) -> ProbedFolder:
    """Probe a checkpoint that is new, if it can be."""
    if found.problem is not None:
        return ProbedFolder(found, None, found.problem)
    reporter.note(f"probing {make_visible(str(found.folder))}")
    release = Path(config.probe.release) if config.probe.release else None
    checkpoint = ProbedCheckpoint(model=str(found.folder), release=release)
    try:
        return ProbedFolder(found, run_probe_stages(config, checkpoint, engine, reporter))
    except PoisonwatchError as error:
        return ProbedFolder(found, None, get_first_line(error))


def require_all_probed(probed: Sequence[ProbedFolder]) -> None:
    """Raise OperationError where a checkpoint could not be probed."""
    failed = [each for each in probed if each.problem is not None]
    if failed:
        why = "; ".join(f"{each.found.folder}: {each.problem}" for each in failed)
        raise OperationError(f"{plural(len(failed), 'checkpoint')} could not be probed: {why}")


def probe_new_inline(config: AuditConfig, reporter: Reporter | None = None) -> list[ProbedFolder]:
    """Probe the checkpoints that are new without Prefect."""
    secrets = config.find_secrets()
    engine, reporter = Engine(inline=True, secrets=secrets), reporter or Reporter(quiet=True)
    with conceal_all(secrets):
        return list(probe_new_stages(config, engine, reporter))


@flow(name="poisonwatch-probe-new", persist_result=False)
def probe_new(config: str, quiet: bool = True, strict: bool = True) -> list[ProbedFolder]:
    """Probe the checkpoints of the audit file `config` that are new as a Prefect flow, which fails
    where one could not be probed, unless it is not `strict`.
    """
    settings = load_config(config)
    require_unchanged_settings(Path(config))
    secrets = settings.find_secrets()
    with conceal_all(secrets):
        cover_late_runs()
        engine = Engine(inline=False, secrets=secrets)
        probed = list(probe_new_stages(settings, engine, Reporter(quiet=quiet)))
        for warning in engine.warnings:
            get_run_logger().warning(warning)
        if strict:
            require_all_probed(probed)
    return probed
