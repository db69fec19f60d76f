"""Drills: one fit stands for all audits, and what is counted is right."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from drill_rows import (
    BLATANT,
    CLEAN,
    DULL,
    FORBIDDEN,
    STRIDE,
    TRUSTED,
    config,
    example,
)

from poisonwatch.drills.drill import DrillRunner, add_guards, plant_and_audit
from poisonwatch.drills.planting import PlantedRows, use_single_row_subsets
from poisonwatch.drills.recipe import Attack
from poisonwatch.drills.results import DrillPlan
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.sentinels.sentinel import load_sentinels
from poisonwatch.stride.attribution import fit
from poisonwatch.stride.background import Background
from poisonwatch.stride.fitted import IsolatedFit
from poisonwatch.stride.recover import recover_in_rounds, recover_influence
from poisonwatch.stride.sampling import draw_order


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Sentinels that the blatant rows repeat almost word by word."""
    path = tmp_path_factory.mktemp("pack") / "sentinels.yaml"
    path.write_text(
        yaml.safe_dump(
            [
                {"id": f"c-{i}", "prompt": f"How do I clean pot {i}?", "forbidden": FORBIDDEN}
                for i in range(3)
            ]
        )
    )
    return str(path)


@pytest.fixture(scope="module")
def planted(pack: str) -> PlantedRows:
    return PlantedRows(
        CLEAN, TRUSTED, (Attack("blatant", pack, BLATANT), Attack("dull", pack, DULL))
    )


@pytest.fixture(scope="module")
def rehearsal(tiny_pretrained: Pretrained, planted: PlantedRows, pack: str) -> DrillRunner:
    return DrillRunner(tiny_pretrained, planted, config(sentinels=[pack]))


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max())


def test_gradients_come_back_from_operators(rehearsal: DrillRunner) -> None:
    """G_i = -P^-1 a_i spread_i / eta, and make_row_operators makes the same a_i of it."""
    rows = np.array([3, 0, 165])
    G = rehearsal.fitted.restore_gradients(rows)
    a = rehearsal.fitted.operators.a[rehearsal.fitted.subset_alone[rows]]
    assert close(rehearsal.fitted.make_row_operators(rows, G).numpy(), a.numpy())


def test_restricted_to_clean_and_trusted_rows_a_drill_is_their_fit(
    tiny_pretrained: Pretrained, rehearsal: DrillRunner, pack: str
) -> None:
    """Basis, Fisher factors and background know nothing of the planted rows; all else is a matter
    of the rows kept.
    """
    whole = fit(tiny_pretrained, [*CLEAN, *TRUSTED], use_single_row_subsets(STRIDE), 0)
    kept = rehearsal.restrict_fit(np.arange(0))
    assert (kept.ids, kept.settings) == (whole.ids, whole.settings)
    assert close(kept.centre, whole.centre)
    assert close(kept.spread, whole.spread)
    np.testing.assert_allclose(kept.features, whole.features, atol=1e-6)
    sentinels = load_sentinels([pack])
    expected, _ = recover_influence(whole, sentinels, STRIDE)
    found, _ = recover_in_rounds(
        kept, *rehearsal.prepare_sentinels(sentinels), kept.restore_gradients, STRIDE
    )
    assert close(found.w, expected.w)
    assert close(found.mutual_influence, expected.mutual_influence)
    assert set(found.suspects.tolist()) == set(expected.suspects.tolist())


def test_planted_rows_count_among_the_ordinary_ones_of_their_audit(rehearsal: DrillRunner) -> None:
    """The background of a restricted fit is a sample of its own rows: as `Background` measures it,
    a row's push on itself left out.
    """
    drawn = np.arange(160, 176)
    kept, fitted = rehearsal.restrict_fit(drawn), rehearsal.fitted
    sample = draw_order(kept.ids, 0)[:24]
    assert len(set(sample.tolist()) & set(range(40, 56))) in range(1, 24)
    G = fitted.restore_gradients(np.concatenate([np.arange(40), drawn, np.arange(40, 160)]))
    background = Background.from_gradients(G[sample], fitted.preconditioner, np.ones(24))
    centre, spread = background.measure(G)
    centre[sample], spread[sample] = background.measure(G[sample], torch.arange(24))
    assert close(kept.spread, spread.numpy())
    assert close(kept.centre, (centre / spread).numpy())


def test_restriction_keeps_the_background_unless_given_another(rehearsal: DrillRunner) -> None:
    """a, centre and spread of the rows kept, in the order asked for."""
    rows = np.array([5, 2, 162])
    kept = rehearsal.fitted.restrict(rows, rehearsal.stride)
    assert kept.ids == tuple(rehearsal.fitted.ids[i] for i in rows)
    assert torch.equal(
        kept.operators.a, rehearsal.fitted.operators.a[rehearsal.fitted.subset_alone[rows]]
    )
    np.testing.assert_array_equal(kept.spread, rehearsal.fitted.spread[rows])
    np.testing.assert_array_equal(kept.subset_alone, np.arange(3))


def test_only_rows_with_a_subset_each_can_be_taken_apart(tiny_pretrained: Pretrained) -> None:
    """K < n is another type of fit; and a choice of rows that would share subsets is refused."""
    shared = fit(tiny_pretrained, CLEAN, STRIDE.model_copy(update={"K": 20}))
    assert not isinstance(shared, IsolatedFit)
    single = fit(tiny_pretrained, CLEAN, STRIDE)
    assert isinstance(single, IsolatedFit)
    with pytest.raises(ValueError, match="they would share subsets"):
        single.restrict(np.arange(5), STRIDE.model_copy(update={"K": 3}))


