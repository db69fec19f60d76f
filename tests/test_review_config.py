"""Who must look at flagged rows: the section `review`."""

from typing import Any

import pytest
from pydantic import ValidationError

from poisonwatch.review_config import ReviewConfig, accept_switch, needs_two


@pytest.mark.parametrize(
    ("written", "mlflow", "two_people"),
    [
        (True, True, "none"),
        (False, False, "none"),
        ({"two_people": "high"}, True, "high"),
        ({"two_people": None}, True, "none"),
        ({"two_people": False, "mlflow": False}, False, "none"),
    ],
)
def test_a_switch_stands_for_the_section(written: Any, mlflow: bool, two_people: str) -> None:
    """As audit files have it since before there was one."""
    section = ReviewConfig.model_validate(accept_switch(written))
    assert (section.mlflow, section.two_people) == (mlflow, two_people)


def test_what_is_no_severity_is_refused() -> None:
    """And yes, which severity?"""
    for wrong in ("low", True):
        with pytest.raises(ValidationError):
            ReviewConfig.model_validate({"two_people": wrong})


def test_two_are_needed_where_the_group_is_grave() -> None:
    """Or for everything."""
    asked = [(two, severity) for two in ("none", "high", "all") for severity in ("high", "low", "")]
    needed = [needs_two(two, severity) for two, severity in asked]  # type: ignore[arg-type]
    assert needed == [False, False, False, True, False, False, True, True, True]
