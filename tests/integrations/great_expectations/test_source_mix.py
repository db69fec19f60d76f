"""The mix of sources against that of earlier audits."""

from pathlib import Path

from validated import GOOD, LENIENT, about, rows_of

from poisonwatch.config import ValidationConfig
from poisonwatch.integrations.great_expectations.validate import check_rows
from poisonwatch.validation import Facts


def test_a_batch_from_elsewhere_is_warned_of(tmp_path: Path) -> None:
    """Files of a dated series are one source; all rows from a new one is the greatest drift, which
    1 allows.
    """
    rows = rows_of(tmp_path, [GOOD], "day-2.jsonl")
    folder = str(tmp_path)
    assert about(
        check_rows(rows, LENIENT, Facts(earlier={f"{folder}/day-1.jsonl": 5})), "series"
    ).passed
    drifted = about(
        check_rows(rows, LENIENT, Facts(earlier={f"{folder}/other.jsonl": 5})), "series"
    )
    assert (drifted.passed, drifted.failure_message) == (
        False,
        "more than 50% of the rows come from elsewhere than in the last audits (observed: 100%)",
    )
    assert about(
        check_rows(rows, ValidationConfig(max_source_drift=1), Facts(earlier={"other": 5})),
        "series",
    ).passed
    assert not [check for check in check_rows(rows, LENIENT).checks if check.column == "series"]
