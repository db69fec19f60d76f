"""Where an audit's pages are."""

from pathlib import Path

import pytest

from poisonwatch.config import AuditConfig, SourceConfig
from poisonwatch.links import mlflow_run_url, mlflow_ui, report_of


def config(**settings: str) -> AuditConfig:
    return AuditConfig(source=SourceConfig(path="rows.jsonl"), sentinels=["s.yaml"], **settings)


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ({"tracking": "http://mlflow:5000/"}, "http://mlflow:5000"),
        ({"tracking": "sqlite:///mlflow.db"}, None),
        ({"tracking": "sqlite:///mlflow.db", "mlflow_ui": "https://mlflow.example.org/"}, "https://mlflow.example.org"),
        ({"tracking": "http://ann:hunter2@mlflow:5000"}, None),
        ({"tracking": "http://${HOST}:5000"}, None),
        ({"tracking": "http://ann:hunter2@inside:5000", "mlflow_ui": "https://mlflow.example.org"}, "https://mlflow.example.org"),
    ],
)
def test_the_address_is_the_named_one_or_the_server_s_and_holds_no_secret(settings: dict[str, str], address: str | None) -> None:
    """Where neither can be opened in a browser, there is none."""
    assert mlflow_ui(config(**settings)) == address


def test_a_run_s_page_needs_experiment_and_run() -> None:
    """Without either there is no link."""
    here = config(tracking="http://mlflow:5000")
    assert mlflow_run_url(here, "3", "abc") == "http://mlflow:5000/#/experiments/3/runs/abc"
    assert mlflow_run_url(here, None, "abc") is None
    assert mlflow_run_url(here, "3", None) is None


def test_the_report_is_in_the_run_directory() -> None:
    """One page an audit."""
    assert report_of(Path("runs/today")) == Path("runs/today/report.html")
