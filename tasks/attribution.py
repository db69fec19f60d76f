"""Rows to coefficients to flags, a library call a task.

The library's modules are imported whole: tasks are called like the functions that they call.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from poisonwatch.checkpoints.store import CheckpointStore
from poisonwatch.config import AuditConfig, DetectionConfig, ModelConfig, ScreenName, StrideConfig
from poisonwatch.detection import clusters, near_copies, new_topics
from poisonwatch.detection.detection import Detection
from poisonwatch.detection.evidence import ClusterEvidence
from poisonwatch.detection.near_copies import NearCopy
from poisonwatch.detection.new_topics import NewTopic
from poisonwatch.detection.trusted import LEAST_TRUSTED
from poisonwatch.errors import ConfigError
from poisonwatch.examples import AuditRows
from poisonwatch.failures import Attempts
from poisonwatch.integrations.ray.engine import open_ray_engine
from poisonwatch.model import files as model_files
from poisonwatch.model import pretrained
from poisonwatch.model.adapter import require_peft
from poisonwatch.model.files import ModelFiles
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.progress import Progress
from poisonwatch.screens import copies
from poisonwatch.screens import screen as screens
from poisonwatch.screens.finding import Finding
from poisonwatch.screens.trigger_ngrams import NgramMine
from poisonwatch.sentinels import checks
from poisonwatch.sentinels.sentinel import Sentinel, SentinelProblem
from poisonwatch.stride import attribution
from poisonwatch.stride import recover as influence_recovery
from poisonwatch.stride.fitted import FitOfRows, SingleRows
from poisonwatch.stride.influence import Influence
from poisonwatch.stride.settings import measures_rows_alone
from poisonwatch.stride.streamed import ShardEngine, StreamedFit, measure_locally
from poisonwatch.stride.training_checkpoint import locate_training_checkpoint
from poisonwatch.tasks.options import PLAIN, WITH_RETRIES, should_retry, task


@task(**WITH_RETRIES, retry_condition_fn=should_retry)
def find_model(config: ModelConfig) -> ModelFiles:
    """Find the model, fetching it where needed. What merges its adapter must be there, too."""
    found = model_files.find_model_files(config)
    if found.adapter is not None:
        require_peft(found.adapter)
    return found


@task(**PLAIN)
def load_model(config: ModelConfig, found: ModelFiles | None = None) -> Pretrained:
    """Load the model from where it was found."""
    return pretrained.load_pretrained(config, found)


@task(**PLAIN)
def check_sentinels(
    model: Pretrained, sentinels: list[Sentinel], stride: StrideConfig, store: CheckpointStore
) -> list[SentinelProblem]:
    """Find sentinels that cannot tell anything."""

    def find_problems() -> list[SentinelProblem]:
        return checks.find_sentinel_problems(
            model, sentinels, stride.max_tokens, stride.token_budget
        )

    return store.get_or_compute_stage("check_sentinels", list[SentinelProblem], find_problems)


@task(**PLAIN)
def add_copies(
    sentinels: list[Sentinel], rows: AuditRows, probes: int, mine: NgramMine | None = None
) -> list[Sentinel]:
    """The sentinels, and copies of them in the new rows' frame and with triggers mined there."""
    return copies.copy_sentinels(sentinels, rows, probes, mine)


@task(**PLAIN)
def fit_operators(
    model: Pretrained,
    rows: AuditRows,
    sentinels: list[Sentinel],
    config: AuditConfig,
    progress: Progress,
    store: CheckpointStore,
) -> FitOfRows | StreamedFit:
    """Measure new and trusted rows on the sentinels, or fit operators to their subsets; what was
    interrupted goes on from its last shard, or checkpoint.

    What enough trusted rows set is kept for the next audit.
    """
    # A training goes on from a file of its own, a closed form from what is in the store.
    checkpoint = None
    if config.stride.fit == "sgd":
        checkpoint = locate_training_checkpoint(config, model)
    # Fewer trusted rows do not stand alone here, as they do not where p-values are taken.
    trusted = None
    if len(rows.trusted) >= LEAST_TRUSTED:
        trusted = np.array(rows.trusted_places)
    with _open_engine(config, model, len(rows)) as engine:
        fitted = attribution.fit(
            model,
            rows.all,
            config.stride,
            seed=config.seed,
            progress=progress,
            checkpoint=checkpoint,
            trusted=trusted,
            store=store,
            sentinels=sentinels,
            engine=engine,
        )
    store.report_reuse("fit_operators")
    return fitted


