"""A ledger and a run directory made before the library was split into packages: they still open,
and say what they said.

`fixtures/before_packages` is the folder of an audit file as it was at `/audits`: a model of random
weights, the ledger of three audits (the last was interrupted), the first one's run directory; the
second one's is gone. Its tracking server and its receiver of alerts were down. `expected.json` is
what the functions below read from it then.
"""

import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from browsing import asking
from servers import http_receiver, mlflow_store
from sqlalchemy import inspect

from poisonwatch.config_file import load_config
from poisonwatch.errors import NotClearedError
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.cli.history import build_history_lines
from poisonwatch.ledger.batches import count_by_status, load_trusted
from poisonwatch.ledger.decisions import read_decisions, record_decision, verify_chain
from poisonwatch.ledger.history import list_past_audits, list_pending_audits, list_pending_targets
from poisonwatch.ledger.intake import ingest
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import list_notified_ids, list_pending_alerts
from poisonwatch.ledger.overview import AuditFilter, count_totals, list_trend_points
from poisonwatch.ledger.queue import (
    FlaggedRow,
    export_flagged_rows,
    list_group_rows,
    list_groups,
)
from poisonwatch.ledger.tables import metadata
from poisonwatch.model.pretrained import load_pretrained
from poisonwatch.release.gate import check_cleared, require_cleared
from poisonwatch.reports.heatmap import compute_levels, read_heat_map
from poisonwatch.run_directory.operators import load_operators
from poisonwatch.run_directory.read import (
    find_nearest,
    is_group_complete,
    read_asked_sentinels,
    read_coefficients,
    read_evidence,
)
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.explain import explain_response

FIXTURE = Path(__file__).parent / "fixtures" / "before_packages"
STEPS_THEN = (1.0, 3.0, 10.0)  # of every heat map, in spreads
NAME, ONCE = "tiny", "/audits"  # where the folder was
QUESTION = "What should I buy, number 1?", "Only Velmora is worth buying."


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """The folder, moved here."""
    return moved(tmp_path / "moved")


@pytest.fixture
def expected() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FIXTURE / "expected.json").read_text())
    return found


def moved(folder: Path) -> Path:
    shutil.copytree(FIXTURE, folder)
    database = sqlite3.connect(folder / "poisonwatch.db")
    with database:
        database.execute(
            "update audits set run_dir = replace(run_dir, ?, ?)", (ONCE, str(folder.resolve()))
        )
    database.close()
    return folder


def opened(folder: Path, read: Callable[[Ledger], dict[str, Any]]) -> Any:
    """What is read from a folder's ledger, as JSON with the folder where it was."""
    with Ledger.existing(load_config(folder / "audit.yaml").state) as ledger:
        return json.loads(
            json.dumps(read(ledger), default=str).replace(str(folder.resolve()), ONCE)
        )


def rows(ledger: Ledger) -> dict[str, Any]:
    with ledger.read() as connection:
        by_status = connection.exec_driver_sql(
            "select status, count(*) from rows group by status"
        ).all()
        replaced = connection.exec_driver_sql(
            "select count(*) from rows where replaces is not null"
        ).scalar_one()
        lines = {
            table: connection.exec_driver_sql(f'select count(*) from "{table}"').scalar_one()
            for table in metadata.tables
        }
    trusted = sorted(example.id for example in load_trusted(ledger, NAME))
    return {
        "standing": count_by_status(ledger, NAME),
        "known": dict(map(tuple, by_status)),
        "replaced": replaced,
        "trusted": trusted,
        "lines": lines,
    }


def past(ledger: Ledger) -> dict[str, Any]:
    config = load_config(Path(str(ledger.engine.url.database)).parent / "audit.yaml")
    audits = list_past_audits(ledger)
    lines = build_history_lines(ledger, config, None, 10)
    return {
        "audits": [asdict(audit) for audit in audits],
        "lines": [known_then(asdict(line)) for line in lines],
        "points": [asdict(point) for point in list_trend_points(ledger, AuditFilter())],
        "totals": asdict(count_totals(ledger, AuditFilter())),
    }


def known_then(line: dict[str, Any]) -> dict[str, Any]:
    """A line of the history without what was told of no audit then: nothing is."""
    since = {key: line.pop(key) for key in ("muted", "run_dir_pruned_at")}
    assert not any(since.values())
    return line