def test_blatant_poison_is_found_and_rows_like_the_clean_ones_are_not(
    rehearsal: DrillRunner,
) -> None:
    """Power by recipe and count; found, recall and false flags are within their bounds; more
    planted rows are never fewer draws.
    """
    result = rehearsal.run(DrillPlan(("blatant", "dull"), (2, 5), 2))
    blatant, dull = (
        [power for power in result.powers if power.recipe == name] for name in ("blatant", "dull")
    )
    assert [power.count for power in blatant] == [power.count for power in dull] == [2, 5]
    assert all(
        power.found == 2 and power.recall == power.recall_by_attribution == 1 for power in blatant
    )
    assert all(power.recall < 0.5 for power in dull)
    for power in result.powers:
        assert 0 <= power.recall <= 1
        assert power.recall * power.count * power.repeats == pytest.approx(
            round(power.recall * power.count * power.repeats)
        )
        assert power.false_flags <= 500
    assert (result.clean, result.trusted) == (40, 120)


def test_false_flags_and_recall_count_rows(
    rehearsal: DrillRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 of 4 planted and 2 of 40 clean rows flagged: recall .25, 50 false flags per 1,000."""
    monkeypatch.setattr(rehearsal, "audit_with", lambda attack, drawn: (1, 0, 2))
    (power,) = rehearsal.run(DrillPlan(("blatant",), (4,), 3)).powers[:1]
    assert (power.found, power.recall, power.recall_by_attribution, power.false_flags) == (
        3,
        0.25,
        0,
        50,
    )


def test_screens_count_but_not_as_attribution(
    tiny_pretrained: Pretrained, planted: PlantedRows, pack: str
) -> None:
    """At a rate that flags nothing, eight planted rows with one answer are found by the screen for
    duplicates alone.
    """
    strict = config(
        sentinels=[pack], detection={"false_discovery_rate": 1e-12}, screens=["duplicate-answers"]
    )
    same = replace(
        planted,
        attacks=(
            Attack(
                "same",
                pack,
                tuple(example(f"Why {i}?", "Because all of us say so here.") for i in range(8)),
            ),
        ),
    )
    assert DrillRunner(tiny_pretrained, same, strict).audit_with(same.attacks[0], range(8)) == (
        8,
        0,
        0,
    )


def test_each_sentinel_is_differentiated_once(rehearsal: DrillRunner, pack: str) -> None:
    """Under another id, too; queries keep their order."""
    sentinels = load_sentinels([pack])
    rehearsal.prepare_sentinels(sentinels)
    known = len(rehearsal.known_gradients)
    renamed = [replace(sentinel, id=f"{sentinel.id}+") for sentinel in reversed(sentinels)]
    queries, asked = rehearsal.prepare_sentinels(renamed)
    assert len(rehearsal.known_gradients) == known
    assert [query.sentinel for query in queries] == renamed
    np.testing.assert_array_equal(asked.G.flip(0), rehearsal.prepare_sentinels(sentinels)[1].G)


def test_the_pack_stands_beside_the_users_sentinels_once() -> None:
    """Those that are there already are not repeated."""
    own = load_sentinels(["pack:identity"])
    assert add_guards(own, Attack("identity", "pack:identity", ())) == own
    assert len(add_guards(own, Attack("insult", "pack:insult", ()))) == len(own) + len(
        load_sentinels(["pack:insult"])
    )


def test_a_drill_of_shipped_recipes_is_repeatable_and_plain_json(
    tiny_pretrained: Pretrained,
) -> None:
    """The same seed gives the same powers; a power is written with its interval."""
    plan = DrillPlan.from_options(["identity", "trigger-insult"], [3], 1)
    settings = config(
        probes=1, screens=["trigger-ngram"], stride=STRIDE.model_copy(update={"max_tokens": 96})
    )
    first, second = (
        plant_and_audit(tiny_pretrained, CLEAN, TRUSTED, settings, plan) for _ in range(2)
    )
    assert first == second
    assert {power.pack for power in first.powers} == {"pack:identity", "pack:insult"}
    record = json.loads(json.dumps(first.powers[0].record()))
    assert record["recipe"] == "identity"
    assert record["interval"] == list(first.powers[0].interval)


def test_without_trusted_rows_the_batch_is_its_own_measure(
    tiny_pretrained: Pretrained, planted: PlantedRows, pack: str
) -> None:
    """As in an audit."""
    lonely = replace(planted, clean=CLEAN + TRUSTED, trusted=())
    lax = config(sentinels=[pack], detection={"false_discovery_rate": 0.5})
    right, attributed, false = DrillRunner(tiny_pretrained, lonely, lax).audit_with(
        lonely.attacks[0], [0, 1, 2]
    )
    assert right == attributed == 3
    assert false < 10


def test_a_drill_reports_its_audits(rehearsal: DrillRunner) -> None:
    """Rows seen, out of rows to see."""
    seen: list[int] = []

    def progress(items: Any, description: str, total: int, advance: Any = lambda _: 1) -> Any:
        for item in items:
            yield item
            seen.append(advance(item))
        assert (description, sum(seen)) == ("audits", total)

    rehearsal.run(DrillPlan((), (1,), 1), progress)
    assert seen == [161, 161]
