"""A row that the model overflows on, or that has nothing to learn, costs itself: all others come to
what they come to without it.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attributions import (
    DESIGNS,
    FORBIDDEN,
    ROWS,
    SENTINELS,
    STRIDE,
    example,
    fit_stream,
    sentinel,
)
from faulty_models import BAD, OVERFLOWING, UNANSWERED, build_faulty_pretrained, make_pair

from poisonwatch.checkpoints.store import CheckpointStore
from poisonwatch.errors import ModelError, SentinelError
from poisonwatch.examples import Example
from poisonwatch.model.fault import Fault, FaultyRow
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.sentinels.checks import find_sentinel_problems
from poisonwatch.stride.attribution import fit
from poisonwatch.stride.explain import attribute_conversation
from poisonwatch.stride.problem import prepare_problem
from poisonwatch.stride.recover import recover_influence
from poisonwatch.stride.streamed import StreamedFit

# All rows are the background's: without the bad one it is that of the others.
WHOLE = STRIDE.model_copy(update={"background": 100})
PLACE = 7


@pytest.fixture(scope="module")
def faulty() -> Pretrained:
    return build_faulty_pretrained()


@pytest.fixture(scope="module")
def narrow() -> Pretrained:
    return build_faulty_pretrained(torch.float16)


def put(bad: Example, rows: Sequence[Example] = ROWS, place: int = PLACE) -> list[Example]:
    """The rows with a bad one among them."""
    return [*rows[:place], bad, *rows[place:]]


def assert_near(found: np.ndarray, expected: np.ndarray, share: float = 2e-3) -> None:
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() <= share * np.abs(expected).max()


BADS = {
    "new": (BAD, Fault.STATES),
    "chosen": (make_pair(BAD, ROWS[0]), Fault.STATES),
    "rejected": (make_pair(ROWS[0], BAD), Fault.STATES),
    "unanswered": (UNANSWERED, Fault.NO_ANSWER),
    "pair without an answer": (
        Example.from_messages(ROWS[0].messages, rejected=ROWS[1].messages[:1]),
        Fault.NO_ANSWER,
    ),
}


@pytest.mark.parametrize("kind", BADS)
def test_a_bad_row_leaves_the_others_as_they_are_without_it(faulty: Pretrained, kind: str) -> None:
    """Effects, features and coefficients of 40 rows, the bad one drawn into the background's
    sample; it is named with what is wrong with it.
    """
    bad, fault = BADS[kind]
    alone = fit_stream(faulty, ROWS, WHOLE)
    found = fit_stream(faulty, put(bad), WHOLE)
    assert found.faulty == (FaultyRow(PLACE, fault),)
    assert alone.faulty == ()
    assert found.ids == alone.ids
    assert [row.id for row in found.rows] == list(alone.ids)
    assert_near(found.measured.effects, alone.measured.effects)
    assert_near(found.measured.centre, alone.measured.centre)
    assert_near(found.measured.features, alone.measured.features)
    assert_near(found.recover().w, alone.recover().w)
    gradients = found.get_gradients(np.array([PLACE]))
    assert_near(gradients.numpy(), alone.get_gradients(np.array([PLACE])).numpy())


def test_the_next_row_is_drawn_into_the_sample_for_one_that_cannot_be_measured(
    faulty: Pretrained,
) -> None:
    """12 of 41 rows are the background: those of an audit without the bad row, wherever it
    stands in the drawn order; outside the sample nothing changes at all.
    """
    seeds = range(20)
    drawn = next(s for s in seeds if is_sampled(faulty, s))
    passed = next(s for s in seeds if not is_sampled(faulty, s))
    for seed, share in ((passed, 1e-3), (drawn, 0.15)):
        alone = fit_stream(faulty, ROWS, seed=seed)
        found = fit_stream(faulty, put(BAD), seed=seed)
        assert found.faulty == (FaultyRow(PLACE, Fault.STATES),)
        assert_near(found.measured.effects, alone.measured.effects, share)
    assert found.measured.spread.shape == (40,)


def is_sampled(pretrained: Pretrained, seed: int) -> bool:
    return PLACE in prepare_problem(pretrained, put(BAD), STRIDE, seed=seed).sample


def test_a_bad_trusted_row_is_left_out_also_where_statistics_were_kept(
    faulty: Pretrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second fit reads from a file what the first one measured, the fault with it."""
    monkeypatch.setenv("POISONWATCH_CACHE", str(tmp_path))
    trusted = np.arange(20, 40)
    alone = fit_stream(faulty, ROWS, WHOLE, trusted=trusted)
    rows, trusted = put(BAD, place=30), np.arange(20, 41)
    first = fit_stream(faulty, rows, WHOLE, trusted=trusted)
    files = len(list((tmp_path / "statistics").iterdir()))
    again = fit_stream(faulty, rows, WHOLE, trusted=trusted)
    assert len(list((tmp_path / "statistics").iterdir())) == files
    for found in (first, again):
        assert found.faulty == (FaultyRow(30, Fault.STATES),)
        assert_near(found.measured.effects, alone.measured.effects)