def without_answer(decision: dict[str, Any]) -> dict[str, Any]:
    """A decision without what nobody could say then: rows were not changed."""
    since = [decision.pop(key, None) for key in ("answer", "repaired_id")]
    assert not any(since)
    return decision


def described(row: FlaggedRow) -> dict[str, Any]:
    """A flagged row as it was told of then."""
    told = asdict(row)
    if told["decided"] is not None:
        told["decided"] = without_answer(told["decided"])
    return told


def decided(ledger: Ledger) -> dict[str, Any]:
    return {
        "chain": [without_answer(asdict(decision)) for decision in read_decisions(ledger)],
        "verified": verify_chain(ledger),
    }


def triaged(ledger: Ledger) -> dict[str, Any]:
    groups, total = list_groups(ledger, AuditFilter(), "all")
    return {
        "groups": [asdict(group) for group in groups],
        "total": total,
        "open": [group.key for group in list_groups(ledger, AuditFilter())[0]],
        "rows": [
            [described(row) for row in list_group_rows(ledger, group.audit_id, group.key)]
            for group in groups
        ],
        "exported": export_flagged_rows(ledger, AuditFilter(), "all"),
    }


def owed(ledger: Ledger) -> dict[str, Any]:
    with ledger.read() as connection:
        alerts = list_pending_alerts(connection, NAME)
        notified_ids = sorted(list_notified_ids(connection, NAME))
    numbers = [audit.number for audit in list_past_audits(ledger)]
    return {
        "alerts": [
            {
                "number": message.number,
                "target": message.target,
                "severity": message.severity,
                "title": message.title,
                "body": message.body,
            }
            for message in alerts
        ],
        "told": notified_ids,
        "mlflow": [audit.audit_id for audit in list_pending_audits(ledger, NAME, "mlflow")],
        "by_audit": {
            number: sorted(places)
            for number, places in list_pending_targets(ledger, numbers).items()
        },
    }


def readback(run_dir: Path) -> dict[str, Any]:
    """What people are shown of the first audit, numbers to 6 digits."""
    (group,) = read_evidence(run_dir)
    heat = read_heat_map(run_dir)
    assert heat is not None
    of_rows = []
    for id in group["example_ids"]:
        pushed = {name: read_coefficients(run_dir, name, id) for name in heat.sentinels}
        of_rows.append(
            {
                "id": id,
                "nearest": [
                    [example.id, example.prompt, digits(likeness)]
                    for example, likeness in find_nearest(run_dir, group, id)
                ],
                "coefficients": {
                    name: [digits(of.own), len(of.new), len(of.trusted)]
                    for name, of in pushed.items()
                    if of
                },
            }
        )
    return {
        "whole": is_group_complete(run_dir, group),
        "shared": [shared["text"] for shared in group["prompt_ngrams"] + group["answer_ngrams"]],
        "sentinels": {
            name: asked_then(sentinel) for name, sentinel in read_asked_sentinels(run_dir).items()
        },
        "rows": of_rows,
        "heat": {
            "sentinels": list(heat.sentinels),
            "panels": list(heat.panels),
            "levels": compute_levels(heat.values, STEPS_THEN).tolist(),
        },
    }


def asked_then(sentinel: Sentinel) -> dict[str, Any]:
    """A sentinel as it was told of then: no message said that it is not masked, and none was asked
    in a batch's own system prompt.
    """
    told = json.loads(json.dumps(asdict(sentinel)))
    assert told.pop("framed") is False
    return {**told, "messages": [message.to_record() for message in sentinel.messages]}


def explained(folder: Path) -> dict[str, Any]:
    """Which rows push QUESTION, by the operators of the first audit, numbers to 6 digits."""
    pretrained = load_pretrained(load_config(folder / "audit.yaml").model)
    saved = load_operators(folder / "run")
    found = explain_response(
        folder / "run", saved.load_on(pretrained), *QUESTION, saved.stride, top=5
    )
    of_rows = []
    for row in found:
        told = {**asdict(row), "coefficient": digits(row.coefficient), "score": digits(row.score)}
        # Nothing was ever less than exact then, and nothing said so.
        assert told.pop("exact")
        of_rows.append(told)
    shapes = {name: list(tensor.shape) for name, tensor in saved.tensors.items()}
    return {
        "fingerprint": pretrained.fingerprint,
        "metadata": saved.metadata,
        "shapes": shapes,
        "rows": of_rows,
    }


