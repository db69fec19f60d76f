"""What an audit file may say of what stays."""

import pytest
from pydantic import ValidationError

from poisonwatch.keep_config import KeepConfig


def test_nothing_is_pruned_by_itself_and_a_good_deal_stays() -> None:
    """A quarter of a year, and a month of daily audits, whichever is more."""
    keep = KeepConfig()
    assert (keep.prune, keep.days, keep.audits, keep.operators) == ("by-hand", 90, 30, 3)
    assert keep.drills == 3
    assert keep.released


@pytest.mark.parametrize(
    "settings", [{"days": -1}, {"audits": 0}, {"operators": -1}, {"drills": 0}, {"prune": "always"}]
)
def test_what_makes_no_sense_is_refused(settings: dict[str, object]) -> None:
    """The last audit always stays, and the last drill."""
    with pytest.raises(ValidationError):
        KeepConfig(**settings)  # type: ignore[arg-type]
