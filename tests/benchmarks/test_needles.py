"""A few planted rows among thousands: how audits are drawn, and what is reported."""

import numpy as np
from cases import Case
from detection import HARD, POISON
from made_up_rows import ordinary, rows
from needles import draw_needles, rank_poison, render

BACKGROUND = rows(ordinary(60))
CASE = Case("made up", rows(ordinary(8, 31)), rows(ordinary(5, 77)), [])


def test_trusted_rows_are_some_of_the_background_and_none_of_the_new() -> None:
    """60 benign rows, 20 of them trusted; 40 + 5 + 3 new ones, each with its label."""
    audit = draw_needles(BACKGROUND, CASE, 3, 20, seed=0)
    assert len(audit.rows.trusted) == 20
    assert [int((audit.labels == label).sum()) for label in (0, HARD, POISON)] == [40, 5, 3]
    new = {row.id for row in audit.rows.new}
    assert not new & {row.id for row in audit.rows.trusted}
    poison = [audit.rows.new[i] for i in np.flatnonzero(audit.labels == POISON)]
    assert all(row in CASE.poison for row in poison)


def test_the_same_seed_draws_the_same_audit_and_another_one_another() -> None:
    """By seed, whatever was drawn before."""
    first, again, other = (draw_needles(BACKGROUND, CASE, 3, 20, seed) for seed in (0, 0, 1))
    assert [row.id for row in first.rows.all] == [row.id for row in again.rows.all]
    assert [row.id for row in first.rows.all] != [row.id for row in other.rows.all]


def test_ranks_count_from_the_largest_score() -> None:
    """1 for the largest; equal scores keep their order."""
    scores, poison = np.array([3.0, 9.0, 3.0, 1.0]), np.array([0, 1, 1, 0], dtype=bool)
    assert rank_poison(scores, poison).tolist() == [1, 3]


def test_a_line_shows_what_there_is() -> None:
    """Without poison there is no precision."""
    assert render("made up", 0, {"false": 1.25}) == "| made up | 0 | - | - | - | - | 1.25 | - | - |"
