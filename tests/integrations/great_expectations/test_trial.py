"""A batch in pieces is the batch: what is found does not depend on where it is cut."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from validated import GOOD, asking, rows_of

from poisonwatch.integrations.great_expectations import trial
from poisonwatch.integrations.great_expectations.validate import check_rows
from poisonwatch.packed_examples import PackedExamples
from poisonwatch.validation import Facts, Validation

LINES: list[Any] = [
    GOOD,
    "{broken",
    {"prompt": "a", "response": ""},
    {"prompt": "b", "response": "same", "by": "x"},
    {**GOOD, "id": 1},
    {"prompt": "c", "response": "same", "by": "x"},
    {"prompt": "d"},
    "{broken",
    {"prompt": "e", "response": "tail\u0000"},
    {"prompt": "b", "response": "same", "by": "y"},
    GOOD,
]
# On single rows, on most of them, across rows, on the batch.
ASKED = asking(
    {"type": "ExpectColumnValuesToBeInSet", "column": "record.by", "value_set": ["x"]},
    {"type": "ExpectColumnValueLengthsToBeBetween", "column": "prompt", "max_value": 2}
    | {"mostly": 0.5},
    {"type": "ExpectColumnValuesToBeUnique", "column": "response", "severity": "warn"},
    {"type": "ExpectColumnMeanToBeBetween", "column": "characters", "max_value": 5},
    {"type": "ExpectTableRowCountToBeBetween", "max_value": 5},
)
FACTS = Facts(max_tokens=1, earlier={"elsewhere": 10})


def check(folder: Path, pack: Path | None = None) -> Validation:
    rows = rows_of(folder, LINES)
    return check_rows(rows, ASKED, replace(FACTS, known=lambda ids: set(sorted(ids)[:1])), pack)


def drop_known(found: Validation) -> list[Any]:
    """The checks without the one on ids, which this file's made-up ledger answers by the piece."""
    return [each for each in found.checks if each.column != "known"]


@pytest.mark.parametrize("size", [3, 4])
def test_the_size_of_pieces_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Examples, rejections with their reasons, counts, shares and what was observed."""
    whole = check(tmp_path)
    monkeypatch.setattr(trial, "PIECE_ROWS", size)
    pieces = check(tmp_path)
    assert replace(pieces, checks=[]) == replace(whole, checks=[])
    assert drop_known(pieces) == drop_known(whole)
    assert (len(whole.examples), len(whole.rejected), whole.copies) == (2, 5, 4)


def test_long_rows_end_a_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes are bounded as rows are."""
    rows = rows_of(tmp_path, [{"prompt": "p" * 100, "response": str(i)} for i in range(5)])
    monkeypatch.setattr(trial, "PIECE_BYTES", 200)
    assert [len(piece) for piece in trial._split(rows)] == [2, 2, 1]


def test_examples_may_be_packed_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same examples, whichever piece refuses a content that passed before."""
    monkeypatch.setattr(trial, "PIECE_ROWS", 4)
    path = tmp_path / "passed.arrow"
    packed = check(tmp_path, path)
    assert isinstance(packed.examples, PackedExamples)
    assert list(packed.examples) == list(check(tmp_path).examples)
    assert list(PackedExamples.open(path)) == list(packed.examples)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["passed.arrow", "rows.jsonl"]
    assert json.dumps(packed.to_record())
