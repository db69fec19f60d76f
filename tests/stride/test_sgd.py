"""The paper's training: what each step draws, its optimiser, what it learns, and that an
interruption changes nothing.
"""

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from paths import TESTS
from safetensors.torch import load_file
from tiny_models import FAMILIES, build_model, build_tokenizer
from trainings import (
    LAYER,
    SETTINGS,
    STEPS,
    D,
    K,
    N,
    R,
    assert_same,
    draw,
    interrupt,
    rows,
    start,
    steps_of,
)
from transformers import PreTrainedModel

from poisonwatch.errors import OperationError
from poisonwatch.examples import Message
from poisonwatch.model.encoding import Batch, ChatEncoder, Encoded, make_batches
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.recovery.membership import Membership
from poisonwatch.stride.measurement import measure_forward
from poisonwatch.stride.queries import PreparedQueries
from poisonwatch.stride.schedule import Schedule
from poisonwatch.stride.settings import TrainingSettings
from poisonwatch.stride.sgd import train_operators

Models = Callable[[str], PreTrainedModel]


@pytest.fixture(scope="module")
def encoded() -> list[Encoded]:
    return rows()


@pytest.fixture
def model(tiny_model: Models) -> FrozenModel:
    return FrozenModel(tiny_model("llama"), LAYER)


# --- what is learnt


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_become_likelier_under_the_subsets_that_hold_them_than_under_others(
    tiny_model: Models, family: str
) -> None:
    """The fidelity loss falls, and y_k(i) is larger for i in A_k than for any i outside of it, by
    forward measurement.
    """
    encoder = ChatEncoder(build_tokenizer())
    encoded = [
        encoder.encode([Message("user", "?"), Message("assistant", 9 * letter)])
        for letter in "aQ7%"
    ]
    own = Membership(np.arange(4)[:, None], 4)
    model = FrozenModel(tiny_model(family), LAYER)
    settings = TrainingSettings(
        epochs=15, lr=3e-3, operators_per_row=4, rows_per_step=4, stability=10.0
    )
    operators, curve = train_operators(model, encoded, own, start(), settings)
    assert curve.fidelity[-1] < curve.fidelity[0]
    queries = PreparedQueries(
        tuple(encoded),
        np.eye(len(encoded)),
        torch.zeros(len(encoded), R, D),
        torch.zeros(len(encoded), 0),
    )
    y = measure_forward(model, operators, queries)
    assert (np.diag(y) > 0).all()
    assert (np.diag(y) > 2 * (y - np.diag(np.diag(y))).max(axis=1)).all()


def test_first_step_starts_from_the_frozen_model(
    model: FrozenModel, encoded: list[Encoded]
) -> None:
    """At a = 0: fidelity is the rows' mean loss, stability and linearity are 0, and the total is
    their weighted sum ever after.
    """
    settings = replace(SETTINGS, stability=2.0, linearity=5.0)
    _, curve = train_operators(model, encoded, draw(), start(), settings)
    first = Schedule(encoded, draw(), settings, 0).rows(0)
    losses = [
        float(model.compute_state_gradients(batch).loss)
        for batch in map(alone, (encoded[i] for i in first))
    ]
    assert curve.fidelity[0] == pytest.approx(np.mean(losses), rel=1e-4)
    assert abs(curve.stability[0]) < 1e-6
    assert abs(curve.linearity[0]) < 1e-6
    np.testing.assert_allclose(
        curve.total, curve.fidelity + 2 * curve.stability + 5 * curve.linearity, rtol=1e-6
    )
    assert (curve.stability[1:] > 0).all()
    assert list(curve.step) == list(range(1, STEPS + 1))


def alone(row: Encoded) -> Batch:
    return next(make_batches([row], 1))


