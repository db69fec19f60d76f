"""What stays of past audits once `poisonwatch prune` has run: the section `keep` of an audit file.

Decisions, flags, results, releases and the chain of records are no part of it: they always stay.
"""

from typing import Literal

from pydantic import Field

from poisonwatch.source_config import Section


class KeepConfig(Section):
    """What pruning leaves of past audits. What it never touches whatever stands here: audits with
    flagged rows that nobody decided on, the champion's, and those that somebody is still to be told
    of.
    """

    prune: Literal["by-hand", "after-audit"] = "by-hand"
    """after-audit: each audit prunes at its end. by-hand: `poisonwatch prune` alone does."""
    days: int = Field(90, ge=0, le=36_600)
    """Run directories and MLflow runs stay for so many days, a century at most."""
    audits: int = Field(30, ge=1)
    """And those of the last audits that had new rows, however old they are."""
    operators: int = Field(3, ge=0)
    """Last audits whose operators stay, in run directories and as versions of the registered model;
    the champion's stay. Without them `explain` cannot answer.
    """
    released: bool = True
    """Audits stay that a release leans on; false: their run directories may go, too."""
    drills: int = Field(3, ge=1)
    """Last drills that stay, however old they are: their run directories and MLflow runs."""
