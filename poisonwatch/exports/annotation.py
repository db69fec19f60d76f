"""Flagged rows for annotation tools, which show them to people and ask for a verdict.

Both formats are read by the tools themselves, without a package of theirs here: Argilla's records
as `Dataset.records.from_json` takes them, Label Studio's tasks as its import does. Either asks one
question, `verdict`, answered beforehand with what Poisonwatch, or a person, said of the row.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import poisonwatch
from poisonwatch.exports.flagged import list_facts, show_reasons, show_texts
from poisonwatch.ledger.row_states import REPAIRS

QUESTION = "verdict"
AGENT = f"poisonwatch {poisonwatch.__version__}"
GUESS = "poison"  # of a flagged row that nobody has decided on


def make_argilla_records(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Records of Argilla 2: fields `prompt`, `response` and `reasons` (`tools` and
    `rejected_response` where a row has them), a suggestion, and the facts as metadata.
    """
    records = []
    for row in rows:
        suggestion = {"value": _choose_verdict(row), "type": "model", "agent": AGENT}
        if row.get("decided"):
            suggestion["type"] = "human"
        record = {
            "id": row["example_id"],
            "fields": {**show_texts(row), "reasons": show_reasons(row)},
            "suggestions": {QUESTION: suggestion},
            "metadata": list_facts(row),
        }
        records.append(record)
    return records


def make_label_studio_tasks(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Tasks of Label Studio: the texts and facts as `data`, and a prediction for the control
    `<Choices name="verdict" toName="response">`.
    """
    tasks = []
    for row in rows:
        data = {**list_facts(row), **show_texts(row), "reasons": show_reasons(row)}
        choice = {
            "from_name": QUESTION,
            "to_name": "response",
            "type": "choices",
            "value": {"choices": [_choose_verdict(row)]},
        }
        tasks.append({"data": data, "predictions": [{"model_version": AGENT, "result": [choice]}]})
    return tasks


def _choose_verdict(row: Mapping[str, Any]) -> str:
    decided = row.get("decided")
    # Whoever repairs a row says that it is poison as it stands.
    if not decided or decided in REPAIRS:
        return GUESS
    return str(decided)
