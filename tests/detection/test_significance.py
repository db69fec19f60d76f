"""Honest p-values and a false-discovery rate that holds; random parts hold with a stated
probability.
"""

import numpy as np
import pytest
from scipy.stats import binom, false_discovery_control, genpareto, kstest, kstwo

from poisonwatch.detection.significance import (
    compute_bulk_p,
    compute_conformal_p,
    compute_p_values,
    compute_row_q_values,
    fit_pareto_tail,
)
from poisonwatch.detection.trusted import LEAST_TRUSTED

DRAWS = {
    "normal": lambda draw, n: draw.normal(size=n),
    "exponential": lambda draw, n: draw.exponential(size=n),
    "student": lambda draw, n: draw.standard_t(4, size=n),
    "uniform": lambda draw, n: draw.uniform(size=n),
    "ties": lambda draw, n: draw.integers(0, 5, size=n).astype(float),
}


@pytest.mark.parametrize("n_ref", [19, 60, 400])
@pytest.mark.parametrize("name", DRAWS)
def test_conformal_p_of_exchangeable_scores_is_super_uniform(name: str, n_ref: int) -> None:
    """P(p <= t) <= t for t = 0.01, 0.05, 0.1, 0.5, up to 3 standard errors and 0.3 t for the fitted
    tail; 400 draws of 50 scores.
    """
    draw = np.random.default_rng(0)
    p = np.concatenate(
        [
            compute_conformal_p(DRAWS[name](draw, 50), DRAWS[name](draw, n_ref))[0]
            for _ in range(400)
        ]
    )
    for t in (0.01, 0.05, 0.1, 0.5):
        slack = 3 * np.sqrt(t / 400) / 5 + (0.3 * t if t <= 0.1 else 0.01)
        assert (p <= t).mean() <= t + slack, (t, (p <= t).mean())