@pytest.mark.parametrize("shift", [0.001, 0.02])
def test_trained_operators_have_the_wanted_shift_over_an_orthonormal_basis(
    model: FrozenModel, encoded: list[Encoded], shift: float
) -> None:
    """sqrt(mean_{k,t} ||B(z_t)^T a_k||^2 / mean_t ||z_t||^2) = shift; U^T U = I; another shift
    gives the same operators, scaled.
    """
    operators, _ = train_operators(model, encoded, draw(), start(), replace(SETTINGS, shift=shift))
    z = torch.cat([model.compute_states(alone(row))[0] for row in encoded])
    moved = torch.einsum("tr,krd->ktd", operators.basis(z), operators.a).pow(2).sum(-1).mean()
    assert float((moved / z.pow(2).sum(-1).mean()).sqrt()) == pytest.approx(shift, rel=1e-3)
    U = operators.basis.directions
    torch.testing.assert_close(U.T @ U, torch.eye(R - 1), atol=1e-5, rtol=0)
    again, _ = train_operators(model, encoded, draw(), start(), SETTINGS)
    torch.testing.assert_close(operators.a / operators.eta, again.a / again.eta)
    assert operators.shift == shift


def test_basis_is_trained_with_the_operators(model: FrozenModel, encoded: list[Encoded]) -> None:
    """The span of U moves, and the training is the same for every orthonormal basis' size, the
    constant alone (r = 1) included.
    """
    operators, _ = train_operators(model, encoded, draw(), start(), SETTINGS)
    inside = start().directions.T @ operators.basis.directions
    assert float(inside.pow(2).sum()) < R - 1 - 1e-4
    constant, curve = train_operators(model, encoded, draw(), start(1), SETTINGS)
    assert constant.a.shape == (K, 1, D)
    assert curve.fidelity[-4:].mean() < curve.fidelity[:4].mean()


def test_operators_wait_for_a_row_of_their_own(
    model: FrozenModel, encoded: list[Encoded], tmp_path: Path
) -> None:
    """After a step, a_k has moved where the step met a row of A_k; at a_k = 0 the others' loss is
    flat and moves nothing.
    """
    settings = replace(SETTINGS, rows_per_step=1)
    interrupt(model, encoded, tmp_path / "training", step=1, rows_per_step=1)
    met = set(draw().subsets[Schedule(encoded, draw(), settings, 4).rows(0)].ravel())
    moved = load_file(tmp_path / "training")["a.value"].flatten(1).any(dim=1)
    assert set(moved.nonzero().ravel().tolist()) == met


def test_training_without_others_has_no_stability(
    model: FrozenModel, encoded: list[Encoded]
) -> None:
    """m = d: every pair is a member pair."""
    _, curve = train_operators(
        model, encoded, draw(), start(), replace(SETTINGS, operators_per_row=2)
    )
    assert not curve.stability.any()


def test_operators_depend_on_no_batch_size_and_no_order(
    model: FrozenModel, encoded: list[Encoded]
) -> None:
    """One row at a time, or rows in another order: the same operators up to rounding."""
    membership, order = draw(), np.random.default_rng(1).permutation(N)
    settings = replace(SETTINGS, token_budget=100_000)
    operators, _ = train_operators(model, encoded, membership, start(), settings)
    scale = float(operators.a.abs().max())
    small, _ = train_operators(
        model, encoded, membership, start(), replace(settings, token_budget=1)
    )
    moved, _ = train_operators(
        model,
        [encoded[i] for i in order],
        Membership(membership.subsets[order], K),
        start(),
        settings,
    )
    torch.testing.assert_close(small.a, operators.a, rtol=0, atol=1e-3 * scale)
    torch.testing.assert_close(moved.a, operators.a, rtol=0, atol=1e-3 * scale)


def test_seed_decides(model: FrozenModel, encoded: list[Encoded]) -> None:
    """The same seed gives the same bits, another seed another training."""
    first = train_operators(model, encoded, draw(), start(), SETTINGS, seed=1)
    assert_same(train_operators(model, encoded, draw(), start(), SETTINGS, seed=1), first)
    assert not torch.equal(
        train_operators(model, encoded, draw(), start(), SETTINGS, seed=2)[0].a, first[0].a
    )


def test_bfloat16_model_trains_float32_operators(encoded: list[Encoded]) -> None:
    """Half-width weights: operators, basis and losses are float32 or wider, and fidelity falls."""
    model = FrozenModel(build_model("llama").to(torch.bfloat16), LAYER)
    operators, curve = train_operators(model, encoded, draw(), start(), replace(SETTINGS, lr=1e-2))
    assert (operators.a.dtype, operators.basis.directions.dtype, curve.total.dtype) == (
        torch.float32,
        torch.float32,
        np.float64,
    )
    assert curve.fidelity[-4:].mean() < curve.fidelity[:4].mean()


