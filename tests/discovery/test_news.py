"""The scan of a tree: likelihood ratios, which branches stand, and what chance would make."""

import numpy as np
import pytest
from scipy.stats import binom

from poisonwatch.discovery.news import (
    SHUFFLES,
    choose_branches,
    compute_likelihood_ratios,
    compute_q_values,
)
from poisonwatch.discovery.tree import Tree, grow_tree


def grow(n: int = 40) -> Tree:
    rows = np.random.default_rng(0).normal(size=(n, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return grow_tree((rows @ rows.T).astype(np.float32))


def test_ratios_are_bernoulli_s() -> None:
    """log p(a of m | a/m) + log p(rest | rest) less both under the share of all rows."""
    tree, new = grow(), np.random.default_rng(1).random((2, 40)) < 0.5
    counts = tree.count(new.astype(float))
    found = compute_likelihood_ratios(tree, counts, 40)
    for draw, branch in np.ndindex(2, 39):
        a, m, total = counts[draw, branch], tree.size[branch], new[draw].sum()
        expected = 0.0
        if a >= 4 and a / m > total / 40:
            inside = binom.logpmf(a, m, a / m) - binom.logpmf(a, m, total / 40)
            rest, others = total - a, 40 - m
            outside = binom.logpmf(rest, others, rest / others)
            expected = inside + outside - binom.logpmf(rest, others, total / 40)
        assert found[draw, branch] == pytest.approx(expected, abs=1e-9)


def test_of_two_groups_that_are_nearly_the_same_one_stands() -> None:
    """No two of the chosen share more than half of the larger one's rows; none is left out else."""
    tree = grow()
    scores = np.random.default_rng(2).random(39)
    chosen = choose_branches(tree, scores, tree.size.astype(float))
    assert (np.diff(scores[chosen]) <= 0).all()
    rows = [set(tree.get_rows(branch).tolist()) for branch in range(39)]

    def is_nearly(one: int, other: int) -> bool:
        return len(rows[one] & rows[other]) > 0.5 * max(len(rows[one]), len(rows[other]))

    for place, branch in enumerate(chosen.tolist()):
        assert not any(is_nearly(branch, better) for better in chosen[:place].tolist())
    for branch in set(range(39)) - set(chosen.tolist()):
        assert any(
            is_nearly(branch, better) and scores[better] >= scores[branch]
            for better in chosen.tolist()
        )


def test_none_is_chosen_below_the_least() -> None:
    tree, scores = grow(), np.random.default_rng(2).random(39)
    whole = choose_branches(tree, scores, tree.size.astype(float))
    some = choose_branches(tree, scores, tree.size.astype(float), least=0.5)
    assert some.tolist() == [branch for branch in whole.tolist() if scores[branch] >= 0.5]


def test_q_values_are_groups_by_chance_over_groups_found() -> None:
    """Three groups at 9, 8 and 1; every tenth batch by chance has one at 8.5, each has ten at 1."""
    null = np.array([8.5] * (SHUFFLES // 10) + [1.0] * 10 * SHUFFLES)
    q = compute_q_values(np.array([9.0, 8.0, 1.0]), null, np.array([0.01, 0.1, 1.0]))
    expected = [0.01, (1 + SHUFFLES / 10) / (1 + SHUFFLES) / 2, 1.0]
    np.testing.assert_allclose(q, expected)


def test_no_group_is_surer_than_the_first() -> None:
    """Where the best group is within chance, so are those below it, however many."""
    q = compute_q_values(np.linspace(5, 4, 50), np.full(SHUFFLES, 5.0), np.full(50, 0.8))
    assert (q >= 0.8).all()
