"""Rows to coefficients to verdicts."""

import numpy as np
from prefect import task

from poisonwatch.checkpoints.store import CheckpointStore
from poisonwatch.config import AuditConfig, DetectionConfig, ModelConfig, ScreenName, StrideConfig
from poisonwatch.detection import clusters as evidence
from poisonwatch.detection import detect as verdicts
from poisonwatch.detection.clusters import ClusterEvidence
from poisonwatch.detection.detect import Detection
from poisonwatch.detection.significance import LEAST_TRUSTED
from poisonwatch.examples import AuditRows
from poisonwatch.model import files as model_files
from poisonwatch.model import pretrained
from poisonwatch.model.files import ModelFiles
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.progress import Progress
from poisonwatch.screens import screen as screens
from poisonwatch.screens import triggers as probes
from poisonwatch.screens.finding import Finding
from poisonwatch.sentinels import checks as health
from poisonwatch.sentinels.checks import SentinelProblem
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride import attribution
from poisonwatch.stride import recover as recovery
from poisonwatch.stride.fitted import Fitted, SingleRows
from poisonwatch.stride.influence import Influence
from poisonwatch.stride.sgd import locate_training_checkpoint
from poisonwatch.tasks.options import PLAIN, WITH_RETRIES, should_retry


@task(**WITH_RETRIES, retry_condition_fn=should_retry)
def find_model(config: ModelConfig) -> ModelFiles:
    """Find the model, fetching it where needed."""
    return model_files.find_model_files(config)


@task(**PLAIN)
def load_model(config: ModelConfig, found: ModelFiles | None = None) -> Pretrained:
    """Load the model from where it was found."""
    return pretrained.load_pretrained(config, found)


@task(**PLAIN)
def check_sentinels(
    model: Pretrained, sentinels: list[Sentinel], stride: StrideConfig, work: CheckpointStore
) -> list[SentinelProblem]:
    """Find sentinels that cannot tell anything."""
    return work.get_or_compute_stage(
        "check_sentinels",
        list[SentinelProblem],
        lambda: health.find_sentinel_problems(
            model, sentinels, stride.max_tokens, stride.token_budget
        ),
    )


@task(**PLAIN)
def add_probes(sentinels: list[Sentinel], rows: AuditRows, most: int) -> list[Sentinel]:
    """The sentinels, and copies of them that hold a trigger mined from the new rows."""
    return [
        *sentinels,
        *probes.make_probes(sentinels, probes.mine_triggers(rows, most, sentinels)),
    ]


@task(**PLAIN)
def fit_operators(
    model: Pretrained,
    rows: AuditRows,
    config: AuditConfig,
    progress: Progress,
    work: CheckpointStore,
) -> Fitted:
    """Fit the steering operators to new and trusted rows; a fit that was interrupted goes on from
    its last shard, or checkpoint.

    What enough trusted rows set is kept for the next audit.
    """
    checkpoint = (
        locate_training_checkpoint(config, model.fingerprint)
        if config.stride.fit == "sgd"
        else None
    )
    # Fewer trusted rows join the bulk of the batch when p-values are taken, and do so here, too.
    trusted = np.array(rows.trusted_places) if len(rows.trusted) >= LEAST_TRUSTED else None
    fitted = attribution.fit(
        model,
        rows.all,
        config.stride,
        config.seed,
        progress,
        checkpoint,
        trusted=trusted,
        work=work,
    )
    work.report_reuse("fit_operators")
    return fitted


@task(**PLAIN)
def recover(
    fitted: Fitted,
    sentinels: list[Sentinel],
    config: AuditConfig,
    progress: Progress,
    work: CheckpointStore,
) -> tuple[Influence, Fitted]:
    """Measure the sentinels and recover every row's coefficients, suspects alone."""

    def recovered() -> tuple[Influence, SingleRows]:
        influence, after = recovery.recover_influence(fitted, sentinels, config.stride, progress)
        return influence, after.single_rows

    influence, singled = work.get_or_compute_stage(
        "recover", tuple[Influence, SingleRows], recovered
    )
    return influence, fitted.with_single_rows(singled)


@task(**PLAIN)
def screen(rows: AuditRows, model: Pretrained, names: list[ScreenName]) -> list[Finding]:
    """Look for rows that give themselves away in their text."""
    return screens.run_screens(
        rows, [str(token) for token in model.tokenizer.all_special_tokens], names
    )


@task(**PLAIN)
def gather_evidence(
    fitted: Fitted,
    influence: Influence,
    verdicts: Detection,
    sentinels: list[Sentinel],
    config: AuditConfig,
    progress: Progress,
    work: CheckpointStore,
) -> tuple[ClusterEvidence, ...]:
    """Group the flagged rows, and steer the model with each group."""
    seed, budget = config.seed, config.stride.token_budget
    return work.get_or_compute_stage(
        "gather_evidence",
        tuple[ClusterEvidence, ...],
        lambda: evidence.gather_cluster_evidence(
            fitted, influence, verdicts, sentinels, progress, seed, budget
        ),
    )


@task(**PLAIN)
def judge(
    influence: Influence, rows: AuditRows, config: DetectionConfig, findings: list[Finding]
) -> Detection:
    """Flag the new rows that are anomalous, and those that screens found."""
    return verdicts.flag_rows(influence, rows, config, findings)
