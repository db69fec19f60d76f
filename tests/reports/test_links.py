"""Where an audit's pages are."""

from pathlib import Path

import pytest

from poisonwatch.config import AuditConfig
from poisonwatch.reports.links import (
    find_mlflow_ui,
    locate_report,
    make_dashboard_url,
    make_group_url,
    make_mlflow_run_url,
    make_prefect_run_url,
)
from poisonwatch.source_config import SourceConfig


def config(**settings: str) -> AuditConfig:
    return AuditConfig(source=SourceConfig(path="rows.jsonl"), sentinels=["s.yaml"], **settings)


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ({"tracking": "http://mlflow:5000/"}, "http://mlflow:5000"),
        ({"tracking": "sqlite:///mlflow.db"}, None),
        (
            {"tracking": "sqlite:///mlflow.db", "mlflow_ui": "https://mlflow.example.org/"},
            "https://mlflow.example.org",
        ),
        ({"tracking": "http://ann:hunter2@mlflow:5000"}, None),
        ({"tracking": "http://${HOST}:5000"}, None),
        (
            {
                "tracking": "http://ann:hunter2@inside:5000",
                "mlflow_ui": "https://mlflow.example.org",
            },
            "https://mlflow.example.org",
        ),
    ],
)
def test_the_address_is_the_named_one_or_the_server_s_and_holds_no_secret(
    settings: dict[str, str], address: str | None
) -> None:
    """Where neither can be opened in a browser, there is none."""
    assert find_mlflow_ui(config(**settings)) == address


def test_a_run_s_page_needs_experiment_and_run() -> None:
    """Without either there is no link."""
    here = config(tracking="http://mlflow:5000")
    assert make_mlflow_run_url(here, "3", "abc") == "http://mlflow:5000/#/experiments/3/runs/abc"
    assert make_mlflow_run_url(here, None, "abc") is None
    assert make_mlflow_run_url(here, "3", None) is None


def test_the_report_is_in_the_run_directory() -> None:
    """One page an audit."""
    assert locate_report(Path("runs/today")) == Path("runs/today/report.html")


def test_an_audit_s_page_on_the_dashboard_is_known_where_its_address_is() -> None:
    """An address with a password is not passed on."""
    assert (
        make_dashboard_url(config(dashboard="https://audits.example.org/"), "today-1")
        == "https://audits.example.org/audits/today-1"
    )
    assert make_dashboard_url(config(), "today-1") is None
    assert (
        make_dashboard_url(config(dashboard="https://ann:hunter2@audits.example.org"), "today-1")
        is None
    )


def test_a_flow_run_s_page_is_on_the_configured_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages' own address where it is another one than the API's."""
    for name in ("PREFECT_UI_URL", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    assert make_prefect_run_url("abc") is None
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api/")
    assert make_prefect_run_url("abc") == "http://127.0.0.1:4200/runs/flow-run/abc"
    assert make_prefect_run_url(None) is None
    monkeypatch.setenv("PREFECT_UI_URL", "https://prefect.example.org")
    assert make_prefect_run_url("abc") == "https://prefect.example.org/runs/flow-run/abc"


def test_a_group_has_a_page_of_its_own() -> None:
    """Below its audit's, where the dashboard's address is known."""
    shown = config(dashboard="https://audits.example.org/")
    assert make_group_url(shown, "today-1", "3") == "https://audits.example.org/triage/today-1/3"
    assert make_group_url(config(), "today-1", "3") is None