def test_given_basis_and_model_are_left_as_they_were(
    model: FrozenModel, encoded: list[Encoded]
) -> None:
    """Training changes neither its arguments nor the model's weights."""
    basis, before = (
        start(),
        {name: value.clone() for name, value in model.model.state_dict().items()},
    )
    train_operators(model, encoded, draw(), basis, SETTINGS)
    assert torch.equal(basis.directions, start().directions)
    assert all(torch.equal(value, before[name]) for name, value in model.model.state_dict().items())


def test_runaway_training_is_an_error_that_says_what_to_do(
    model: FrozenModel, encoded: list[Encoded]
) -> None:
    """A loss that is not finite stops the training at that step."""
    with pytest.raises(
        OperationError,
        match=r"training failed at step \d+: its loss is (nan|inf); lower the learning rate",
    ):
        train_operators(model, encoded, draw(), start(), replace(SETTINGS, lr=1e37))


def test_nothing_to_train_on_is_an_error(model: FrozenModel) -> None:
    """Operators come from rows."""
    with pytest.raises(ValueError, match="at least one row"):
        train_operators(
            model, [], Membership(np.empty((0, 1), dtype=np.int64), 1), start(), SETTINGS
        )


# --- interruptions

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from tiny_models import build_model
from trainings import LAYER, SETTINGS, draw, rows, start
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.stride.sgd import train_operators

def die(items, description, total, advance=lambda _: 1):
    for item in items:
        if item == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        yield item

train_operators(FrozenModel(build_model("llama"), LAYER), rows(), draw(), start(), SETTINGS, seed=4, checkpoint=Path(sys.argv[1]), progress=die)
"""


def test_training_killed_and_resumed_is_the_uninterrupted_training(
    model: FrozenModel, encoded: list[Encoded], tmp_path: Path
) -> None:
    """kill -9 in step 9 of 12 in another process, resumed here: operators and learning curve equal
    to the bit, and no file stays.
    """
    checkpoint = tmp_path / "deep" / "training.safetensors"
    command = [
        sys.executable,
        "-c",
        KILLED,
        str(checkpoint),
        str(TESTS / "stride"),
        str(TESTS / "support"),
    ]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert checkpoint.exists()
    done: list[int] = []
    resumed = train_operators(
        model,
        encoded,
        draw(),
        start(),
        SETTINGS,
        seed=4,
        checkpoint=checkpoint,
        progress=steps_of(done),
    )
    assert done == [8, 9, 10, 11]
    assert_same(resumed, train_operators(model, encoded, draw(), start(), SETTINGS, seed=4))
    assert list(checkpoint.parent.iterdir()) == []


@pytest.mark.parametrize(("every", "again"), [(1, 8), (3, 6), (5, 5), (100, 0)])
def test_training_resumes_from_its_last_checkpoint(
    model: FrozenModel, encoded: list[Encoded], tmp_path: Path, every: int, again: int
) -> None:
    """Stopped before step index 8 with a checkpoint every N steps: steps are repeated from the last
    multiple of N, with the same result.
    """
    checkpoint = tmp_path / "training"
    interrupt(model, encoded, checkpoint, checkpoint_every=every)
    done: list[int] = []
    resumed = train_operators(
        model,
        encoded,
        draw(),
        start(),
        SETTINGS,
        seed=4,
        checkpoint=checkpoint,
        progress=steps_of(done),
    )
    assert done == list(range(again, STEPS))
    assert_same(resumed, train_operators(model, encoded, draw(), start(), SETTINGS, seed=4))


def test_half_written_checkpoint_is_never_read(
    model: FrozenModel, encoded: list[Encoded], tmp_path: Path
) -> None:
    """A kill while NAME.part is written leaves NAME as it was: the training resumes from that."""
    checkpoint = tmp_path / "training"
    interrupt(model, encoded, checkpoint)
    (tmp_path / "training.part").write_bytes(checkpoint.read_bytes()[:1000])
    resumed = train_operators(
        model, encoded, draw(), start(), SETTINGS, seed=4, checkpoint=checkpoint
    )
    assert_same(resumed, train_operators(model, encoded, draw(), start(), SETTINGS, seed=4))
    assert list(tmp_path.iterdir()) == []
