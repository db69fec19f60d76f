"""Plans of drills, and what their numbers say."""

from dataclasses import replace
from typing import Any

import pytest

from poisonwatch.drills.recipe import list_recipes
from poisonwatch.drills.results import DetectionPower, DrillPlan, DrillResult
from poisonwatch.errors import InputError


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"names": ["nothing"]}, "there is no recipe nothing"),
        ({"counts": [5, 0]}, "--counts are 0, 5: choose from 1 to 28"),
        ({"counts": [29]}, "--counts are 29: choose from 1 to 28"),
        ({"repeats": 0}, "--repeats is 0: choose at least 1"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(asked: dict[str, Any], said: str) -> None:
    """With what is allowed."""
    with pytest.raises(InputError, match=said):
        DrillPlan.from_options(**asked)


def test_a_plan_has_defaults() -> None:
    """All recipes; 5, 10 and 20 rows; three draws. Counts rise, each once."""
    assert DrillPlan.from_options() == DrillPlan(tuple(list_recipes()), (5, 10, 20), 3)
    assert DrillPlan.from_options(["brand", "brand"], [20, 5, 5]).counts == (5, 20)
    assert DrillPlan.from_options(["brand", "brand"]).recipes == ("brand",)


def test_a_power_speaks_in_a_sentence_with_its_interval() -> None:
    """Wilson: 3 of 3 is 1.00 (0.44 to 1.00). The headline is the middle count of each recipe."""
    powers = tuple(
        DetectionPower("brand", "pack:x", count, 3, 3, 0.8, 0.7, 1.5) for count in (5, 10, 20)
    )
    assert powers[1].sentence == (
        "brand: 10 rows of an attack like this would be found with probability 1.00 (95 % interval 0.44 to 1.00, 3 drawn), "
        "80% of them flagged, at 1.5 false flags per 1,000 clean rows"
    )
    assert replace(powers[0], count=1).sentence.startswith("brand: 1 row of")
    assert replace(powers[0], pack="pack:x?brand=Acme", with_pack=True).sentence.startswith(
        "brand, with pack x added: 5 rows of"
    )
    result = DrillResult(powers, 100, 0, ())
    assert result.headline == [powers[1]]
    assert result.false_flags == 1.5


def test_false_flags_are_those_of_the_users_sentinels() -> None:
    """What a pack adds stands beside them in the headline, and is not mixed in."""
    own = DetectionPower("brand", "pack:x", 5, 3, 1, 0.2, 0.2, 2.0)
    added = replace(own, found=3, false_flags=10.0, with_pack=True)
    result = DrillResult((own, added), 100, 0, ())
    assert result.headline == [own, added]
    assert result.false_flags == 2.0
    assert added.record()["with_pack"] is True
