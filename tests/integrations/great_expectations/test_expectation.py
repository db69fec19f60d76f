"""An expectation knows what it is about, and whether it can say which rows fail."""

import great_expectations.expectations as gxe
import pytest

from poisonwatch.integrations.great_expectations.expectation import AuditExpectation

TWO = {"column_A": "prompt", "column_B": "response"}


@pytest.mark.parametrize(
    ("expectation", "columns", "on_rows"),
    [
        (gxe.ExpectColumnValuesToBeNull(column="lacks"), ("lacks",), True),
        (gxe.ExpectColumnPairValuesToBeEqual(**TWO), ("prompt", "response"), True),
        (gxe.ExpectCompoundColumnsToBeUnique(column_list=["a", "b"]), ("a", "b"), True),
        (gxe.ExpectColumnMeanToBeBetween(column="tokens", max_value=5), ("tokens",), False),
        (gxe.ExpectTableRowCountToEqual(value=1), (), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_expectation_knows_its_columns(
    expectation: object, columns: tuple[str, ...], on_rows: bool
) -> None:
    """Each family of types names them otherwise; on rows are those that look at each by itself."""
    asked = AuditExpectation(expectation, "it fails")
    assert asked.columns == columns
    assert asked.on_rows is on_rows


def test_mostly_is_all_rows_unless_it_is_said() -> None:
    """Types on the batch have no `mostly`."""
    most = gxe.ExpectColumnValuesToBeNull(column="lacks", mostly=0.9)
    count = gxe.ExpectTableRowCountToEqual(value=1)
    assert AuditExpectation(most, "it fails").mostly == 0.9
    assert AuditExpectation(count, "it fails").mostly == 1
    assert AuditExpectation(count, "it fails").kind == "expect_table_row_count_to_equal"
