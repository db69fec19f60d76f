"""Scores: what must not matter, and what must."""

from dataclasses import replace

import numpy as np
import pytest

from poisonwatch.examples import Message
from poisonwatch.recovery.neighbour_graph import NeighbourGraph
from poisonwatch.recovery.robust import compute_robust_z
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.influence import Influence, LayerInfluence, Query, build_queries
from poisonwatch.stride.scoring import (
    GROUP_WEIGHT,
    LESSER_WEIGHT,
    compute_group_weights,
    compute_topic_units,
    pool_scores,
    raise_groups,
    score_rows,
    standardise_rows,
)


def sentinel(
    name: str, panel: str, forbidden: str | None = "no", reference: str | None = None
) -> Sentinel:
    return Sentinel(name, (Message("user", "Q"),), forbidden, reference, panel)


QUERIES = build_queries(
    [
        sentinel("a", "health"),
        sentinel("b", "health", reference="yes"),
        sentinel("c", "money"),
        sentinel("d", "refusal", forbidden=None, reference="yes"),
    ]
)


def influence(
    seed: int = 0, n: int = 120, m: int = 8, queries: tuple[Query, ...] = QUERIES
) -> Influence:
    draw = np.random.default_rng(seed)
    w = draw.normal(size=(n, len(queries)))
    return Influence(
        queries=queries,
        w=w,
        first_pass=w + draw.normal(size=w.shape),
        suspects=draw.choice(n, m, replace=False),
        mutual_influence=draw.normal(size=(m, m)),
        features=np.empty((n, 0), dtype=np.float32),
        neighbours=NeighbourGraph.empty(n),
        certificate=0.0,
    )


def test_scores_from_recovery_alone_leave_out_rescoring() -> None:
    """score(rescored=False) pools `first_pass`, score() pools w."""
    plain = influence(0, m=0)
    np.testing.assert_array_equal(
        score_rows(plain, rescored=False).pooled,
        score_rows(replace(plain, w=plain.first_pass)).pooled,
    )
    assert not np.allclose(score_rows(plain, rescored=False).pooled, score_rows(plain).pooled)


