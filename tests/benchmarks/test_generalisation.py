"""Protocols that show overfitting: what is chosen, and what is reported."""

import generalisation
import numpy as np
import pytest
from generalisation import Figures, choose, constants, list_candidates, name, take

from poisonwatch.detection import topic
from poisonwatch.stride import scoring


def figures(precision: list[float], recall: list[float], share: float = 0.0) -> Figures:
    none = np.zeros(len(precision))
    return Figures(np.array(precision), np.array(recall), none + share, none)


def test_the_grids_hold_what_the_library_ships() -> None:
    """Whoever changes a constant has it compared with others."""
    for grid in (generalisation.RANKING, generalisation.RULE):
        for place, values in grid.items():
            assert getattr(*place) in values


def test_every_combination_is_a_candidate() -> None:
    """The product of the grid's values, each a set of constants."""
    candidates = list_candidates(generalisation.RULE)
    assert len(candidates) == np.prod([len(v) for v in generalisation.RULE.values()])
    assert len({tuple(chosen.values()) for chosen in candidates}) == len(candidates)


def list_constants() -> tuple[float, float]:
    return scoring.LESSER_WEIGHT, topic.LEAST_SPREADS


def fail_with_others() -> None:
    with constants({(scoring, "LESSER_WEIGHT"): 7.0, (topic, "LEAST_SPREADS"): 9.0}):
        assert list_constants() == (7.0, 9.0)
        raise RuntimeError


def test_constants_hold_within_the_block_alone() -> None:
    """An error puts everything back, too."""
    before = list_constants()
    with pytest.raises(RuntimeError):
        fail_with_others()
    assert list_constants() == before


def test_a_rule_pays_for_its_false_flags() -> None:
    """Recall less each hundredth of share above MOST_SHARE: .9 at a share of .5 is worth .52."""
    bold, careful = figures([1.0], [0.9], share=0.5), figures([1.0], [0.6], share=0.1)
    assert bold.judge([0]) == pytest.approx(0.9 - (0.5 - generalisation.MOST_SHARE))
    assert careful.judge([0]) == pytest.approx(0.6)


def test_what_is_chosen_on_some_cases_is_reported_on_others() -> None:
    """The ranking that wins on the first case loses on the second, and the report says so."""
    here, there = figures([1.0, 0.2], [1.0, 0.2]), figures([0.5, 0.9], [0.5, 0.9])
    place = (scoring, "LESSER_WEIGHT")
    ranking = [({place: 0.0}, here), ({place: 1.0}, there)]
    assert choose(ranking, ranking, [0]) == (0, 0)
    assert choose(ranking, ranking, [1]) == (1, 1)
    reported = take(ranking, ranking, [(1, 0, 0), (0, 1, 1)])
    assert reported["precision"] == [0.2, 0.5]
    assert reported["recall"] == [0.2, 0.5]
    assert name(ranking[1][0]) == "scoring.LESSER_WEIGHT 1.0"


def test_the_best_threshold_is_one_for_all_audits_of_a_case() -> None:
    """It takes what both audits allow on average: of two planted rows at 5 and 3 the second lies
    below an honest one at 4.
    """
    planted = np.array([True, True, False, False])
    easy, hard = np.array([5.0, 3.0, 0.0, 0.0]), np.array([5.0, 3.0, 4.0, 0.0])
    assert generalisation.find_best_recall([easy], [planted]) == 1.0
    assert generalisation.find_best_recall([hard], [planted]) == 0.5
    assert generalisation.find_best_recall([easy, hard], [planted, planted]) == 0.5
    assert generalisation.find_best_recall([easy] * 2 + [hard], [planted] * 3) == 1.0
    assert generalisation.find_best_recall([hard], [np.array([False, False, True, False])]) == 0.0
