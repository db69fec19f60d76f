"""Where MLflow is, for use and for people."""

from pathlib import Path

import pytest

from poisonwatch.config import AuditConfig
from poisonwatch.config_file import resolve_config
from poisonwatch.errors import OperationError
from poisonwatch.integrations.mlflow.tracking import get_tracking, show_tracking


def resolve(tracking: str | None) -> AuditConfig:
    settings = {"source": "rows.jsonl", "sentinels": ["pack:identity"], "tracking": tracking}
    return resolve_config(settings, Path.cwd())


def test_a_variable_is_filled_in_for_use_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """People are shown its name, as it stands in the audit file."""
    monkeypatch.setenv("MLFLOW_PASSWORD", "hunter2hunter2")
    config = resolve("http://ann:${MLFLOW_PASSWORD}@mlflow.example:5000")
    assert get_tracking(config) == "http://ann:hunter2hunter2@mlflow.example:5000"
    assert "hunter2" not in show_tracking(config)
    assert "mlflow.example" in show_tracking(config)


@pytest.mark.parametrize("tracking", [None, "none"])
def test_without_mlflow_there_is_nothing_to_ask(tracking: str | None) -> None:
    config = resolve(tracking)
    assert config.tracking is None
    with pytest.raises(OperationError, match="`tracking` is none"):
        get_tracking(config)
