"""A person who answers in MLflow."""

from pathlib import Path
from typing import Any

from audits import write_audit
from mlflow import MlflowClient
from mlflow.entities import AssessmentSource, Feedback
from mlflow.tracing.client import TracingClient
from servers import mlflow_store

from poisonwatch.config import AuditConfig
from poisonwatch.config_file import load_config


def configured(
    folder: Path, model: Path, rows: list[dict[str, Any]] | None = None, **settings: Any
) -> AuditConfig:
    """An audit that flags something on random weights, with tracking of its own."""
    lax = {
        "detection": {"false_discovery_rate": 0.9},
        "tracking": mlflow_store(folder / "tracking"),
    }
    return load_config(write_audit(folder / "in", model, rows, **{**lax, **settings}))


class Reviewer:
    """A person in MLflow's review queue: answers as its page does."""

    def __init__(self, config: AuditConfig) -> None:
        self.client = TracingClient(config.tracking)
        experiment = MlflowClient(config.tracking).get_experiment_by_name(config.name)
        assert experiment is not None
        self.experiment_id = str(experiment.experiment_id)

    def queues(self) -> list[str]:
        return [queue.queue_id for queue in self.client._list_review_queues(self.experiment_id)]

    def items(self) -> list[str]:
        return [
            item.item_id
            for queue in self.queues()
            for item in self.client._list_review_queue_items(queue)
        ]

    def say(
        self, trace: str, verdict: str, note: str = "", done: bool = True, kind: str = "HUMAN"
    ) -> None:
        source = AssessmentSource(source_type=kind, source_id="ann@example.org")
        self.client.log_assessment(
            trace, Feedback(name="verdict", value=verdict, rationale=note, source=source)
        )
        if done:
            self.client._set_review_queue_item_status(
                self.queues()[0], item_id=trace, status="complete", completed_by="ann@example.org"
            )
