"""Curves of sentinels in MLflow while a model is trained: in the run that the trainer logs to, or
in one of their own.
"""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime

import mlflow
from mlflow import MlflowClient

from poisonwatch.config import AuditConfig
from poisonwatch.errors import PoisonwatchError
from poisonwatch.integrations.mlflow.client import UNAVAILABLE, make_mlflow_client
from poisonwatch.integrations.mlflow.runs import open_audit_run
from poisonwatch.integrations.mlflow.values import log_values

KIND = "training"  # tag of runs
logger = logging.getLogger(__name__)


class TrainingCurves:
    """Logs what sentinels come to, step by step. A server that cannot be used costs its curves, not
    the training.
    """

    def __init__(self, client: MlflowClient, run_id: str, *, is_own: bool) -> None:
        """Into the run; its `own`er ends it."""
        self._client, self._run_id, self._is_own = client, run_id, is_own
        self._failed = False

    @classmethod
    def open(cls, config: AuditConfig, name: str) -> "TrainingCurves | None":
        """Into the run that is active in this thread, else into one called `name` where the audit
        file has its `tracking`; None where it has none, or its server cannot be used.
        """
        active = mlflow.active_run()
        if active is not None:
            return cls(MlflowClient(), active.info.run_id, is_own=False)
        if config.tracking is None:
            return None
        try:
            run = open_audit_run(config, name, KIND)
            return cls(make_mlflow_client(config), run["mlflow_run_id"], is_own=True)
        except PoisonwatchError as error:
            logger.warning("%s: sentinels have no curves in MLflow", error)
            return None

    def log(self, curve: Mapping[str, float], step: int) -> None:
        """Log the values at a step; the first failure is told, and ends the curves."""
        if self._failed:
            return
        try:
            now = datetime.now(UTC).isoformat()
            log_values(self._client, self._run_id, now, metrics=curve, step=step)
        except UNAVAILABLE as error:
            self._failed = True
            logger.warning("sentinels' curves stop in MLflow: %s", type(error).__name__)

    def close(self) -> None:
        """End the run, where it is no trainer's."""
        if self._is_own and not self._failed:
            self._client.set_terminated(self._run_id, "FINISHED")
