"""Which rows a drill holds, and what it sets aside."""

import pytest
from drill_rows import BLATANT, CLEAN, DULL, STRIDE, TRUSTED, config

from poisonwatch.drills.planting import PastVerdicts, PlantedRows, plant_attacks
from poisonwatch.drills.recipe import Attack
from poisonwatch.drills.results import DrillPlan
from poisonwatch.errors import ConfigError, InputError
from poisonwatch.model.pretrained import Pretrained


def test_rows_past_the_memory_budget_are_drawn_and_said(tiny_pretrained: Pretrained) -> None:
    """The budget holds a gradient a row and layer: clean and trusted rows are drawn in proportion,
    every attack whole; less than that is refused.
    """
    operator = 2 * 4 * 8 * 32 / 2**30
    settings = config(stride=STRIDE.model_copy(update={"memory_gb": 110 * operator}))
    drawn = plant_attacks(
        tiny_pretrained, CLEAN, TRUSTED, settings, DrillPlan.from_options(["identity"])
    )
    assert len(drawn.rows) <= 110
    assert (len(drawn.clean), len(drawn.trusted), len(drawn.attacks[0].rows)) == (20, 60, 28)
    assert set(drawn.clean) < set(CLEAN)
    (note,) = drawn.notes
    assert note.startswith("20 of 40 clean and 60 of 120 trusted rows were drawn: stride.memory_gb")
    with pytest.raises(ConfigError, match="too little for a drill of 10 recipes: raise it"):
        plant_attacks(tiny_pretrained, CLEAN, TRUSTED, settings, DrillPlan.from_options())


def test_settings_that_a_drill_cannot_follow_are_said(tiny_pretrained: Pretrained) -> None:
    """A training is refused; given subsets are set aside, in a note."""
    with pytest.raises(ConfigError, match="choose natural-gradient"):
        plant_attacks(
            tiny_pretrained,
            CLEAN,
            (),
            config(stride=STRIDE.model_copy(update={"fit": "sgd"})),
            DrillPlan.from_options(["identity"]),
        )
    noted = plant_attacks(
        tiny_pretrained,
        CLEAN,
        (),
        config(stride=STRIDE.model_copy(update={"K": 10})),
        DrillPlan.from_options(["identity"]),
    )
    assert "every row was measured alone" in noted.notes[0]
    assert (
        plant_attacks(
            tiny_pretrained, CLEAN, (), config(), DrillPlan.from_options(["identity"])
        ).notes
        == ()
    )


def test_a_trusted_row_that_is_an_attack_s_is_left_out(tiny_pretrained: Pretrained) -> None:
    """In its audits it would be new and trusted at once."""
    plan = DrillPlan.from_options(["identity"])
    attacking = plant_attacks(tiny_pretrained, CLEAN, TRUSTED, config(), plan).attacks[0].rows
    planted = plant_attacks(tiny_pretrained, CLEAN, (*TRUSTED, attacking[0]), config(), plan)
    assert planted.trusted == TRUSTED
    assert planted.make_audit(attacking).trusted == TRUSTED


def test_every_row_of_a_drill_has_its_place() -> None:
    """rows[clean_places], rows[trusted_places] and rows[find_places(attack)] are what they say."""
    attacks = (Attack("blatant", "pack:insult", BLATANT), Attack("dull", "pack:insult", DULL))
    planted = PlantedRows(CLEAN, TRUSTED, attacks)
    rows = planted.rows
    assert tuple(rows[i] for i in planted.clean_places) == CLEAN
    assert tuple(rows[i] for i in planted.trusted_places) == TRUSTED
    for attack in planted.attacks:
        assert tuple(rows[i] for i in planted.find_places(attack)) == attack.rows


def test_rows_that_the_ledger_suspects_are_neither_clean_nor_donors(
    tiny_pretrained: Pretrained,
) -> None:
    """They would be flagged in every audit, and lend their prompts to the attack; with all rows
    suspected there is nothing to plant among.
    """
    plan = DrillPlan.from_options(["trigger-insult"])
    past = PastVerdicts(suspected=frozenset(row.id for row in CLEAN[:37]))
    planted = plant_attacks(tiny_pretrained, CLEAN, TRUSTED, config(), plan, past)
    assert planted.clean == CLEAN[37:]
    assert planted.suspected == 37
    assert set(planted.attacks[0].donors) == {row.id for row in CLEAN[37:]}
    assert planted.notes == (
        "37 rows that the ledger holds as flagged or as poison were not taken as clean",
    )
    everything = PastVerdicts(suspected=frozenset(row.id for row in CLEAN))
    with pytest.raises(InputError, match="none is left to plant among"):
        plant_attacks(tiny_pretrained, CLEAN, TRUSTED, config(), plan, everything)


def test_rows_set_aside_keep_their_places_and_are_in_no_audit() -> None:
    """The places of all others stay what they were."""
    attack = Attack("dull", "pack:insult", DULL)
    planted = PlantedRows(CLEAN, TRUSTED, (attack,), set_aside=frozenset({0, 5}))
    assert planted.clean_places == [1, 2, 3, 4, *range(6, 40)]
    assert planted.find_places(attack) == range(160, 168)
    audit = planted.make_audit(DULL[:2])
    assert audit.new == (*CLEAN[1:5], *CLEAN[6:], *DULL[:2])