@contextmanager
def _open_engine(config: AuditConfig, model: Pretrained, n: int) -> Iterator[ShardEngine]:
    """What measures the rows. Raises ConfigError where it is Ray, and settings want another fit
    than the one that it can spread.
    """
    if config.compute.engine == "local":
        yield measure_locally
        return
    if not measures_rows_alone(config.stride, n):
        raise ConfigError(
            "compute: ray spreads rows that are measured alone, and stride has settings for "
            "subsets or a training: leave them out, or write compute: local"
        )
    with open_ray_engine(config.compute, config.model, model) as engine:
        yield engine


@task(**PLAIN)
def recover(
    fitted: FitOfRows | StreamedFit,
    sentinels: list[Sentinel],
    config: AuditConfig,
    progress: Progress,
    store: CheckpointStore,
) -> tuple[Influence, FitOfRows | StreamedFit]:
    """Measure the sentinels and recover every row's coefficients, suspects alone."""
    # Records are kept already, and come to coefficients sooner than a file of them is read.
    if isinstance(fitted, StreamedFit):
        return fitted.recover(progress), fitted

    def recover_all() -> tuple[Influence, SingleRows]:
        influence, after = influence_recovery.recover_influence(
            fitted, sentinels, config.stride, progress
        )
        # Of the fit only what is new is kept: the rest is there when the audit goes on.
        return influence, after.single_rows

    influence, single = store.get_or_compute_stage(
        "recover", tuple[Influence, SingleRows], recover_all
    )
    return influence, fitted.with_single_rows(single)


@task(**PLAIN)
def screen(
    rows: AuditRows, model: Pretrained, names: list[ScreenName], mine: NgramMine | None = None
) -> list[Finding]:
    """Look for rows that give themselves away in their text."""
    return screens.run_screens(rows, model.special_tokens, names, mine)


@task(**PLAIN)
def gather_evidence(
    fitted: FitOfRows | StreamedFit,
    influence: Influence,
    detection: Detection,
    sentinels: list[Sentinel],
    config: AuditConfig,
    progress: Progress,
    store: CheckpointStore,
    attempts: Attempts,
) -> tuple[ClusterEvidence, ...]:
    """Group the flagged rows, and steer the model with each group. What fails goes into `attempts`,
    and is tried again should the audit be interrupted before its end.
    """
    failed = len(attempts.failures)

    def gather() -> tuple[ClusterEvidence, ...]:
        return clusters.gather_cluster_evidence(
            fitted,
            influence,
            detection,
            sentinels,
            progress=progress,
            seed=config.seed,
            token_budget=config.stride.token_budget,
            attempts=attempts,
        )

    def is_whole() -> bool:
        return len(attempts.failures) == failed

    kind = tuple[ClusterEvidence, ...]
    with attempts.part("groups of flagged rows", "not formed"):
        return store.get_or_compute_stage("gather_evidence", kind, gather, is_whole)
    return ()


@task(**PLAIN)
def find_near_copies(
    influence: Influence, detection: Detection, attempts: Attempts
) -> tuple[NearCopy, ...]:
    """Find rows that say nearly what flagged ones say."""
    with attempts.part("near copies of flagged rows", "not looked for"):
        return near_copies.find_near_copies(detection, influence.neighbours)
    return ()


@task(**PLAIN)
def judge(
    influence: Influence,
    rows: AuditRows,
    config: DetectionConfig,
    findings: list[Finding],
    attempts: Attempts,
) -> tuple[Detection, tuple[NewTopic, ...]]:
    """Flag the new rows that are anomalous, and those that screens found; find the topics that
    cannot be judged.
    """
    detection, topics = new_topics.judge_rows(influence, rows, config, findings, attempts)
    # Whatever fails from here on was at work on these rows.
    for flag in detection.flags:
        attempts.hide((flag.example.prompt, flag.example.response))
    return detection, topics
