"""Rows on a topic that trusted rows do not cover, on their way through a whole audit: released and
counted, or held back until somebody decides.
"""

import json
from pathlib import Path

import pytest
from browsing import asking
from sqlalchemy import select, update
from topics import write_topic_audit

from poisonwatch.config_file import load_config
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.engine import AuditOutcome
from poisonwatch.integrations.mlflow.audit_run import compute_headline_metrics
from poisonwatch.ledger.decisions import record_decision
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.tables import audits
from poisonwatch.release.gate import check_cleared

WORDS = "<img/src=x/onerror=alert(1)>"
Audited = tuple[Path, AuditOutcome]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Audited:
    """An audit file of 90 rows, 50 of them on a topic of their own, and what the audit found."""
    config = write_topic_audit(tmp_path_factory.mktemp("released"), tiny_folder, WORDS)
    return config, audit_inline(load_config(config), config.parent / "run")


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Audited:
    """The same with the setting `hold`."""
    config = write_topic_audit(
        tmp_path_factory.mktemp("held"), tiny_folder, WORDS, detection={"new_topics": "hold"}
    )
    return config, audit_inline(load_config(config), config.parent / "run")


def test_released_rows_are_counted_and_not_flagged(released: Audited) -> None:
    """The summary has the topic; nothing is flagged, and the gate lets all rows pass."""
    config, outcome = released
    assert outcome.summary["counts"]["flagged"] == 0
    told = outcome.summary["new_topics"]
    assert told["rows"] >= 45
    (group,) = told["groups"]
    assert 45 <= group["rows"] <= told["rows"]
    assert group["panel"] == "shop"
    assert group["example_id"] in {example.id for example in outcome.detection.examples[40:]}
    assert WORDS in group["prompt_words"][0]
    assert json.loads((outcome.run_dir / "summary.json").read_text())["new_topics"] == told
    assert compute_headline_metrics(outcome.summary)["rows_unjudged"] == told["rows"]
    answer = check_cleared([config.parent / "rows.jsonl"], config)
    assert answer.cleared
    assert answer.rows == 90


def test_held_rows_are_flagged_and_the_gate_refuses_them(held: Audited) -> None:
    """Each unjudged row is in flags.jsonl, for its topic alone; a person's word clears it."""
    config, outcome = held
    unjudged = outcome.summary["new_topics"]["rows"]
    assert outcome.summary["counts"]["flagged"] == unjudged >= 45
    assert outcome.summary["screens"] == {"new-topic": unjudged}
    assert [flag["by"] for flag in outcome.flags] == [["new-topic"]] * unjudged
    assert all(flag["reasons"][0].startswith("new-topic: does what ") for flag in outcome.flags)
    answer = check_cleared([config.parent / "rows.jsonl"], config)
    assert not answer.cleared
    assert answer.reasons == {"flagged": unjudged}
    with Ledger.existing(load_config(config).state) as ledger:
        record_decision(ledger, outcome.flags[0]["example_id"], "benign")
    after = check_cleared([config.parent / "rows.jsonl"], config)
    assert after.reasons == {"flagged": unjudged - 1}


def test_the_report_and_the_dashboard_show_the_topic(released: Audited, held: Audited) -> None:
    """With its words and a row as an example, all of it as text; held rows are said to be."""
    for (config, outcome), word in ((released, "not flagged"), (held, "held back until")):
        report = (outcome.run_dir / "report.html").read_text()
        with asking(config) as client:
            page = client.get(f"/audits/{outcome.summary['audit_id']}").text
        for text in (report, page):
            section = text.split("<h2>Rows that cannot be judged</h2>")[1].split("</section>")[0]
            assert word in section
            assert "About 20 trusted rows" in section
            assert "should I buy" in section
            assert "&lt;img/src=x/onerror=alert(1)&gt;" in section
            assert "<img/src" not in text


def test_the_dashboard_opens_what_an_earlier_version_left(released: Audited) -> None:
    """A summary without the section is of an audit that could judge everything."""
    config, outcome = released
    with Ledger.existing(load_config(config).state) as ledger:
        with ledger.read() as connection:
            kept = connection.execute(select(audits.c.summary)).scalar_one()
        older = json.loads(kept)
        del older["new_topics"]
        try:
            with ledger.write() as connection:
                connection.execute(update(audits).values(summary=json.dumps(older)))
            with asking(config) as client:
                answer = client.get(f"/audits/{outcome.summary['audit_id']}")
        finally:
            with ledger.write() as connection:
                connection.execute(update(audits).values(summary=kept))
    assert answer.status_code == 200
    assert "cannot be judged" not in answer.text
    assert compute_headline_metrics(older)["rows_unjudged"] == 0