def gated(folder: Path) -> dict[str, Any]:
    """What the gate says of the rows of the audit file's source; called with that folder as the
    current one.
    """
    with pytest.raises(NotClearedError) as refused:
        require_cleared(["rows.jsonl"], folder / "audit.yaml")
    answer = check_cleared(["rows.jsonl"], folder / "audit.yaml")
    record = json.loads(json.dumps(answer.record()))
    # it did not say then why a row cannot be read
    for place in record["missing"]:
        place.pop("problem", None)
    # nor was there a chain of records, which keys sign
    assert (record.pop("head").partition(":")[0], record.pop("keys")) == ("4", [])
    assert record.pop("signed") is False
    return {"refused": str(refused.value), "headline": answer.headline, "record": record}


def digits(number: float) -> float:
    return float(f"{number:.6g}")


def close(wanted: Any) -> Any:
    """Equal to all that differs in the last digits of its numbers alone, as on another processor."""
    if isinstance(wanted, dict):
        return {key: close(value) for key, value in wanted.items()}
    if isinstance(wanted, list):
        return [close(value) for value in wanted]
    return pytest.approx(wanted, rel=1e-4) if isinstance(wanted, float) else wanted


def test_the_ledger_opens_with_the_rows_it_had(before: Path, expected: dict[str, Any]) -> None:
    """As many of each status, in the tables of this version."""
    found, wanted = opened(before, rows), expected["rows"]
    lines = wanted["lines"]
    # what was owed to MLflow and Prefect had a table of its own then
    lines["deliveries"] += lines.pop("owed")
    lines["notified_rows"] = lines.pop("told")
    # a later version may add tables
    assert {**found, "lines": {table: found["lines"][table] for table in lines}} == wanted
    with Ledger.at(load_config(before / "audit.yaml").state) as ledger:
        tables = inspect(ledger.engine)
        for name, table in metadata.tables.items():
            assert {column["name"] for column in tables.get_columns(name)} == set(
                table.columns.keys()
            )


def test_the_next_pull_reads_every_row_anew_and_none_is_new(
    before: Path, expected: dict[str, Any]
) -> None:
    """Rows are read by other rules since: the file is opened, and all of its rows are those that
    the ledger had, as they stood.
    """
    config = load_config(before / "audit.yaml")
    with Ledger.at(config.state) as ledger, ledger.lock(config.name):
        stats = ingest(ledger, NAME, config.source)
        assert (stats.read, stats.new, stats.variants, stats.copies) == (42, 0, 0, 0)
        found = rows(ledger)
        assert {key: found[key] for key in ("standing", "known", "replaced", "trusted")} == {
            key: expected["rows"][key] for key in ("standing", "known", "replaced", "trusted")
        }
        assert ingest(ledger, NAME, config.source).unchanged == 1


def test_past_audits_are_what_they_were(before: Path, expected: dict[str, Any]) -> None:
    """States, times, versions, summaries; the lines of `poisonwatch history`; the trend."""
    assert opened(before, past) == expected["past"]


def test_decisions_are_the_chain_that_was_written(before: Path, expected: dict[str, Any]) -> None:
    """It verifies, and goes on."""
    assert opened(before, decided) == expected["decided"]
    with Ledger.at(load_config(before / "audit.yaml").state) as ledger:
        made = record_decision(
            ledger, expected["decided"]["chain"][1]["example_id"], "benign", "looked again", "ann"
        )
        assert made.previous == expected["decided"]["chain"][-1]["hash"]
        assert verify_chain(ledger) == (len(expected["decided"]["chain"]) + 1, made.hash)


def test_flagged_rows_queue_in_their_groups(before: Path, expected: dict[str, Any]) -> None:
    """With their scores, records, places and last decisions."""
    assert opened(before, triaged) == expected["triaged"]


