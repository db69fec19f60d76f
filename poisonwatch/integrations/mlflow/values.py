"""Metrics, parameters and tags, in requests that a tracking server takes."""

from collections.abc import Mapping
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from poisonwatch.integrations.mlflow.runs import to_milliseconds

# A tracking server refuses what is longer; the whole values are in config.yaml and summary.json.
LONGEST_PARAM, LONGEST_TAG, LONGEST_KEY = 500, 5000, 200

METRICS_AT_ONCE = 900  # a request holds at most 1,000


def log_values(
    client: MlflowClient,
    run_id: str,
    at: str,
    metrics: Mapping[str, float] | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    step: int = 0,
) -> None:
    """Log metrics of the time `at`, parameters and tags."""
    # The time is the audit's, not that of the upload: a point that is sent twice is there once.
    time = to_milliseconds(at)
    points: list[Metric] = []
    for name, value in (metrics or {}).items():
        points.append(Metric(name, float(value), time, step))
    settings: list[Param] = []
    for name, setting in (params or {}).items():
        settings.append(Param(name[:LONGEST_KEY], str(setting)[:LONGEST_PARAM]))
    clipped = [RunTag(name, text[:LONGEST_TAG]) for name, text in (tags or {}).items()]
    # In one request where it takes them all, which costs the server a third of three; the client
    # makes several of what is more.
    client.log_batch(run_id, points, settings, clipped)
