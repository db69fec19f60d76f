"""Rows in: pull and validate."""

from typing import Any

from prefect import task

from poisonwatch import sources
from poisonwatch.config import SourceConfig, ValidationConfig
from poisonwatch.errors import PoisonwatchError
from poisonwatch.examples import Example, Rejection
from poisonwatch.sources import Rows
from poisonwatch.tasks import OUTSIDE, PLAIN
from poisonwatch.tasks.expectations import check_rows


def worth_a_retry(_task: Any, _run: Any, state: Any) -> bool:
    """Retry what the network or the disk did, not what the user asked for."""
    return not isinstance(state.result(raise_on_failure=False), PoisonwatchError)


@task(**OUTSIDE, retry_condition_fn=worth_a_retry)
def pull(source: SourceConfig) -> Rows:
    """Read every row of the source."""
    return sources.pull(source)


@task(**PLAIN)
def validate(rows: Rows, validation: ValidationConfig) -> tuple[list[Example], list[Rejection]]:
    """Split rows into examples and rejections; raises SourceError where too many fail."""
    return check_rows(rows, validation)


@task(**OUTSIDE, retry_condition_fn=worth_a_retry)
def pull_reference(source: SourceConfig | None, validation: ValidationConfig, new: list[Example]) -> tuple[list[Example], list[Rejection]]:
    """Read the trusted rows, without those that are also among the new ones, and those that fail validation."""
    if source is None:
        return [], []
    trusted, rejected = check_rows(sources.pull(source), validation)
    ids = {example.id for example in new}
    return [example for example in trusted if example.id not in ids], rejected
