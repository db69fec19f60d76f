"""Records for annotation tools, by their documented formats."""

import json
from pathlib import Path

from exported import PLAIN, audited_rows

from poisonwatch.exports.export import Rows, format_rows, locate_rows
from poisonwatch.exports.flagged import collect_flagged
from poisonwatch.ledger.decisions import record_decision

# What `rg.Record.from_dict` and a suggestion of Argilla 2 take.
RECORD = {"id", "fields", "suggestions", "metadata"}
SUGGESTION = {"value", "type", "agent", "score"}


def decided_rows(folder: Path) -> tuple[Rows, str, str]:
    """Two rows, the plain one called benign; both as Argilla's records and Label Studio's tasks."""
    with audited_rows(folder) as audited:
        (plain,) = (r for r in collect_flagged(audited.ledger, "tiny") if PLAIN in str(r))
        record_decision(audited.ledger, plain["example_id"], "benign", author="ann")
        rows = collect_flagged(audited.ledger, "tiny", state="all")
        places = locate_rows(audited.ledger, rows, audited.settings, folder)
    argilla = format_rows(rows, "argilla", "tiny", places)
    return rows, argilla, format_rows(rows, "label-studio", "tiny", places)


def test_argilla_gets_fields_a_suggestion_and_metadata(tmp_path: Path) -> None:
    """Fields are texts, metadata plain values, and a decision is the suggestion of a person."""
    rows, text, _ = decided_rows(tmp_path)
    assert text.isascii()
    records = json.loads(text)
    assert [record["id"] for record in records] == [row["example_id"] for row in rows]
    for row, record in zip(rows, records, strict=True):
        assert set(record) == RECORD
        assert {"prompt", "response", "reasons"} <= set(record["fields"])
        assert all(isinstance(value, str) for value in record["fields"].values())
        assert all(isinstance(value, str | int | float) for value in record["metadata"].values())
        suggestion = record["suggestions"]["verdict"]
        assert set(suggestion) <= SUGGESTION
        is_decided = row["decided"] == "benign"
        assert suggestion["value"] == ("benign" if is_decided else "poison")
        assert suggestion["type"] == ("human" if is_decided else "model")


def test_label_studio_gets_data_and_a_prediction(tmp_path: Path) -> None:
    """The prediction answers the control that the docs name, about a field of the data."""
    rows, _, text = decided_rows(tmp_path)
    assert text.isascii()
    tasks = json.loads(text)
    for row, task in zip(rows, tasks, strict=True):
        assert set(task) == {"data", "predictions"}
        assert task["data"]["example_id"] == row["example_id"]
        (prediction,) = task["predictions"]
        (choice,) = prediction["result"]
        assert (choice["from_name"], choice["type"]) == ("verdict", "choices")
        assert choice["to_name"] in task["data"]
        assert choice["value"]["choices"] == [row["decided"] or "poison"]