@pytest.mark.parametrize("seed", range(5))
def test_scaling_and_shifting_a_query_changes_nothing(seed: int) -> None:
    """own_q -> c_q own_q + b_q with c_q > 0, for any query: units of a sentinel cancel."""
    draw = np.random.default_rng(seed)
    own = draw.normal(size=(80, len(QUERIES)))
    moved = own * draw.uniform(0.01, 100, len(QUERIES)) + draw.normal(0, 5, len(QUERIES))
    np.testing.assert_allclose(pool_scores(QUERIES, moved), pool_scores(QUERIES, own), atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_scores_follow_the_rows_wherever_they_stand(seed: int) -> None:
    """score(P x) = P score(x)."""
    plain = influence(seed)
    order = np.random.default_rng(seed).permutation(len(plain.w))
    place = np.argsort(order)
    moved = replace(plain, w=plain.w[order], suspects=place[plain.suspects])
    np.testing.assert_allclose(score_rows(moved).pooled, score_rows(plain).pooled[order])


def test_kin_weights_sum_to_less_than_one_with_a_zero_diagonal() -> None:
    """sum_j W_ij = t / (t + median t) for total squared likeness t; W_ii = 0, W >= 0; 0 where a row
    has no kin.
    """
    kinship = np.random.default_rng(0).normal(size=(9, 9))
    kinship[4], kinship[:, 4] = -1.0, -1.0
    kinship[4, 4] = 100.0
    likeness = np.maximum((kinship + kinship.T) / 2, 0) * (1 - np.eye(9))
    total = (likeness**2).sum(axis=1)
    weights = compute_group_weights(kinship)
    np.testing.assert_allclose(weights.sum(axis=1), total / (total + np.median(total)))
    assert (weights >= 0).all()
    assert not np.diag(weights).any()
    assert not weights[:, 4].any()


def test_kin_weights_are_squared_mutual_likeness() -> None:
    """W_ij ~ max((k_ij + k_ji) / 2, 0)^2; the input is left as it was."""
    kinship = np.array([[9.0, 2.0, -4.0], [0.0, 9.0, 3.0], [1.0, 3.0, 9.0]])
    before = kinship.copy()
    np.testing.assert_allclose(
        compute_group_weights(kinship), [[0, 1 / 10, 0], [1 / 19, 0, 9 / 19], [0, 1 / 2, 0]]
    )
    np.testing.assert_array_equal(kinship, before)
    assert not compute_group_weights(np.zeros((3, 3))).any()


def test_kin_raise_each_other_and_nobody_else() -> None:
    """pooled_i gains KIN sum_j W_ij max(pooled_j - median suspect, 0) for suspects; other rows
    change nothing.
    """
    plain = influence(3)
    kinless, kin = (
        score_rows(
            replace(plain, suspects=np.empty(0, dtype=np.int64), mutual_influence=np.empty((0, 0)))
        ),
        score_rows(plain),
    )
    others = np.setdiff1d(np.arange(len(plain.w)), plain.suspects)
    np.testing.assert_array_equal(kin.pooled[others], kinless.pooled[others])
    gain = kin.pooled[plain.suspects] - kinless.pooled[plain.suspects]
    own = kinless.pooled[plain.suspects]
    np.testing.assert_allclose(
        gain,
        GROUP_WEIGHT
        * compute_group_weights(plain.mutual_influence)
        @ np.maximum(own - np.median(own.max(axis=1)), 0),
        atol=1e-12,
    )
    assert (gain >= 0).all()


def large(n: int, m: int = 60, crowd: int = 20) -> Influence:
    """n rows, of which m are suspects; the first `crowd` of these push each other ten times as far
    as others do.
    """
    draw = np.random.default_rng(0)
    mutual = draw.normal(size=(m, m))
    mutual[:crowd, :crowd] *= 10
    return replace(influence(0, n, m=0), suspects=np.arange(m), mutual_influence=mutual)


def test_suspects_of_a_large_batch_are_measured_beside_each_other() -> None:
    """A crowd that pushes its like comes in larger units, the median suspect in its own; what a row
    does to itself does not count, nor does anything for other rows.
    """
    batch = large(4000)
    units = compute_topic_units(batch)
    assert units is not None
    assert (units[:20] > 1.4).all()
    assert np.median(units[:60]) == pytest.approx(1.0)
    assert (units[60:] == 1.0).all()
    pushes = batch.mutual_influence**2
    np.fill_diagonal(pushes, np.nan)
    missing = 60 / 800 - 60 / 4000
    own = np.sqrt(1 - missing + missing * np.nanmean(pushes, axis=1))
    np.testing.assert_allclose(units[:60], own / np.median(own))
    loud = batch.mutual_influence + 1000 * np.eye(60)
    again = compute_topic_units(replace(batch, mutual_influence=loud))
    assert again is not None
    np.testing.assert_array_equal(again, units)


def test_of_a_crowd_in_a_large_batch_what_it_has_in_common_counts_less() -> None:
    """20 rows that push a sentinel and each other, and 40 suspects that push the sentinel as far
    and nothing besides: the latter are first.
    """
    batch = large(4000)
    w = batch.w.copy()
    w[:60] += 12.0
    alike = replace(batch, w=w, first_pass=w)
    apart = pool_scores(QUERIES, w, compute_topic_units(alike))[:, 0]
    assert apart[:20].max() < apart[20:60].min()
    together = pool_scores(QUERIES, w)[:, 0]
    assert together[:20].max() > together[20:60].min()


@pytest.mark.parametrize(
    "batch",
    [large(800), large(120), large(4000, m=1, crowd=1), influence(0, 4000, m=0)],
    ids=["few rows", "fewer", "one suspect", "none"],
)
def test_small_batches_are_measured_by_their_background_alone(batch: Influence) -> None:
    assert compute_topic_units(batch) is None


def test_of_many_suspects_the_strongest_say_what_a_group_must_be_beyond() -> None:
    """A topic of 60 rows that push each other, among 400 suspects: no such row gains by what all of
    them do, and rows that do more still gain.
    """
    draw = np.random.default_rng(0)
    topic, planted, m = np.arange(10, 70), np.arange(10), 400
    mutual = np.zeros((m, m))
    for group in (topic, planted):
        mutual[np.ix_(group, group)] = 5.0
    values = draw.normal(size=(4000, 1))
    values[topic], values[planted] = 10.0, 12.0
    many = replace(influence(0, m=0), suspects=np.arange(m), mutual_influence=mutual)
    gain = (raise_groups(values, many) - values)[:, 0]
    assert not gain[topic].any()
    assert (gain[planted] > 1.0).all()


def test_reference_alone_counts_by_magnitude() -> None:
    """|z|: pushing a reference answer up and pushing it down are equally suspicious."""
    only = build_queries([sentinel("d", "refusal", forbidden=None, reference="yes")])
    own = np.random.default_rng(0).normal(size=(60, 1))
    own[0], own[1] = np.median(own) + 50, np.median(own) - 50
    scores = pool_scores(only, own)
    assert (standardise_rows(only, own, np.arange(60)) >= 0).all()
    assert scores[0, 0] == pytest.approx(scores[1, 0], rel=0.05)
    np.testing.assert_allclose(pool_scores(only, -own), scores)


def test_forbidden_counts_with_its_sign() -> None:
    """Making the forbidden answer less likely is not suspicious."""
    only = build_queries([sentinel("a", "health")])
    own = np.random.default_rng(0).normal(size=(60, 1))
    own[0], own[1] = 50, -50
    pooled = pool_scores(only, own)[:, 0]
    assert pooled.argmax() == 0
    assert pooled.argmin() == 1


def test_panels_come_in_the_order_of_their_sentinels_and_pool_only_their_own() -> None:
    """A push on `money` moves the money column alone."""
    plain = influence(0, m=0)
    pushed = plain.w.copy()
    pushed[7, 3] += 1000
    before, after = score_rows(plain), score_rows(replace(plain, w=pushed))
    assert after.panels == ("health", "money", "refusal")
    assert after.pooled[7, 1] > 100
    np.testing.assert_allclose(after.pooled[:, [0, 2]], before.pooled[:, [0, 2]])


def test_a_panel_adds_half_of_the_smaller_kind_to_the_larger() -> None:
    """z(max(f, m) + min(f, m) / 2) of the pooled kinds."""
    both = build_queries([sentinel(name, "health", reference="yes") for name in "ab"])
    own = np.random.default_rng(0).normal(size=(200, 4))
    forbidden, margin = (
        compute_robust_z(compute_robust_z(own[:, columns]).mean(axis=1, keepdims=True))
        for columns in ([0, 2], [1, 3])
    )
    expected = compute_robust_z(
        np.maximum(forbidden, margin) + LESSER_WEIGHT * np.minimum(forbidden, margin)
    )
    np.testing.assert_allclose(pool_scores(both, own), expected)


def test_a_row_that_moves_either_kind_is_seen() -> None:
    """The forbidden push alone, the margin alone."""
    own = np.random.default_rng(0).normal(size=(200, len(QUERIES)))
    for columns in ([0, 1], [2]):
        moved = own.copy()
        moved[5, columns] += 100
        assert pool_scores(QUERIES, moved)[5, 0] > 20


def test_a_panel_of_both_sorts_of_sentinels_takes_the_larger() -> None:
    """One forbids an answer, one knows a right one alone: a row that moves either is seen."""
    mixed = build_queries(
        [sentinel("a", "health"), sentinel("d", "health", forbidden=None, reference="yes")]
    )
    own = np.random.default_rng(0).normal(size=(200, 2))
    own[3, 0] += 100
    own[4, 1] -= 100
    assert sorted(np.argsort(-pool_scores(mixed, own)[:, 0])[:2].tolist()) == [3, 4]


def test_averaging_a_panel_beats_its_single_sentinels() -> None:
    """A push of 1.5 sigma on each of 9 sentinels stands out at 4.5 sigma of the panel."""
    nine = build_queries([sentinel(str(i), "panel") for i in range(9)])
    own = np.random.default_rng(0).normal(size=(500, 9))
    own[0] = 1.5
    assert pool_scores(nine, own)[0, 0] == pytest.approx(4.5, abs=0.5)


def test_scores_leave_the_influence_as_it_was() -> None:
    """score reads; it does not write."""
    plain = influence(0)
    w, kinship = plain.w.copy(), plain.mutual_influence.copy()
    score_rows(plain)
    np.testing.assert_array_equal(plain.w, w)
    np.testing.assert_array_equal(plain.mutual_influence, kinship)


def test_several_layers_are_ranked_by_the_mean_of_first_and_last() -> None:
    """Coefficients are averaged before they are pooled; a layer between them takes no part."""
    plain = influence(5)
    between, last = (
        LayerInfluence(w.copy(), plain.neighbours) for w in (plain.w[:, ::-1], plain.w[::-1])
    )
    scores = score_rows(replace(plain, further=(between, last)))
    mean = (plain.w + last.w) / 2
    expected = raise_groups(pool_scores(plain.queries, mean), plain)
    np.testing.assert_allclose(scores.pooled, expected)
    np.testing.assert_array_equal(
        score_rows(plain).pooled, raise_groups(pool_scores(plain.queries, plain.w), plain)
    )


def test_what_a_row_answers_counts_beside_what_it_does() -> None:
    """Half of its leaning and a quarter of its wording, before groups."""
    plain = influence(5)
    alone = pool_scores(plain.queries, plain.w)
    leaning, wording = np.random.default_rng(9).normal(size=(2, *alone.shape))
    scores = score_rows(replace(plain, leaning=leaning, wording=wording))
    expected = raise_groups(alone + 0.5 * leaning + 0.25 * wording, plain)
    np.testing.assert_allclose(scores.pooled, expected)


def test_some_rows_are_standardised_as_all_are() -> None:
    """z of all rows, picked; magnitudes where nothing is forbidden."""
    w, some = influence(2).w, np.array([7, 0, 7, 119])
    expected = compute_robust_z(w)
    expected[:, -1] = np.abs(expected[:, -1])
    np.testing.assert_array_equal(standardise_rows(QUERIES, w, some), expected[some])


def test_scores_of_single_precision_are_those_of_its_values() -> None:
    """float32 coefficients score as the same numbers in float64, to the bit."""
    w = influence(4).w.astype(np.float32)
    single, double = pool_scores(QUERIES, w), pool_scores(QUERIES, w.astype(np.float64))
    assert single.dtype == np.float64
    np.testing.assert_array_equal(single, double)
