"""How people look at flagged rows: the section `review` of an audit file.

review: {two_people: high}     decisions on groups of severity high need two people who agree
review: false                  no review queue in MLflow
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from poisonwatch.source_config import Section

TwoPeople = Literal["none", "high", "all"]


def _accept_nothing(value: Any) -> Any:
    # YAML reads null, no and off as these.
    return "none" if value in (None, False) else value


class ReviewConfig(Section):
    """Who must look, and where."""

    mlflow: bool = True
    """Put flagged rows into a review queue in MLflow, and read the answers back."""
    two_people: Annotated[TwoPeople, BeforeValidator(_accept_nothing)] = "none"
    """Which decisions count once two different people agree, and not before. high: those on groups
    of severity high, and repairs of any row; all: each one; none: one person's word is enough.
    """


def accept_switch(value: Any) -> Any:
    """Lets true or false stand for a section that says no more than `mlflow`."""
    return {"mlflow": value} if isinstance(value, bool) else value


def needs_two(two_people: TwoPeople, severity: str) -> bool:
    """Whether a decision on a row takes two people, by the severity of its group ("" without)."""
    return two_people == "all" or (two_people == "high" and severity == "high")