@pytest.mark.parametrize("name", ["normal", "heavy-tailed"])
def test_p_values_of_clean_rows_are_as_uniform_as_chance_allows(name: str) -> None:
    """D sqrt(n m / (n + m)) for n = 300 rows exchangeable with m = 200 trusted ones is
    Kolmogorov's, at both tails, over 20 seeds.

    All p-values lean on the same m rows: they are as uniform as n m / (n + m) = 120 independent
    ones, and not as 300. Of 20 honest tests more than 4 fall below .05 with a probability under 1
    %; rows that push half a unit further are told nearly every time.
    """
    n, m, seeds, level = 300, 200, 20, 0.05

    def rejected(further: float, effective: int) -> int:
        count = 0
        for seed in range(seeds):
            draw = np.random.default_rng(seed)
            scores, reference = (
                draw.normal(size=k) if name == "normal" else draw.standard_t(2, size=k)
                for k in (n, m)
            )
            p, _ = compute_p_values(scores + further, reference)
            count += kstwo.sf(kstest(p, "uniform").statistic, effective) < level
        return count

    most = binom.ppf(0.99, seeds, level)
    assert rejected(0.0, n * m // (n + m)) <= most
    assert rejected(0.0, n) > most
    assert rejected(0.5, n * m // (n + m)) >= 18


@pytest.mark.parametrize("n_ref", [60, 400])
def test_conformal_p_is_not_wasteful(n_ref: int) -> None:
    """P(p <= t) >= 0.7 t for normal scores: the tail does not give the power away."""
    draw = np.random.default_rng(1)
    p = np.concatenate(
        [compute_conformal_p(draw.normal(size=50), draw.normal(size=n_ref))[0] for _ in range(400)]
    )
    for t in (0.05, 0.1, 0.5):
        assert (p <= t).mean() >= 0.7 * t


def test_rank_alone_decides_below_the_tail() -> None:
    """p = (1 + #{ref >= s}) / (n + 1)."""
    reference = np.arange(100.0)
    p, null = compute_conformal_p(np.array([-5.0, 0.0, 49.5, 50.0]), reference)
    np.testing.assert_allclose(p, [1.0, 1.0, 51 / 101, 51 / 101])
    assert null.n == 100
    assert "generalised-Pareto tail" in null.rule


def test_tail_gives_p_values_below_one_in_n() -> None:
    """Far above 400 trusted rows p < 1/401, decreasing in the score."""
    reference = np.random.default_rng(0).normal(size=400)
    p, _ = compute_conformal_p(np.array([3.0, 5.0, 10.0, 30.0]), reference)
    assert (np.diff(p) < 0).all()
    assert p[2] < 1 / 401 / 10


def test_fewer_than_ten_exceedances_leave_the_ranks_alone() -> None:
    """With 50 trusted rows (5 above their 90 % quantile) nothing is below 1 / 51, and the rule says
    so.
    """
    reference = np.random.default_rng(0).normal(size=50)
    p, null = compute_conformal_p(np.array([100.0, 1e9, reference.max()]), reference)
    np.testing.assert_allclose(p, [1 / 51, 1 / 51, 2 / 51])
    assert null.rule == "rank among 50 trusted rows"


def test_constant_reference_gives_ranks() -> None:
    """No spread, no tail: p = 1/(n+1) above, 1 at or below."""
    p, null = compute_conformal_p(np.array([0.0, 1.0, 2.0]), np.ones(300))
    np.testing.assert_allclose(p, [1.0, 1.0, 1 / 301])
    assert null.rule == "rank among 300 trusted rows"


@pytest.mark.parametrize("shape", [0.0, 0.3])
def test_pareto_tail_recovers_shape_and_scale(shape: float) -> None:
    """(shape, scale) of generalised-Pareto draws: within .1 and 10 % for 5000 excesses, every one
    of 10 seeds.
    """
    for seed in range(10):
        excess = genpareto.rvs(shape, scale=2.0, size=5000, random_state=seed)
        found, scale = fit_pareto_tail(excess)
        assert found == pytest.approx(shape, abs=0.1)
        assert scale == pytest.approx(2.0, rel=0.1)


def test_pareto_tail_is_never_lighter_than_exponential_nor_heavier_than_half() -> None:
    """shape in [0, 1/2] for bounded and for very heavy excesses; the mean excess scale / (1 -
    shape) is kept.
    """
    draw = np.random.default_rng(0)
    for excess in (draw.uniform(size=500), draw.pareto(0.8, size=500), np.full(20, 3.0)):
        shape, scale = fit_pareto_tail(excess)
        assert 0 <= shape <= 0.5
        assert scale / (1 - shape) == pytest.approx(excess.mean())


@pytest.mark.parametrize("shape", [0.05, 0.5])
@pytest.mark.parametrize("gain", [1e-6, 1e6])
def test_pareto_tail_scales_with_its_data(shape: float, gain: float) -> None:
    """(shape, scale)(c x) = (shape, c scale)(x)."""
    excess = genpareto.rvs(shape, size=300, random_state=0)
    plain, scaled = fit_pareto_tail(excess), fit_pareto_tail(gain * excess)
    assert scaled[0] == pytest.approx(plain[0])
    assert scaled[1] == pytest.approx(gain * plain[1])


@pytest.mark.parametrize("name", ["normal", "exponential"])
def test_bulk_p_is_conservative_enough_on_clean_batches(name: str) -> None:
    """P(p <= t) <= 1.5 t for clean normal and exponential batches of 500, t = 0.01 and 0.05."""
    draw = np.random.default_rng(0)
    p = np.concatenate([compute_bulk_p(DRAWS[name](draw, 500))[0] for _ in range(40)])
    for t in (0.01, 0.05):
        assert (p <= t).mean() <= 1.5 * t


def test_bulk_p_survives_five_percent_of_poison() -> None:
    """25 of 500 rows at 12 sigma are all flagged at a rate of 0.1, and at most 3 clean rows with
    them: in each of 20 seeds.
    """
    for seed in range(20):
        draw = np.random.default_rng(seed)
        scores = draw.normal(size=500)
        scores[:25] = 12 + draw.normal(size=25)
        p, null = compute_bulk_p(scores)
        q = false_discovery_control(p)
        assert (q[:25] <= 0.1).all()
        assert (q[25:] <= 0.1).sum() <= 3
        assert null.n == 500


@pytest.mark.parametrize(
    "scores",
    [np.arange(float(n)) for n in (1, 2, 3, 4, 19)] + [np.zeros(300)],
    ids=lambda s: f"{len(s)}",
)
def test_bulk_p_of_next_to_nothing_flags_nothing(scores: np.ndarray) -> None:
    """The larger of two rows is no anomaly: p = rank / (n + 1) below 20 rows and without spread, no
    q <= 0.1.
    """
    p, _ = compute_bulk_p(scores)
    assert ((p >= 1 / (len(scores) + 1)) & (p <= 1)).all()
    assert (false_discovery_control(p) > 0.1).all()


def test_small_normal_batches_are_rarely_flagged() -> None:
    """Without trusted rows, at most 20 % of 200 clean normal batches flag anything at a rate of
    0.1, whatever their size.
    """
    draw = np.random.default_rng(0)
    for n in (2, 5, 19, 20, 30, 60):
        assert (
            np.mean(
                [
                    (false_discovery_control(compute_bulk_p(draw.normal(size=n))[0]) <= 0.1).any()
                    for _ in range(200)
                ]
            )
            <= 0.2
        )


@pytest.mark.parametrize(
    "function",
    [compute_bulk_p, lambda s: compute_conformal_p(s, np.random.default_rng(5).normal(size=300))],
)
def test_p_values_fall_as_scores_rise(function: object) -> None:
    """s <= s' implies p(s) >= p(s'), within the ranks and in the tail."""
    scores = np.sort(np.random.default_rng(0).standard_t(3, size=300))
    p = function(scores)[0]
    tail = scores > np.quantile(scores, 0.97)
    assert (np.diff(p) <= 0.02).all()
    assert (np.diff(p[tail]) <= 0).all()
    assert ((p > 0) & (p <= 1)).all()


def test_p_values_use_trusted_rows_where_there_are_any() -> None:
    """At least LEAST_TRUSTED of them -> conformal; fewer join the bulk; none or empty -> the bulk
    of the batch.
    """
    scores = np.arange(30.0)
    assert compute_p_values(scores, np.arange(float(LEAST_TRUSTED)))[1].rule.startswith(
        f"rank among {LEAST_TRUSTED} trusted rows"
    )
    p, null = compute_p_values(scores, np.arange(20.0))
    assert p.shape == (30,)
    assert null.rule.startswith("empirical null on the bulk of 50 rows")
    assert "20 trusted rows, too few to stand alone" in null.rule
    for nothing in (None, np.empty(0)):
        assert compute_p_values(scores, nothing)[1].rule.startswith(
            "empirical null on the bulk of 30 rows"
        )


def test_few_trusted_rows_are_no_worse_than_none() -> None:
    """5 planted rows far out of 60 are flagged with 40 trusted rows beside them: their ranks alone
    could never be significant.
    """
    draw = np.random.default_rng(0)
    scores = draw.normal(size=60)
    scores[:5] += 12
    q = false_discovery_control(compute_p_values(scores, draw.normal(size=40))[0])
    assert (q[:5] <= 0.1).all()
    assert (q[5:] > 0.1).all()


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.2])
def test_realised_false_discovery_rate_is_at_most_nominal(rate: float) -> None:
    """E[false / flagged] <= rate + .05 with 20 planted rows among 400, against 400 trusted ones,
    over 60 seeds; at least 70 % are found.
    """
    false_share, found = [], []
    for seed in range(60):
        draw = np.random.default_rng(seed)
        scores = draw.normal(size=400)
        scores[:20] += 5
        flagged = np.flatnonzero(
            false_discovery_control(compute_conformal_p(scores, draw.normal(size=400))[0]) <= rate
        )
        false_share.append((flagged >= 20).sum() / max(len(flagged), 1))
        found.append((flagged < 20).mean() * len(flagged) / 20 if len(flagged) else 0.0)
    assert np.mean(false_share) <= rate + 0.05
    assert np.mean(found) >= 0.7


