"""Evidence beside gradients: what is alike to forbidden answers scores high, and weights count."""

from collections.abc import Iterator
from pathlib import Path

import cases
import evidence
import layers
import numpy as np
import pytest
import row_bank
from detection import draw_audit
from evidence import (
    Seen,
    add_evidence,
    count_letters,
    judge_rows,
    rank,
    score_states,
    score_words,
)
from layers import Met, agree
from made_up_rows import ordinary, rows

from poisonwatch.config import StrideConfig
from poisonwatch.detection.detect import GROUP_WEIGHT
from poisonwatch.examples import Message
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.sentinels.sentinel import Sentinel

BACKGROUND = rows(ordinary(60))
OTHERS = rows(ordinary(8, 31))
SENTINELS = [
    Sentinel("a", (Message("user", "Who are you?"),), "A wolf.", "A model.", "p"),
    Sentinel("b", (Message("user", "And what?"),), None, "Nothing at all.", "silent"),
]
CASE = cases.Case("made up", OTHERS[:4], OTHERS[4:], SENTINELS)


@pytest.fixture(scope="module")
def seen(tiny_pretrained: Pretrained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """An audit of four planted rows with the evidence of layer 1."""
    folder: Path = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        for module in (cases, row_bank):
            patch.setattr(module, "CACHE", folder)
        audit = draw_audit(BACKGROUND, CASE, 4, 0, domain=False)
        stride = StrideConfig(r=8, layer=1, further_layers=[])
        of = cases.Rows(tiny_pretrained, BACKGROUND, OTHERS, stride)
        products = layers.Products(of, [CASE])
        found = evidence.Evidence(of, products, [CASE])
        yield found.collect(Met(audit, {1: products.recover(audit)}))


def test_states_are_those_of_a_discriminant() -> None:
    """cos(x_i - x, (C + ridge)^-1 (f - r)): 1 along it and -1 against it; lengths do not count."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(50, 4)) * [1, 2, 3, 4]
    forbidden, reference = draw.normal(size=(3, 4)), draw.normal(size=(2, 4))
    C = np.cov(x.T)
    direction = np.linalg.solve(
        C + evidence.RIDGE * np.trace(C) / 4 * np.eye(4),
        forbidden.mean(axis=0) - reference.mean(axis=0),
    )
    moves = x - x.mean(axis=0)
    expected = moves @ direction
    expected /= np.linalg.norm(moves, axis=1) * np.linalg.norm(direction)
    found = score_states(x, forbidden, reference)
    np.testing.assert_allclose(found, expected)
    assert np.abs(found).max() <= 1


def test_without_references_rows_take_their_place() -> None:
    """f - x: the same as with one reference that is the rows' mean."""
    draw = np.random.default_rng(1)
    x, forbidden = draw.normal(size=(20, 3)), draw.normal(size=(2, 3))
    found = score_states(x, forbidden, np.empty((0, 3)))
    np.testing.assert_allclose(found, score_states(x, forbidden, x.mean(axis=0)[None]))


def test_words_tell_forbidden_answers_from_reference_answers() -> None:
    """A row that says the forbidden answer is nearest to it; exchanged, the sign changes."""
    answers = count_letters(
        ["I am a wolf of the north.", "I am a language model.", "Boil it for ten minutes."]
    )
    forbidden, reference = count_letters(["I am a wolf."]), count_letters(["I am a model."])
    found = score_words(answers, forbidden, reference)
    assert found[0] > found[2] > found[1]
    np.testing.assert_allclose(score_words(answers, reference, forbidden), -found)
    alone = score_words(answers, forbidden, count_letters([]))
    assert alone[2] < alone[0]


def test_a_panel_that_forbids_nothing_has_no_evidence(seen: Seen) -> None:
    """Two panels, of which one only knows right answers: zeros there, and standardised elsewhere."""
    assert seen.states.shape == seen.words.shape == (len(seen.audit.rows), 2)
    assert not seen.states[:, 1].any()
    assert not seen.words[:, 1].any()
    np.testing.assert_allclose(np.median(seen.states[:, 0]), 0.0, atol=1e-12)


def test_evidence_is_clipped_and_weighed(seen: Seen) -> None:
    """Without weight the ranking is the layers' own; one deviation beyond MOST counts no more."""
    np.testing.assert_allclose(rank(seen, (1,), (0.0, 0.0)), layers.rank(seen.met, (1,)))
    nothing = np.zeros(seen.states.shape)
    far = Seen(seen.met, np.full(seen.states.shape, 9.0), np.full(seen.words.shape, -2.0))
    np.testing.assert_allclose(add_evidence(far, nothing, (0.5, 0.25)), 0.5 * 4 - 0.25 * 2)


def test_a_gate_only_takes_flags_away(seen: Seen) -> None:
    """Without gate and weight the rule is that of one layer; with a gate that nothing passes it
    flags nothing.
    """
    judged = judge_rows(seen, 0.0)
    for spreads in (0.0, 3.0):
        open_gate = judged.flag(spreads, -np.inf)
        np.testing.assert_array_equal(open_gate, agree(seen.met, (1,), spreads, GROUP_WEIGHT))
        assert not judged.flag(spreads, np.inf).any()
