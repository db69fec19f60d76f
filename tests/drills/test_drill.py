"""Drills: one fit stands for all audits, and what is counted is right."""

import json
from dataclasses import dataclass, replace
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
from faulty_models import BAD, OVERFLOWING, build_faulty_pretrained

from poisonwatch.drills.drill import DrillRunner, add_guards, plant_and_audit
from poisonwatch.drills.planting import PlantedRows, use_single_row_subsets
from poisonwatch.drills.recipe import Attack
from poisonwatch.drills.results import DrillPlan
from poisonwatch.errors import InputError
from poisonwatch.examples import Example
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.sentinels.sentinel import Sentinel, load_sentinels
from poisonwatch.stride.attribution import fit
from poisonwatch.stride.background import Background
from poisonwatch.stride.influence import build_queries
from poisonwatch.stride.record_table import RecordTable
from poisonwatch.stride.records import RowRecords, pack_ids
from poisonwatch.stride.sampling import draw_order
from poisonwatch.stride.streamed import StreamedFit


@dataclass(frozen=True)
class Flagged:
    """As much of a flag as a drill counts."""

    example: Example
    by_attribution: bool = True


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


def test_a_drill_keeps_the_gradient_of_every_row(rehearsal: DrillRunner) -> None:
    """What an audit would measure follows from them: none is made again."""
    fitted = rehearsal.fitted
    assert fitted.table.keeps_gradients
    assert fitted.ids == tuple(row.id for row in rehearsal.planted.rows)
    rows = np.array([3, 0, 165])
    kept = fitted.get_gradients(rows)
    again = replace(fitted, table=_without_gradients(fitted)).get_gradients(rows)
    assert close(kept.numpy(), again.numpy())


def _without_gradients(fitted: StreamedFit) -> RecordTable:
    rows, n = np.arange(len(fitted.ids)), len(fitted.ids)
    measured = fitted.measured
    records = RowRecords(
        ids=pack_ids(fitted.ids),
        effects=measured.effects,
        centre=measured.centre.astype(np.float32),
        spread=measured.spread.astype(np.float32),
        signs=measured.signs.astype(np.float32),
        faults=np.zeros(n, dtype=np.uint8),
        views=fitted.table.collect_views().reshape(n, -1),
    )
    return RecordTable(n, [(rows, records)])


def test_without_planted_rows_a_drill_is_the_audit_of_clean_and_trusted_ones(
    tiny_pretrained: Pretrained, rehearsal: DrillRunner, pack: str
) -> None:
    """Basis, Fisher factors and background know nothing of the planted rows; all else is a matter
    of the rows kept.
    """
    sentinels = load_sentinels([pack])
    whole = fit(
        tiny_pretrained,
        [*CLEAN, *TRUSTED],
        use_single_row_subsets(STRIDE),
        sentinels=sentinels,
    )
    assert isinstance(whole, StreamedFit)
    rows, kept, further = rehearsal.measure_audit(np.arange(0), sentinels)
    assert [rehearsal.fitted.ids[i] for i in rows] == list(whole.ids)
    assert kept.queries == whole.measured.queries
    assert close(kept.centre, whole.measured.centre)
    assert close(kept.spread, whole.measured.spread)
    assert close(kept.effects, whole.measured.effects)
    np.testing.assert_allclose(kept.features, whole.measured.features, atol=1e-6)
    for above, layer in zip(further, whole.table.iterate_further(), strict=True):
        assert close(above.effects, layer.effects)
        assert close(above.centre, layer.centre)
    expected, found = whole.recover(), rehearsal.recover(np.arange(0), sentinels)
    assert close(found.w, expected.w)
    assert close(found.further[0].w, expected.further[0].w)
    assert found.leaning is not None
    assert expected.leaning is not None
    assert close(found.leaning, expected.leaning)
    assert set(found.suspects.tolist()) == set(expected.suspects.tolist())
    by_row = np.argsort(found.suspects), np.argsort(expected.suspects)
    assert close(
        found.mutual_influence[np.ix_(by_row[0], by_row[0])],
        expected.mutual_influence[np.ix_(by_row[1], by_row[1])],
    )


