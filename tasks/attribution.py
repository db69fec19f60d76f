"""Rows to coefficients to verdicts."""

from prefect import task

from poisonwatch import attribution, verdicts
from poisonwatch.attribution import Fitted
from poisonwatch.config import AuditConfig, DecisionConfig, ModelConfig
from poisonwatch.examples import Example
from poisonwatch.influence import Influence
from poisonwatch.pretrained import Pretrained, load_pretrained
from poisonwatch.progress import Progress
from poisonwatch.runs import checkpoint_for
from poisonwatch.sentinels import Sentinel
from poisonwatch.tasks import OUTSIDE, PLAIN
from poisonwatch.tasks.data import worth_a_retry
from poisonwatch.verdicts import Verdicts


@task(**OUTSIDE, retry_condition_fn=worth_a_retry)
def load_model(config: ModelConfig) -> Pretrained:
    """Find and load the model, fetching it where needed."""
    return load_pretrained(config)


@task(**PLAIN)
def fit_operators(model: Pretrained, examples: list[Example], config: AuditConfig, progress: Progress) -> Fitted:
    """Fit the steering operators to new and trusted rows; a training that was killed goes on from its checkpoint."""
    checkpoint = checkpoint_for(config, model.fingerprint) if config.stride.fit == "sgd" else None
    return attribution.fit(model, examples, config.stride, config.seed, progress, checkpoint)


@task(**PLAIN)
def recover(fitted: Fitted, sentinels: list[Sentinel], config: AuditConfig, progress: Progress) -> tuple[Influence, Fitted]:
    """Measure the sentinels and recover every row's coefficients, suspects alone."""
    return attribution.recover(fitted, sentinels, config.stride, progress)


@task(**PLAIN)
def judge(influence: Influence, new: list[Example], decision: DecisionConfig) -> Verdicts:
    """Flag the new rows that are anomalous."""
    return verdicts.judge(influence, new, decision)
