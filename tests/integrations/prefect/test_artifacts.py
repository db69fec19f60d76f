"""What the Prefect UI is given: inert names, and links to the rest."""

from dataclasses import replace
from pathlib import Path

import pytest
from audits import benign
from ledgers import NAME, covered_ledger

from poisonwatch.config import AuditConfig
from poisonwatch.integrations.prefect.artifacts import (
    describe_audit,
    describe_flag,
    make_artifact_key,
    read_flags,
)
from poisonwatch.ledger.history import PastAudit, list_past_audits

HOSTILE = "[x](http://evil.com) <b>|`*"


@pytest.fixture
def past(tmp_path: Path) -> PastAudit:
    """An audit that flagged a row, with a panel of a hostile name."""
    with covered_ledger(tmp_path, benign(1)[0]["prompt"]) as ledger:
        (found,) = list_past_audits(ledger)
    panel = {"name": HOSTILE, "flagged": 1, "largest_score": 9.04}
    return replace(found, summary={"panels": [panel], "mlflow_run_id": "run-1"})


def test_an_audit_is_a_table_of_panels_with_links_to_the_rest(past: PastAudit) -> None:
    """Report and MLflow run; the dashboard where the audit file names one."""
    config = AuditConfig(name=NAME, source={"path": "x"}, sentinels=["y"])
    lines = describe_audit(config, past, "1 of 2 new rows flagged").splitlines()
    assert lines[0] == "# 1 of 2 new rows flagged"
    assert f"Report: `{past.run_dir / 'report.html'}`" in lines
    assert "MLflow run: `run-1`" in lines
    assert lines[4].endswith("| 1 | 9.0 |")
    assert not set("[](<`*").intersection(lines[4])
    config = config.model_copy(update={"dashboard": "https://desk.example.org"})
    assert "[Decide on the dashboard](https://desk.example.org" in describe_audit(config, past, "")


def test_a_flag_is_shown_by_place_and_number_without_text() -> None:
    """What could be Markdown in a name is none any more."""
    flag = {
        "source": "rows.jsonl",
        "position": 3,
        "panel": HOSTILE,
        "sentinel_id": "shop-1",
        "severity": "high",
        "score": 9.123,
        "q_value": 0.00123,
        "example_id": "ab" * 32,
        "messages": [{"role": "user", "content": "secret"}],
    }
    shown = describe_flag(flag)
    assert (shown["row"], shown["score"], shown["q"]) == (3, 9.12, 0.0012)
    assert shown["example"] == "ab" * 8
    assert not set("[](<`*|").intersection(shown["panel"])
    assert "secret" not in str(shown)


def test_flags_of_a_run_directory_elsewhere_are_none(past: PastAudit, tmp_path: Path) -> None:
    """An audit can be shown from another machine than that on which it ran."""
    assert read_flags(replace(past, run_dir=tmp_path / "elsewhere")) == []


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Tiny", "tiny"),
        ("a/b: C_d", "a-b-c-d"),
        ("--x--", "x"),
        ("häuser", "h-user"),
        ("好", "audit"),
    ],
)
def test_keys_are_what_prefect_allows(name: str, key: str) -> None:
    """Lower-case letters, digits and dashes."""
    assert make_artifact_key(name) == key
