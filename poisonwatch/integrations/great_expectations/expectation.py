"""An expectation of Great Expectations, with what it means for the audit to fail it."""

from dataclasses import dataclass

import great_expectations.expectations as gxe
from great_expectations.expectations.expectation import (
    ColumnMapExpectation,
    ColumnPairMapExpectation,
    Expectation,
    MulticolumnMapExpectation,
)

from poisonwatch.validation import Severity

# Types that look at each row by itself, and so can say which rows fail.
ROW_EXPECTATIONS = (ColumnMapExpectation, ColumnPairMapExpectation, MulticolumnMapExpectation)

# Those among them that look at other rows, too: at their values, their mean, their order.
ACROSS_ROWS = (
    gxe.ExpectColumnValuesToBeUnique,
    gxe.ExpectCompoundColumnsToBeUnique,
    gxe.ExpectColumnValuesToBeIncreasing,
    gxe.ExpectColumnValuesToBeDecreasing,
    gxe.ExpectColumnValueZScoresToBeLessThan,
    gxe.ExpectColumnValuesToNotBeOutliers,
)


@dataclass(frozen=True, slots=True)
class AuditExpectation:
    """An expectation, what it means to fail it, and what follows.

    `detail` is the column that says more about a failing row, and `remedy` what lets such a row
    pass; `setting` is the place of an expectation of the user's in the audit file.
    """

    expectation: Expectation
    reason: str
    severity: Severity = "reject"
    detail: str | None = None
    remedy: str | None = None
    setting: str | None = None

    @property
    def kind(self) -> str:
        """Great Expectations' name for it, as expect_column_values_to_be_null."""
        return str(self.expectation.expectation_type)

    @property
    def on_rows(self) -> bool:
        """Whether it can say which rows fail."""
        return isinstance(self.expectation, ROW_EXPECTATIONS)

    @property
    def in_pieces(self) -> bool:
        """Whether rows can be asked some at a time: the answer for one depends on no other."""
        return self.on_rows and not isinstance(self.expectation, ACROSS_ROWS)

    @property
    def mostly(self) -> float:
        """The share of rows that must hold; an expectation with less than 1 is one on the batch."""
        return float(getattr(self.expectation, "mostly", 1))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it is about."""
        return list_columns(self.expectation)


def list_columns(expectation: Expectation) -> tuple[str, ...]:
    """The columns that an expectation is about."""
    # Each family of types has its own names for them.
    columns: list[str] = []
    for name in ("column", "column_A", "column_B"):
        column = getattr(expectation, name, None)
        if column:
            columns.append(column)
    columns += getattr(expectation, "column_list", None) or ()
    return tuple(columns)