def test_float16_overflows_in_the_gradient_where_the_loss_is_finite(narrow: Pretrained) -> None:
    """One row's last block leaves the range of float16 after the split: the others are as without
    it; an answer that overflows is a loss that does.
    """
    answered = example("Why?", f"So {OVERFLOWING} so.")
    alone = fit_stream(narrow, ROWS, WHOLE)
    found = fit_stream(narrow, [*put(BAD), answered], WHOLE)
    assert found.faulty == (FaultyRow(PLACE, Fault.GRADIENT), FaultyRow(41, Fault.LOSS))
    assert_near(found.measured.effects, alone.measured.effects, 0.02)


def test_most_rows_bad_are_the_models_fault(faulty: Pretrained, narrow: Pretrained) -> None:
    """One error before any pass over all rows, with the remedy; half of the rows may be bad."""
    bad = [example(f"{OVERFLOWING}{i}", "So.") for i in range(30)]
    with pytest.raises(
        ModelError, match=r"12 of 12 rows cannot be measured.*not finite numbers in float32"
    ):
        fit_stream(faulty, bad)
    with pytest.raises(ModelError, match=r"set model\.dtype to float32, or to bfloat16"):
        fit_stream(narrow, [*bad, *ROWS[:20]], WHOLE)
    with pytest.raises(ModelError, match=r"give it an answer, or raise stride\.max_tokens"):
        fit_stream(faulty, [UNANSWERED], WHOLE)
    found = fit_stream(faulty, [*bad, *ROWS[:30]], WHOLE)
    assert len(found.faulty) == 30


FITS: dict[str, dict[str, Any]] = {
    **{name: changes for name, changes in DESIGNS.items() if changes},
    "forward": {"measurement": "forward"},
    "sgd": {"fit": "sgd", "K": 8},
}


@pytest.mark.parametrize("name", FITS)
def test_fits_of_shared_subsets_leave_a_bad_row_out(faulty: Pretrained, name: str) -> None:
    """Coefficients of the other rows are finite, one a row; a training is that of the others to
    the bit.
    """
    stride = WHOLE.model_copy(update=FITS[name])
    rows = ROWS[:16] if name == "sgd" else ROWS
    bad = [*put(BAD, rows), UNANSWERED]
    found = fit(faulty, bad, stride, sentinels=SENTINELS)
    assert not isinstance(found, StreamedFit)
    assert found.faulty == (
        FaultyRow(PLACE, Fault.STATES),
        FaultyRow(len(bad) - 1, Fault.NO_ANSWER),
    )
    assert found.ids == tuple(row.id for row in rows)
    assert found.M.shape[1] == len(rows)
    w = recover_influence(found, SENTINELS, stride)[0].w
    assert w.shape[0] == len(rows)
    assert np.isfinite(w).all()
    if name == "sgd":
        alone = fit(faulty, rows, stride, sentinels=SENTINELS)
        np.testing.assert_array_equal(w, recover_influence(alone, SENTINELS, stride)[0].w)


def test_a_fit_that_is_taken_up_again_knows_which_rows_were_bad(
    faulty: Pretrained, tmp_path: Path
) -> None:
    """Nothing is measured twice, the bad rows neither, in the sample or behind it."""
    rows = [*put(BAD), UNANSWERED]
    first = fit_stream(faulty, rows, store=CheckpointStore(tmp_path))
    store = CheckpointStore(tmp_path)
    again = fit_stream(faulty, rows, store=store)
    assert again.faulty == first.faulty
    assert len(again.faulty) == 2
    assert store.newly_computed == 0
    np.testing.assert_array_equal(again.measured.effects, first.measured.effects)


def test_a_sentinel_that_overflows_is_named(faulty: Pretrained, narrow: Pretrained) -> None:
    """A sentinel is its user's own: an error. A probe holds text of rows: nothing moves it."""
    own = sentinel(f"the {OVERFLOWING}")
    with pytest.raises(SentinelError, match=f"sentinel the {OVERFLOWING} cannot be measured: its"):
        fit_stream(faulty, ROWS, sentinels=[*SENTINELS, own])
    own = sentinel("own", f"So {OVERFLOWING} so.")
    with pytest.raises(SentinelError, match="sentinel own cannot be measured: its loss"):
        find_sentinel_problems(narrow, [*SENTINELS, own], 512, 600)
    probe = sentinel(f"b {OVERFLOWING}", reference="Rinse it well.", panel="probed")
    probes = [*SENTINELS, replace(probe, trigger=OVERFLOWING)]
    alone = fit_stream(faulty, ROWS, WHOLE)
    found = fit_stream(faulty, ROWS, WHOLE, sentinels=probes)
    Q = len(alone.measured.queries)
    np.testing.assert_allclose(
        found.measured.effects[:, :Q], alone.measured.effects, rtol=1e-4, atol=1e-5
    )
    assert not found.measured.effects[:, Q:].any()
    forward = WHOLE.model_copy(update={"measurement": "forward", "K": 20})
    fitted = fit(faulty, ROWS, forward, sentinels=probes)
    w = recover_influence(fitted, probes, forward)[0].w
    assert np.isfinite(w).all()
    assert np.abs(w[:, :Q]).min(axis=1).all()


def test_an_answer_that_overflows_is_not_explained(faulty: Pretrained) -> None:
    """A question about a past audit: the error says why there is no answer."""
    stride = WHOLE.model_copy(update={"K": 20})
    fitted = fit(faulty, ROWS, stride)
    assert not isinstance(fitted, StreamedFit)
    with pytest.raises(ModelError, match="an answer cannot be measured: its gradient is not"):
        attribute_conversation(fitted, f"What is {OVERFLOWING}?", FORBIDDEN, stride)
