"""Expectations on a frame: what is measured, what cannot be, and nothing is written or said."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from validated import GOOD, about, asking, checked, rows_of

from poisonwatch.errors import ConfigError
from poisonwatch.integrations.great_expectations.validate import check_rows
from poisonwatch.sources.open import SourceRows
from poisonwatch.validation import Facts


def test_an_empty_batch_is_an_empty_result() -> None:
    """No row fails, nothing can be measured, and how many rows there are is still asked."""
    rows = SourceRows([], [], {})
    mean = {"type": "ExpectColumnMeanToBeBetween", "column": "tokens", "min_value": 1}
    found = check_rows(
        rows,
        asking(mean, {"type": "ExpectTableRowCountToBeBetween", "min_value": 10}),
        Facts(earlier={"a": 1}),
    )
    assert (found.examples, found.rejected) == ([], [])
    assert [check.expectation for check in found.checks if not check.passed] == [
        "expect_table_row_count_to_be_between"
    ]
    assert about(found, "tokens").observed == "no rows"


def test_equal_expectations_are_each_evaluated(tmp_path: Path) -> None:
    """One warns, one rejects: neither replaces the other."""
    short = {"type": "ExpectColumnValueLengthsToBeBetween", "column": "response", "min_value": 3}
    found = checked(
        tmp_path, [{"prompt": "p", "response": "x"}], asking({**short, "severity": "warn"}, short)
    )
    assert [
        (c.severity, c.failing)
        for c in found.checks
        if c.reason.startswith("ExpectColumnValueLengths")
    ] == [
        ("warn", 1),
        ("reject", 1),
    ]
    assert len(found.rejected) == 1


@pytest.mark.parametrize(
    ("expectation", "positions"),
    [
        (
            {
                "type": "ExpectColumnPairValuesToBeEqual",
                "column_A": "prompt",
                "column_B": "response",
            },
            [0, 1],
        ),
        ({"type": "ExpectCompoundColumnsToBeUnique", "column_list": ["prompt", "format"]}, [1, 2]),
        ({"type": "ExpectColumnValuesToBeUnique", "column": "prompt"}, [1, 2]),
        (
            {
                "type": "ExpectMulticolumnSumToEqual",
                "column_list": ["turns", "position"],
                "sum_total": 4,
            },
            [0, 1],
        ),
    ],
)
def test_expectations_on_several_columns_or_rows_reject_rows(
    tmp_path: Path, expectation: dict[str, Any], positions: list[int]
) -> None:
    """Of "Good?", "p" and "p" the last two are alike; only the last has its prompt for an answer;
    all have two turns.
    """
    found = checked(
        tmp_path,
        [{"prompt": "p", "response": "x"}, {"prompt": "p", "response": "p"}],
        asking(expectation),
    )
    assert [r.position for r in found.rejected] == positions
    columns = [value for key, value in expectation.items() if key.startswith("column")]
    assert all(
        column in found.rejected[0].expectation
        for column in (columns if isinstance(columns[0], str) else columns[0])
    )


@pytest.mark.parametrize(
    ("expectation", "said"),
    [
        (
            {"type": "ExpectColumnValuesToMatchRegex", "column": "prompt", "regex": "["},
            "unterminated character set",
        ),
        (
            {"type": "ExpectColumnMeanToBeBetween", "column": "prompt", "min_value": 1},
            "cannot be evaluated on prompt",
        ),
        (
            {"type": "ExpectColumnValuesToBeBetween", "column": "prompt", "min_value": 1},
            "cannot be evaluated on prompt",
        ),
        (
            {"type": "ExpectColumnValuesToMatchJsonSchema", "column": "prompt", "json_schema": {}},
            "cannot be evaluated on prompt",
        ),
    ],
)
def test_what_cannot_be_evaluated_says_so(
    tmp_path: Path, expectation: dict[str, Any], said: str
) -> None:
    """One line that names the setting; never a silent pass."""
    with pytest.raises(ConfigError) as caught:
        checked(
            tmp_path,
            [{"prompt": "\x1b[31mhostile\n", "response": "x"}],
            asking({"type": "ExpectTableRowCountToEqual", "value": 1}, expectation),
        )
    assert str(caught.value).startswith("validation.expectations[1]: expect_column_")
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


def test_values_that_are_observed_are_shown_inert(tmp_path: Path) -> None:
    """Row text among the checks is one visible line."""
    prompts = {
        "type": "ExpectColumnDistinctValuesToBeInSet",
        "column": "prompt",
        "value_set": ["Good?"],
    }
    observed = about(
        checked(tmp_path, [{"prompt": "\x1b[2J\n\u202e" * 300, "response": "x"}], asking(prompts)),
        "prompt",
    ).observed
    assert observed is not None
    assert observed.isprintable()
    assert len(observed) <= 200


def test_validation_writes_nothing_and_says_nothing(tmp_path: Path) -> None:
    """In a process of its own: no file in home, working or temporary folder, no line on stderr."""
    rows_of(tmp_path, [GOOD, {"prompt": "x"}])
    folders = {name: tmp_path / name for name in ("HOME", "TMPDIR", "here")}
    for folder in folders.values():
        folder.mkdir()
    code = (
        "from poisonwatch.config import *; from poisonwatch.sources.open import read_source\n"
        "from poisonwatch.integrations.great_expectations.validate import check_rows\n"
        f"rows = read_source(SourceConfig(path={str(tmp_path / 'rows.jsonl')!r}))\n"
        "users = [ExpectationConfig(type='ExpectColumnValuesToMatchRegex', column='prompt', regex='(G)', severity='warn')]\n"
        "print(len(check_rows(rows, ValidationConfig(max_rejected_share=1, expectations=users)).rejected))"
    )
    environment = {**os.environ, "HOME": str(folders["HOME"]), "TMPDIR": str(folders["TMPDIR"])}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folders["here"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
    assert [
        path for folder in folders.values() for path in folder.rglob("*") if path.is_file()
    ] == []
