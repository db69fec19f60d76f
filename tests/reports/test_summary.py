"""summary.json: what an audit comes to, with rows and without."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from audits import benign, write_audit
from ledgers import append
from report_pages import HOSTILE
from topics import judged

from poisonwatch.config import AuditConfig
from poisonwatch.config_file import load_config
from poisonwatch.detection.detection import Detection
from poisonwatch.detection.new_topics import NewTopic
from poisonwatch.detection.result import AttributionResult
from poisonwatch.flows.audit import audit_inline
from poisonwatch.ledger.intake import IngestStats
from poisonwatch.ledger.ledger import Version
from poisonwatch.reports.new_topics import LONGEST_WORDS, MOST_TOPICS
from poisonwatch.reports.summary import compute_calibration, describe_source, summarise
from poisonwatch.sources.open import SourceRows
from poisonwatch.text.display import excerpt


def test_a_summary_without_new_rows_is_whole() -> None:
    """Every key is there; nothing was fitted, nothing measured."""
    config = AuditConfig(source={"path": "x.jsonl"}, sentinels="pack:insult")  # type: ignore[arg-type]
    counts = {"pulled": 0, "rejected": 0, "reference": 3}
    summary = summarise(
        config,
        "an-id",
        Version("m" * 64, "s" * 64),
        counts=counts,
        source=describe_source(IngestStats(), SourceRows([], [], {}), []),
        attributed=AttributionResult(Detection.empty(config.detection)),
        stages=[],
    )
    assert summary["counts"] == {"pulled": 0, "rejected": 0, "reference": 3, "new": 0, "flagged": 0}
    assert (summary["panels"], summary["settings"], summary["recovery"]) == ([], {}, {})
    assert summary["new_topics"] == {"rows": 0, "groups": []}
    assert summary["model"]["fingerprint"] == "m" * 64
    assert json.loads(json.dumps(summary)) == summary


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_cannot_be_judged_is_in_the_summary(text: str) -> None:
    """All unjudged rows are counted; topics stand there with an example's id, and words as visible
    excerpts; at most MOST_TOPICS.
    """
    config = AuditConfig(source={"path": "x.jsonl"}, sentinels="pack:insult")  # type: ignore[arg-type]
    detection, (topic,) = judged(words=text + " x" * 200)

    def describe(topics: tuple[NewTopic, ...]) -> dict[str, Any]:
        found: dict[str, Any] = summarise(
            config,
            "an-id",
            Version("m" * 64, "s" * 64),
            counts={},
            source={},
            attributed=AttributionResult(detection, new_topics=topics),
            stages=[],
        )["new_topics"]
        return found

    told = describe((topic,))
    assert told["rows"] == int(detection.unjudged.sum()) >= len(topic.rows)
    (group,) = told["groups"]
    assert (group["rows"], group["panel"]) == (len(topic.rows), topic.panel)
    assert group["example_id"] == detection.examples[topic.example].id
    assert len(group["prompt_words"]) == len(topic.prompt_ngrams) > 0
    assert len(group["answer_words"]) == len(topic.answer_ngrams) > 0
    for words in group["prompt_words"] + group["answer_words"]:
        assert excerpt(words, LONGEST_WORDS) == words
    assert json.loads(json.dumps(told)) == told
    assert len(describe((topic,) * (MOST_TOPICS + 3))["groups"]) == MOST_TOPICS


def test_right_p_values_are_uniform_over_unflagged_rows() -> None:
    """p = 1/n ... n/n: a share .05 lies below .05, the distance from uniform is 1/n; p-values that
    are too small show in both.
    """
    even = np.arange(1, 101) / 100
    assert compute_calibration(even) == {
        "unflagged": 100,
        "p_below_0.05": 0.05,
        "p_distance_from_uniform": pytest.approx(0.01),
    }
    small = compute_calibration(even**3)
    assert small["p_below_0.05"] == 0.36
    assert small["p_distance_from_uniform"] > 0.3


def test_without_unflagged_rows_nothing_is_said_of_calibration() -> None:
    """Not even a share of 0."""
    assert compute_calibration(np.zeros(0)) == {
        "unflagged": 0,
        "p_below_0.05": None,
        "p_distance_from_uniform": None,
    }


def test_calibration_leaves_out_rows_that_any_panel_or_screen_flagged(
    tmp_path: Path, tiny_folder: Path
) -> None:
    """Counts of flagged and unflagged rows add up, and the share is that of scores.parquet."""
    config = load_config(
        write_audit(tmp_path, tiny_folder, detection={"false_discovery_rate": 0.5}, tracking="none")
    )
    outcome = audit_inline(config, tmp_path / "run")
    (panel,) = outcome.summary["panels"]
    flagged = {flag.example.id for flag in outcome.detection.flags}
    p = (
        pd.read_parquet(tmp_path / "run" / "scores.parquet")
        .drop_duplicates("example_id")
        .set_index("example_id")["p_value"]
    )
    rest = p[~p.index.isin(flagged)]
    assert panel["unflagged"] == len(rest) == 43 - len(flagged) < 43
    assert panel["p_below_0.05"] == (rest <= 0.05).mean()


def test_an_audit_of_nothing_new_is_quick_and_recorded(tmp_path: Path, tiny_folder: Path) -> None:
    """The second audit loads no model; its run directory has everything but operators, and MLflow
    has its run.
    """
    config = load_config(write_audit(tmp_path, tiny_folder))
    first, second = (audit_inline(config, tmp_path / name) for name in ("one", "two"))
    assert (first.summary["counts"]["new"], second.summary["counts"]["new"]) == (43, 0)
    assert "load_model" not in [stage["name"] for stage in second.summary["stages"]]
    files = {path.name for path in (tmp_path / "two").iterdir()}
    assert files == {path.name for path in (tmp_path / "one").iterdir()} - {"operators.safetensors"}
    assert second.summary["mlflow_run_id"]
    assert not second.warnings
    assert "0 new rows" in (tmp_path / "two" / "report.html").read_text()


def test_an_audit_takes_what_came_since_the_last_one(tmp_path: Path, tiny_folder: Path) -> None:
    """Two rows appended: these two; other sentinels: all of them; and a run replays on its own
    rows.
    """
    path = write_audit(tmp_path, tiny_folder, tracking="none")
    audit_inline(load_config(path), tmp_path / "one")
    append(tmp_path / "rows.jsonl", benign(2, start=500))
    second = audit_inline(load_config(path), tmp_path / "two")
    assert [e.position for e in second.detection.examples] == [43, 44]
    assert (
        audit_inline(load_config(tmp_path / "two" / "config.yaml"), tmp_path / "replay").summary[
            "counts"
        ]["new"]
        == 2
    )
    with (tmp_path / "sentinels.yaml").open("a") as file:
        file.write('- {id: shop-9, prompt: "And now?", forbidden: "Velmora."}\n')
    assert audit_inline(load_config(path), tmp_path / "three").summary["counts"]["new"] == 45
    assert audit_inline(load_config(path), tmp_path / "four").summary["counts"]["new"] == 0
    assert (
        audit_inline(load_config(path), tmp_path / "five", again=True).summary["counts"]["new"]
        == 45
    )


def test_a_broken_row_among_few_new_ones_stops_nothing(tmp_path: Path, tiny_folder: Path) -> None:
    """One bad line alone is all of a pull, and few of all rows: it is rejected, once."""
    path = write_audit(tmp_path, tiny_folder, tracking="none")
    audit_inline(load_config(path), tmp_path / "one")
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write("{broken\n")
    second = audit_inline(load_config(path), tmp_path / "two")
    assert (second.summary["counts"]["rejected"], second.summary["counts"]["new"]) == (1, 0)
    assert audit_inline(load_config(path), tmp_path / "three").summary["counts"]["rejected"] == 0