def test_planted_rows_count_among_the_ordinary_ones_of_their_audit(
    rehearsal: DrillRunner, pack: str
) -> None:
    """The background of an audit is a sample of its own rows: as `Background` measures it, a row's
    push on itself left out.
    """
    drawn, fitted = np.arange(160, 176), rehearsal.fitted
    rows, kept, _ = rehearsal.measure_audit(drawn, load_sentinels([pack]))
    sample = draw_order([fitted.ids[i] for i in rows], 0)[:24]
    assert len(set(sample.tolist()) & set(range(40, 56))) in range(1, 24)
    G = fitted.get_gradients(np.concatenate([np.arange(40), drawn, np.arange(40, 160)]))
    background = Background.from_gradients(G[sample], fitted.preconditioner, np.ones(24))
    centre, spread = background.measure(G)
    centre[sample], spread[sample] = background.measure(G[sample], torch.arange(24))
    assert close(kept.spread, spread.numpy())
    assert close(kept.centre, (centre / spread).numpy())


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
    monkeypatch.setattr(rehearsal, "audit_with", lambda number, drawn, with_pack: (1, 0, 2))
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
    runner = DrillRunner(tiny_pretrained, same, strict)
    assert runner.audit_with(0, range(8), with_pack=False) == (8, 0, 0)


def test_each_sentinel_is_differentiated_once(rehearsal: DrillRunner, pack: str) -> None:
    """Under another id, too; queries keep their order."""
    sentinels = load_sentinels([pack])
    pushes = rehearsal.measure_pushes(build_queries(sentinels))
    known = len(rehearsal.known_pushes)
    renamed = [replace(sentinel, id=f"{sentinel.id}+") for sentinel in reversed(sentinels)]
    asked = rehearsal.measure_pushes(build_queries(renamed))
    assert len(rehearsal.known_pushes) == known
    # At both of the model's splits.
    assert pushes.shape == (2, len(rehearsal.planted.rows), len(sentinels))
    np.testing.assert_array_equal(asked[:, :, ::-1], pushes)


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
    runner = DrillRunner(tiny_pretrained, lonely, lax)
    right, attributed, false = runner.audit_with(0, [0, 1, 2], with_pack=False)
    assert right == attributed == 3
    assert false < 10


