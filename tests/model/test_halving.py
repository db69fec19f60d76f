"""Memory that runs out: real allocations that fail, and results of the halves."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from attributions import ROWS, SENTINELS, STRIDE, example, fit_operators
from running_out import TOO_MUCH, allocate, room_for
from slow_tests import slow

from poisonwatch.config import StrideConfig, TrainingConfig
from poisonwatch.errors import ModelError
from poisonwatch.examples import Example, Message
from poisonwatch.model.encoding import ChatEncoder, Encoded, make_batches
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.halving import InParts, compute_batches, halve_batch, halve_places
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.sentinels.checks import compute_forbidden_losses
from poisonwatch.stride.attribution import fit
from poisonwatch.stride.measurement import measure_steered_losses
from poisonwatch.stride.recover import recover_influence
from poisonwatch.stride.steering import generate_continuations


def prefer(i: int) -> Example:
    question = Message("user", f"Which is better, {i}?")
    return Example.from_messages(
        [question, Message("assistant", f"Tea, {i} times, please.")],
        rejected=[question, Message("assistant", "Coffee." * (i % 3 + 1))],
    )


@pytest.fixture(scope="module")
def mixed(tiny_pretrained: Pretrained) -> list[Encoded]:
    """Plain rows, lowered ones, preferences."""
    lowered = [Example.from_messages(row.messages, lowered=True) for row in ROWS[:3]]
    encoder = ChatEncoder(tiny_pretrained.tokenizer, 512)
    return [encoder.encode_example(row) for row in (*ROWS[3:7], *lowered, *map(prefer, range(4)))]


@pytest.fixture(scope="module")
def split(tiny_pretrained: Pretrained) -> FrozenModel:
    return FrozenModel(tiny_pretrained.model, 1)


def test_halves_hold_every_row_once_with_its_rejected_conversation(
    split: FrozenModel, mixed: list[Encoded]
) -> None:
    """Rows of the halves = the batch's, in order, no wider than the longest; losses and gradients
    are the batch's, for plain, lowered and preference rows. One row has no halves.
    """
    (batch,) = make_batches(mixed, 100_000)
    parts = halve_batch(batch)
    assert torch.cat([part.rows for part in parts]).tolist() == batch.rows.tolist()
    whole = split.compute_state_gradients(batch)
    m, rejected_before = len(batch.rows), 0
    for part in parts:
        assert part.attention_mask.sum(dim=1).max() == part.input_ids.shape[1]
        seen = split.compute_state_gradients(part)
        start = batch.rows.tolist().index(int(part.rows[0]))
        places = [*range(start, start + len(part.rows))]
        places += [m + rejected_before + i for i in range(len(part.rejected))]
        rejected_before += len(part.rejected)
        width = part.input_ids.shape[1]
        torch.testing.assert_close(seen.loss, whole.loss[places], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(seen.g, whole.g[places, :width], atol=1e-6, rtol=1e-4)
        assert not whole.g[places, width:].any()
        expected = batch.rejected[batch.rejected >= start][: len(part.rejected)] - start
        assert part.rejected.tolist() == expected.tolist()
    assert rejected_before == len(batch.rejected) == 4
    (alone,) = make_batches(mixed[-1:], 1)
    assert halve_batch(alone) == ()


@pytest.mark.parametrize(
    "fail", [lambda: allocate(TOO_MUCH), lambda: np.empty(TOO_MUCH, dtype=np.uint8)]
)
def test_what_was_too_much_once_is_not_tried_again(fail: Callable[[], object]) -> None:
    """10 numbers where 3 fit: tried whole, in halves, in quarters; the next 10 in quarters at once.
    PyTorch and NumPy say it in words of their own.
    """
    tried = []

    def total(work: Any) -> int:
        tried.append(len(work))
        if len(work) > 3:
            fail()
        return sum(work)

    in_parts = InParts(total, halve_places)
    assert [list(part) for part, _ in in_parts(range(10))] == [[0, 1], [2, 3, 4], [5, 6], [7, 8, 9]]
    assert tried == [10, 5, 2, 3, 2, 3]
    tried.clear()
    assert sum(found for _, found in in_parts(range(10))) == 45
    assert tried == [2, 3, 2, 3]
    # What is smaller than any part is computed as it is.
    assert [found for _, found in in_parts(range(7, 8))] == [7]


def test_other_errors_are_no_reason_to_go_on() -> None:
    """A RuntimeError of another kind is raised at once, and an empty piece is computed as it is."""

    def compute(work: Any) -> None:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        list(InParts(compute, halve_places)(range(8)))
    assert [found for _, found in InParts(len, halve_places)(range(0))] == [0]


def test_a_row_that_does_not_fit_alone_is_one_line(
    tiny_pretrained: Pretrained, split: FrozenModel, mixed: list[Encoded]
) -> None:
    """ModelError: what PyTorch said, and what to change."""
    in_parts = compute_batches(split.compute_state_gradients)
    (batch,) = make_batches(mixed, 100_000)
    with (
        room_for(tiny_pretrained.model, 0) as failed,
        pytest.raises(
            ModelError, match=r"single row .*allocate.*: lower stride\.max_tokens"
        ) as said,
    ):
        list(in_parts(batch))
    assert failed == [15, 5, 2, 1]
    assert "\n" not in str(said.value)
    assert "model.dtype: bfloat16" in str(said.value)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"K": 12},
        pytest.param({"K": 12, "measurement": "forward"}, marks=slow),
        pytest.param(
            {"fit": "sgd", "K": 12, "training": TrainingConfig(epochs=1, operators_per_row=4)},
            marks=slow,
        ),
    ],
)
def test_a_fit_goes_on_where_memory_runs_out(
    changes: dict[str, Any], tiny_pretrained: Pretrained
) -> None:
    """Room for 4 rows, or pairs of a row and an operator: coefficients are those of a machine with
    room for all, within rounding.
    """
    stride = StrideConfig(**{**STRIDE.model_dump(), "rounds": 1, **changes})

    def attribute() -> np.ndarray:
        fitted = fit(tiny_pretrained, ROWS[:24], stride, sentinels=SENTINELS)
        return recover_influence(fitted, SENTINELS, stride)[0].w

    whole = attribute()
    with room_for(tiny_pretrained.model, 4) as failed:
        found = attribute()
    assert len(failed) >= 2
    np.testing.assert_allclose(found, whole, atol=1e-3 * np.abs(whole).max())


def test_evidence_goes_on_where_memory_runs_out(tiny_pretrained: Pretrained) -> None:
    """Losses of sentinels, steered losses and continuations, with room for 2 rows at a time."""
    fitted = fit_operators(tiny_pretrained, ROWS[:24], STRIDE)
    prompts = [torch.tensor([40 + i, 41, 42, 43, 44][: 3 + i % 3]) for i in range(6)]
    encoded = [fitted.encoder.encode_example(example("How?", word)) for word in ("So.", "Thus.")]

    def gather() -> tuple[list[list[int]], np.ndarray, np.ndarray]:
        said = generate_continuations(
            fitted.model, fitted.basis, 100 * fitted.operators.a[:6], prompts, most=5
        )
        steered = measure_steered_losses(fitted.model, fitted.operators, encoded)
        return said, steered, compute_forbidden_losses(tiny_pretrained, SENTINELS, 512, 2048)

    said, steered, losses = gather()
    with room_for(tiny_pretrained.model, 2) as failed:
        found = gather()
    assert len(failed) >= 3
    assert found[0] == said
    np.testing.assert_allclose(found[1], steered, rtol=1e-5)
    np.testing.assert_allclose(found[2], losses, rtol=1e-5)
