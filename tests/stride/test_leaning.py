"""How far rows lean to what is forbidden, by states that are made up."""

import numpy as np
import pytest

from poisonwatch.recovery.robust import standardise
from poisonwatch.stride.leaning import LARGEST, AnswerStates, compute_leaning
from poisonwatch.stride.panel_answers import PanelAnswers

K = 5
PANELS = ("both", "forbidden", "reference")


def make_views(n: int = 60, seed: int = 0) -> np.ndarray:
    """Views (n, 3, K) of rows; some directions vary more than others."""
    draw = np.random.default_rng(seed)
    return (draw.normal(size=(n, 3, K)) * [4.0, 2.0, 1.0, 1.0, 0.5] + 3.0).astype(np.float32)


@pytest.fixture
def answers() -> AnswerStates:
    """Of six answers: two forbidden and two references on the first panel."""
    x = np.random.default_rng(1).normal(size=(6, K)).astype(np.float32)
    panels = ("both", "both", "both", "both", "forbidden", "reference")
    texts, forbidden = tuple("abcdef"), (True, False, True, False, True, False)
    return AnswerStates(PanelAnswers(texts, panels, forbidden), x)


def test_a_row_leans_by_its_answer_along_what_tells_the_panels_answers_apart(
    answers: AnswerStates,
) -> None:
    """cos(x_i, (C + tr C / k)^-1 d), standardised, written out row by row."""
    views = make_views()
    own = views[:, 1].astype(np.float64)
    x = own - own.mean(axis=0)
    C = np.cov(x.T, bias=True)
    d = (answers.x[0] + answers.x[2]) / 2 - (answers.x[1] + answers.x[3]) / 2
    u = np.linalg.inv(C + np.trace(C) / K * np.eye(K)) @ d
    expected = standardise(np.array([row @ u / np.linalg.norm(row) for row in x]))
    found = compute_leaning(views, np.ones(60), answers, PANELS)
    np.testing.assert_allclose(found[:, 0], np.clip(expected, -LARGEST, LARGEST), atol=1e-5)


def test_without_a_reference_rows_lean_away_from_the_usual_one(answers: AnswerStates) -> None:
    """The rows' mean takes its place; a panel that forbids nothing tells nothing."""
    views = make_views()
    views[:5, 1] = answers.x[4]
    found = compute_leaning(views, np.ones(60), answers, PANELS)
    assert found[:5, 1].min() > 1 > found[5:, 1].mean()
    assert not found[:, 2].any()


def test_a_lowered_answer_leans_the_other_way(answers: AnswerStates) -> None:
    """Training makes it less likely."""
    views, signs = make_views(), np.ones(60)
    signs[::3] = -1
    found = compute_leaning(views, signs, answers, PANELS)
    raised = compute_leaning(views, np.ones(60), answers, PANELS)
    np.testing.assert_array_equal(found, raised * signs[:, None])


@pytest.mark.parametrize(
    "views", [np.zeros((7, 3, 0)), np.ones((7, 3, K)), np.ones((1, 3, K)), np.ones((0, 3, K))]
)
def test_rows_that_do_not_differ_lean_nowhere(views: np.ndarray, answers: AnswerStates) -> None:
    """A basis without directions, rows that are all alike, a single row, and none."""
    found = compute_leaning(views.astype(np.float32), np.ones(len(views)), answers, PANELS)
    assert found.shape == (len(views), 3)
    assert not found.any()