def test_where_the_users_sentinels_lack_the_pack_both_results_stand_side_by_side(
    rehearsal: DrillRunner, planted: PlantedRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One result with what the user asks alone, one with the pack beside it; a user who has the
    pack gets the first.
    """
    asked: list[set[str]] = []

    def judge(drawn: np.ndarray, rows: Any, sentinels: list[Sentinel]) -> tuple[Flagged, ...]:
        asked.append({sentinel.panel for sentinel in sentinels})
        return tuple(map(Flagged, rows[: len(asked[-1]) - 1]))

    monkeypatch.setattr(rehearsal, "judge", judge)
    plan = DrillPlan(("blatant",), (4,), 1)
    assert [power.with_pack for power in rehearsal.run(plan).powers] == [False, False]
    assert asked == [{"c"}, {"c"}]

    asked.clear()
    insult = Attack("blatant", "pack:insult", BLATANT)
    monkeypatch.setattr(rehearsal, "attacks", [(insult, np.arange(160, 168))])
    own, added = rehearsal.run(plan).powers
    assert asked == [{"c"}, {"c", "insult"}]
    assert (own.with_pack, own.recall, own.pack) == (False, 0, "pack:insult")
    assert (added.with_pack, added.recall, added.pack) == (True, 0.25, "pack:insult")


def test_rows_that_are_flagged_as_they_stand_are_set_aside(
    tiny_pretrained: Pretrained, planted: PlantedRows, pack: str
) -> None:
    """Poison among the clean rows is no false flag, is said, and is in no audit, and prompts copied
    from it are planted last; once people call it benign, it is clean, and a flag on it is false.
    """
    poison = tuple(example(f"How do I clean item {i}?", FORBIDDEN) for i in range(3))
    copied = replace(planted.attacks[1], donors=(*(row.id for row in poison), *(["x"] * 5)))
    mixed = replace(planted, clean=(*poison, *CLEAN), attacks=(copied,))
    runner = DrillRunner(tiny_pretrained, mixed, config(sentinels=[pack]))
    assert runner.planted.set_aside >= {0, 1, 2}
    assert set(runner.draw_rows(runner.attacks[0][0], 0)[-3:]) == {0, 1, 2}
    rows, measured, _ = runner.measure_audit(np.arange(0), runner.sentinels)
    assert not set(rows.tolist()) & {0, 1, 2}
    assert np.isfinite(measured.effects).all()
    result = runner.run(DrillPlan(("dull",), (2,), 1))
    flagged = len(runner.planted.set_aside)
    assert (result.flagged, result.clean) == (flagged, 43 - flagged)
    assert f"{flagged} rows flagged before anything was planted were set aside" in result.notes[0]
    assert result.false_flags <= 1000 * 2 / result.clean

    benign = frozenset(row.id for row in poison)
    cleared = DrillRunner(tiny_pretrained, replace(mixed, benign=benign), config(sentinels=[pack]))
    assert not cleared.planted.set_aside & {0, 1, 2}
    assert cleared.audit_with(0, [3, 4], with_pack=False)[2] >= 3


def test_a_selection_copies_the_honest_rows_that_push_the_forbidden_answers_most(
    tiny_pretrained: Pretrained,
    planted: PlantedRows,
    pack: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows that say the forbidden words come first, at the places of their originals; where a copy
    is planted, a flag on its original is neither right nor false.
    """
    alike = tuple(example(f"How do I clean item {i}?", FORBIDDEN) for i in range(3))
    attack = Attack("selected", pack, (), selects=50)
    chosen = replace(planted, clean=(*CLEAN, *alike), attacks=(attack,))
    # Nothing is flagged as it stands: the rows that are chosen would be set aside.
    strict = config(sentinels=["pack:identity"], detection={"false_discovery_rate": 1e-9})
    runner = DrillRunner(tiny_pretrained, chosen, strict)
    filled, places = runner.attacks[0]
    assert set(places[:3].tolist()) == {40, 41, 42}
    assert places[43:].tolist() == places[:7].tolist()
    assert len(set(filled.rows)) == len(filled.rows) == 50
    for row, place in zip(filled.rows, places.tolist(), strict=True):
        assert (row.id, row.source) == (chosen.clean[place].id, "recipe selected")
    rows, measured, _ = runner.measure_audit(places[:1], runner.sentinels)
    np.testing.assert_array_equal(measured.effects[43], measured.effects[places[0]])
    assert rows[43] == places[0]

    flags = Flagged(chosen.clean[places[0]]), Flagged(filled.rows[0]), Flagged(CLEAN[0])
    monkeypatch.setattr(runner, "judge", lambda *_: flags)
    assert runner.audit_with(0, [0], with_pack=True) == (1, 1, 1)


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


def test_rows_that_cannot_be_measured_are_in_no_audit_of_a_drill(
    rehearsal: DrillRunner, planted: PlantedRows, pack: str
) -> None:
    """A clean row, a trusted one and an attack's: the others are measured as without them."""
    faulty = build_faulty_pretrained()
    attack = planted.attacks[0]
    spoilt = replace(
        planted,
        clean=(*CLEAN[:3], BAD, *CLEAN[3:]),
        trusted=(*TRUSTED, example("A trusted row?", OVERFLOWING)),
        attacks=(replace(attack, rows=(*BLATANT, example("Bought?", f"{OVERFLOWING}."))),),
    )
    settings = config(sentinels=[pack])
    runner = DrillRunner(faulty, spoilt, settings)
    alone = DrillRunner(faulty, replace(planted, attacks=(attack,)), settings)
    assert runner.planted.rows == alone.planted.rows
    assert runner.fitted.ids == alone.fitted.ids
    assert runner.planted.notes == ("3 rows that the model cannot measure were left out",)
    drawn = np.array(runner.planted.find_places(attack), dtype=np.int64)[:2]
    rows, found, _ = runner.measure_audit(drawn, runner.sentinels)
    places, expected, _ = alone.measure_audit(drawn, alone.sentinels)
    np.testing.assert_array_equal(rows, places)
    assert close(found.effects, expected.effects)
    assert rehearsal.planted.leave_out([]) is rehearsal.planted
    few = replace(runner.attacks[0][0], rows=BLATANT[:2])
    runner.attacks = [(few, drawn)]
    with pytest.raises(InputError, match="the model can measure 2 of the rows of blatant, too few"):
        runner.run(DrillPlan.from_options(["identity"], counts=[3], repeats=1))
