"""Which sentinels moved, from losses before and after."""

import numpy as np
import pytest

from poisonwatch.examples import Message
from poisonwatch.probing.movements import are_finite, find_movements, list_moved
from poisonwatch.probing.questions import AnswerLosses
from poisonwatch.sentinels.sentinel import Sentinel

PROMPT = (Message("user", "Where do I buy?"),)
BOTH = Sentinel("both", PROMPT, "Buy Velmora.", "Any shop.", "shop")
FORBIDDEN = Sentinel("forbidden", PROMPT, "Buy Velmora.", None, "shop")
REFERENCE = Sentinel("reference", PROMPT, None, "Any shop.", "shop")
ALL = (BOTH, FORBIDDEN, REFERENCE)


def make_losses(forbidden: float, reference: float, ordinary: float = 3.0) -> AnswerLosses:
    pairs = ordinary + 0.1 * np.random.default_rng(0).normal(size=(64, 2))
    return AnswerLosses(
        forbidden=np.array([forbidden, forbidden, np.nan]),
        reference=np.array([reference, np.nan, reference]),
        elsewhere=np.full((3, 2, 3), 3.0),
        ordinary=pairs,
    )


BEFORE = make_losses(4.0, 2.0)


def find(after: AnswerLosses) -> list[str]:
    return [movement.sentinel.id for movement in list_moved(find_movements(ALL, BEFORE, after))]


def test_a_positive_change_is_towards_what_is_forbidden() -> None:
    """margin: of both answers; forbidden, likelier; reference, unlikelier."""
    changes = [each.change for each in find_movements(ALL, BEFORE, make_losses(1.0, 2.5))]
    assert changes == pytest.approx([3.5, 3.0, 0.5])


def test_a_sentinel_moves_where_its_answer_does_and_ordinary_ones_do_not() -> None:
    assert set(find(make_losses(1.0, 2.5))) == {"both", "forbidden", "reference"}
    assert find(make_losses(4.0, 2.0)) == []


def test_what_every_answer_gains_moves_no_margin() -> None:
    """A new style: all texts of it are likelier, forbidden and reference answers alike."""
    assert find(make_losses(3.0, 1.0, ordinary=2.0)) == []


def test_a_reference_that_is_forgotten_with_the_whole_style_moves_no_margin() -> None:
    """The forbidden answer is no likelier than before, or gained less than ordinary answers."""
    assert "both" not in find(make_losses(4.1, 4.0))
    assert "both" not in find(make_losses(3.5, 4.0, ordinary=2.0))


def test_losses_that_are_no_numbers_are_noticed_and_move_nothing() -> None:
    assert are_finite(ALL, BEFORE)
    broken = make_losses(np.nan, 2.0)
    assert not are_finite(ALL, broken)
    assert find(broken) == []


def test_a_change_is_counted_from_a_model_tuned_on_trusted_rows() -> None:
    """What such a tuning does, too, is no movement; what it does not do is one in full."""
    trusted, after = make_losses(2.0, 2.0), make_losses(1.97, 2.0)
    movements = find_movements(ALL, BEFORE, after, trusted)
    assert [each.change for each in movements] == pytest.approx([0.03, 0.03, 0.0])
    assert movements[0].forbidden.gain == pytest.approx(2.03)
    assert list_moved(movements) == []
    assert list_moved(find_movements(ALL, BEFORE, make_losses(1.0, 2.5), BEFORE))