def test_clean_batches_are_rarely_flagged() -> None:
    """No planted row: at most 25 % of 60 batches flag anything at a rate of 0.1."""
    flagged = []
    for seed in range(60):
        draw = np.random.default_rng(seed)
        q = false_discovery_control(
            compute_conformal_p(draw.normal(size=400), draw.normal(size=400))[0]
        )
        flagged.append((q <= 0.1).any())
    assert np.mean(flagged) <= 0.25


@pytest.mark.parametrize("seed", range(5))
def test_row_q_values_of_one_panel_are_false_discovery_control(seed: int) -> None:
    """P = 1: q = BH(p)."""
    p = np.random.default_rng(seed).uniform(size=(60, 1)) ** 4
    np.testing.assert_allclose(compute_row_q_values(p), false_discovery_control(p))


@pytest.mark.parametrize("seed", range(5))
def test_row_q_values_count_rows_not_entries(seed: int) -> None:
    """min_j q_ij = BH over rows of P min_j p_ij; every entry's q is at least its row's, and P p_ij."""
    p = np.random.default_rng(seed).uniform(size=(60, 4)) ** 4
    q = compute_row_q_values(p)
    np.testing.assert_allclose(
        q.min(axis=1), false_discovery_control(np.minimum(4 * p.min(axis=1), 1))
    )
    assert (q >= np.minimum(4 * p, 1) - 1e-12).all()
    assert (q <= 1).all()
    assert (np.diff(q.ravel()[np.argsort(p.ravel())]) >= -1e-12).all()


def test_row_q_values_do_not_reward_rows_that_move_every_panel() -> None:
    """Ten rows anomalous on all 5 panels loosen the threshold for others no more than ten rows
    anomalous on one.
    """
    p = np.random.default_rng(0).uniform(size=(200, 5))
    one, all_ = p.copy(), p.copy()
    one[:10, 0] = all_[:10] = 1e-8
    np.testing.assert_allclose(compute_row_q_values(all_)[10:], compute_row_q_values(one)[10:])


def test_realised_rate_over_rows_holds_with_several_dependent_panels() -> None:
    """E[false rows / flagged rows] <= .1 + .05 with 15 planted rows among 300 on 4 correlated
    panels, over 60 seeds; 70 % are found.
    """
    false_share, found = [], []
    for seed in range(60):
        draw = np.random.default_rng(seed)
        scores, trusted = (
            draw.normal(size=(n, 1)) * 0.7 + draw.normal(size=(n, 4)) * 0.7 for n in (300, 400)
        )
        scores[:15, :2] += 6
        p = np.column_stack([compute_conformal_p(scores[:, j], trusted[:, j])[0] for j in range(4)])
        flagged = np.flatnonzero(compute_row_q_values(p).min(axis=1) <= 0.1)
        false_share.append((flagged >= 15).sum() / max(len(flagged), 1))
        found.append((flagged < 15).sum() / 15)
    assert np.mean(false_share) <= 0.15
    assert np.mean(found) >= 0.7