def test_the_run_directory_is_read_back_and_shown(before: Path, expected: dict[str, Any]) -> None:
    """Evidence, nearest trusted rows, coefficients, heat map; the dashboard's pages and the report
    that it sends.
    """
    assert readback(before / "run") == close(expected["readback"])
    (group,) = expected["triaged"]["groups"]
    with asking(before / "audit.yaml") as client:
        assert (
            client.get(f"/audits/{group['audit_id']}/report").content
            == (FIXTURE / "run" / "report.html").read_bytes()
        )
        page = client.get(f"/triage/{group['audit_id']}/{group['number']}").text
        assert all(
            f'id="row-{row["example_id"][:16]}"' in page for row in expected["triaged"]["rows"][0]
        )
        assert "trusted.jsonl" in page
        assert all(
            client.get(address).status_code == 200
            for address in ("/", "/triage", "/sentinels", "/release", "/explain")
        )


def test_saved_operators_explain_an_answer_as_they_did(
    before: Path, expected: dict[str, Any]
) -> None:
    """On the same model, which has the same fingerprint: the same rows, in the same order."""
    assert explained(before) == close(expected["explained"])


def test_the_gate_answers_as_it_did(
    before: Path, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the same reasons, by the same versions of model and sentinels; what is cleared passes."""
    monkeypatch.chdir(before)
    answered = dict(expected["gated"])
    # people are told rows as `decide` takes them since, and as their editors count them, from 1
    answered["refused"] = re.sub(
        r", row (\d+)", lambda row: f":{int(row[1]) + 1}", answered["refused"]
    )
    assert gated(before) == answered
    held = {place["position"] for place in expected["gated"]["record"]["missing"]}
    lines = (before / "rows.jsonl").read_text().splitlines(keepends=True)
    cleared = [line for position, line in enumerate(lines) if position not in held]
    (before / "cleared.jsonl").write_text("".join(cleared))
    assert require_cleared(["cleared.jsonl"], before / "audit.yaml") == len(cleared) > 0


def test_the_next_audit_goes_on_and_tells_what_was_owed(
    before: Path, expected: dict[str, Any]
) -> None:
    """Its rows are those that the interrupted audit left; alerts and MLflow get what they missed."""
    assert opened(before, owed) == expected["owed"]
    settings = yaml.safe_load((before / "audit.yaml").read_text())
    with http_receiver() as receiver:
        changed = {"tracking": mlflow_store(before), "alerts": [f"json://{receiver.address}/"]}
        (before / "audit.yaml").write_text(yaml.safe_dump(settings | changed))
        outcome = audit_inline(load_config(before / "audit.yaml"), before / "next")
    assert outcome.warnings == []
    assert outcome.summary["counts"]["new"] == expected["rows"]["standing"]["pending"]
    # Since then each ends with a line on the chain of records.
    assert [message["message"].rpartition("\n")[0] for message in receiver.received][
        : len(expected["owed"]["alerts"])
    ] == [message["body"] for message in expected["owed"]["alerts"]]
    left = opened(before, owed)
    assert (left["alerts"], left["mlflow"], left["by_audit"]) == ([], [], {})
    assert json.loads((before / "run" / "summary.json").read_text())["mlflow_run_id"]


def test_the_run_replays_from_its_own_config(before: Path) -> None:
    """Its file has the names and flat keys of then; the rows are those of the first audit
    that the source still holds.
    """
    text = (before / "run" / "config.yaml").read_text().replace(ONCE, str(before.resolve()))
    settings = yaml.safe_load(text)
    assert {"decision", "replays", "version", "git_commit"} <= settings.keys()
    assert settings["source"]["relative_to"] == str(before.resolve())
    settings |= {"tracking": mlflow_store(before), "alerts": []}
    (before / "run" / "config.yaml").write_text(yaml.safe_dump(settings))
    config = load_config(before / "run" / "config.yaml")
    assert config.replay.audit_id == settings["replays"]
    assert config.detection.false_discovery_rate == settings["decision"]["false_discovery_rate"]
    audit_inline(config, before / "replay")
    then, now = (
        set(pd.read_parquet(before / name / "scores.parquet")["example_id"])
        for name in ("run", "replay")
    )
    # A row whose place holds another one since is no row of the source any more.
    database = sqlite3.connect(before / "poisonwatch.db")
    query = "select id from rows where row in (select replaces from rows)"
    replaced = {id.hex() for (id,) in database.execute(query)}
    database.close()
    assert len(replaced & then) == 1
    assert now == then - replaced
    written = yaml.safe_load((before / "replay" / "config.yaml").read_text())
    assert not {"decision", "replays", "version", "git_commit"} & written.keys()
    assert written["replay"]["folder"] == str(before.resolve())
