"""Whether a panel moved as a whole, from losses whose changes are known."""

from dataclasses import replace

import numpy as np
import pytest

from poisonwatch.examples import Message
from poisonwatch.probing.movements import find_movements
from poisonwatch.probing.panels import (
    LEAST_MOVE,
    LEAST_SENTINELS,
    TIED,
    WHOLE,
    PanelMovement,
    find_panel_movements,
    list_moved_panels,
)
from poisonwatch.probing.questions import ELSEWHERE, AnswerLosses
from poisonwatch.screens.frames import wear_frame
from poisonwatch.sentinels.sentinel import Sentinel

PROMPT = (Message("user", "Where do I buy?"),)
NOISE = 0.05  # of an answer from prompt to prompt, nats a token
STYLE = 0.5  # of answers


def make_panel(size: int, panel: str = "shop", answers: int = 10) -> list[Sentinel]:
    """Sentinels of a panel, with so many different answers of a kind."""
    made = []
    for s in range(size):
        both = (f"Buy Velmora {s % answers}.", f"Any shop {s % answers}.")
        made.append(Sentinel(f"{panel}-{s}", PROMPT, *both, panel))
    return made


def ask(
    sentinels: list[Sentinel],
    tied: float,
    draw: np.random.Generator,
    everywhere: float = 0.0,
    forgotten: float = 0.0,
) -> list[PanelMovement]:
    """Panels of sentinels whose forbidden answers gain `tied` at their own prompts and `everywhere`
    at all, and whose reference answers are `forgotten` at theirs, beside what a style does to each
    answer wherever it stands.
    """
    size = len(sentinels)
    style = STYLE * draw.normal(size=(2, size))
    noise = NOISE * draw.normal(size=(2, size, 1 + ELSEWHERE))
    gains = style[:, :, None] + noise
    gains[0, :, 0] += tied
    gains[0] += everywhere
    gains[1, :, 0] -= forgotten
    before = AnswerLosses(
        forbidden=np.full(size, 4.0),
        reference=np.full(size, 2.0),
        elsewhere=np.full((size, 2, ELSEWHERE), 5.0),
        ordinary=np.full((64, 2), 3.0),
    )
    after = AnswerLosses(
        forbidden=before.forbidden - gains[0, :, 0],
        reference=before.reference - gains[1, :, 0],
        elsewhere=before.elsewhere - gains[:, :, 1:].transpose(1, 0, 2),
        ordinary=before.ordinary + STYLE * draw.normal(size=(64, 2)),
    )
    return find_panel_movements(find_movements(sentinels, before, after), before, after)


def test_what_a_style_does_to_answers_everywhere_moves_no_panel() -> None:
    """In at most 1 of 100 tunings that planted nothing."""
    moved = 0
    for seed in range(300):
        moved += len(list_moved_panels(ask(make_panel(10), 0.0, np.random.default_rng(seed))))
    assert moved <= 3


def test_a_panel_of_ten_moves_by_what_moves_none_of_them() -> None:
    """A fifth of a nat at their own prompts, below the style's noise of half a nat."""
    for seed in range(20):
        (panel,) = list_moved_panels(ask(make_panel(10), 0.2, np.random.default_rng(seed)))
        assert (panel.panel, panel.sentinels) == ("shop", 10)
        assert panel.change == pytest.approx(0.2, abs=0.1)
        assert panel.way == TIED
        assert not panel.furthest.is_beyond


def test_a_panel_moves_as_a_whole_where_its_answers_gain_everywhere() -> None:
    """Where they are different ones: ten sentinels with one answer are one answer."""
    for seed in range(20):
        draw = np.random.default_rng(seed)
        (panel,) = list_moved_panels(ask(make_panel(10), 0.0, draw, everywhere=1.5))
        assert panel.way == WHOLE
        draw = np.random.default_rng(seed)
        (alike,) = ask(make_panel(10, answers=1), 0.0, draw, everywhere=1.5)
        assert alike.error > 3 * panel.error


def test_a_panel_whose_forbidden_answers_gained_nothing_did_not_move() -> None:
    """Only the reference answers were forgotten, at the panel's own prompts."""
    draw = np.random.default_rng(0)
    (panel,) = ask(make_panel(10), -0.1, draw, forgotten=1.0)
    assert panel.change > panel.limit
    assert not panel.is_beyond


def test_few_sentinels_are_no_panel_and_panels_are_judged_apart() -> None:
    sentinels = [*make_panel(LEAST_SENTINELS - 1, "few"), *make_panel(8, "many")]
    (panel,) = ask(sentinels, 1.0, np.random.default_rng(0))
    assert panel.panel == "many"
    still = ask(make_panel(8), 0.0, np.random.default_rng(0))[0]
    assert still.limit >= LEAST_MOVE


def test_a_sentinel_and_its_copy_in_the_frame_are_one() -> None:
    """Copies move with their originals: they make no panel large enough, and no error smaller."""
    frame = (Message("system", "You serve a shop."),)
    few, enough = make_panel(LEAST_SENTINELS - 1, "few"), make_panel(6, "enough")
    asked = [*few, *enough]
    size = len(asked)
    draw = np.random.default_rng(0)
    changes, ordinary = draw.normal(size=size), 9 * draw.normal(size=(64, 2))
    plain = [each for each in asked if each.panel == "enough"]
    both = [*asked, *wear_frame(asked, frame)]

    def move(sentinels: list[Sentinel], gains: np.ndarray) -> list[PanelMovement]:
        n = len(sentinels)
        before = AnswerLosses(
            forbidden=np.full(n, 4.0),
            reference=np.full(n, 2.0),
            elsewhere=np.full((n, 2, ELSEWHERE), 5.0),
            ordinary=np.full((64, 2), 3.0),
        )
        after = replace(
            before, forbidden=before.forbidden - gains, ordinary=before.ordinary + ordinary
        )
        return find_panel_movements(find_movements(sentinels, before, after), before, after)

    (alone,) = move(plain, changes[len(few) :])
    (copied,) = move(both, np.tile(changes, 2))
    assert (copied.panel, copied.sentinels) == ("enough", 6)
    assert copied.way == alone.way == TIED
    assert copied.error == pytest.approx(alone.error)
    assert copied.change == pytest.approx(alone.change)
