"""The paper's training: what each step draws, its optimiser, what it learns, and that an
interruption changes nothing.
"""

import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from paths import TESTS
from safetensors.torch import load_file
from tiny_models import FAMILIES, build_model, build_tokenizer
from transformers import PreTrainedModel

from poisonwatch.errors import ConfigError, OperationError
from poisonwatch.examples import Message
from poisonwatch.model.encoding import Batch, ChatEncoder, Encoded, make_batches
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.recovery.membership import Membership, draw_random_membership
from poisonwatch.stride.adam import Adam
from poisonwatch.stride.fitted import LearningCurve
from poisonwatch.stride.measurement import measure_forward
from poisonwatch.stride.operators import Basis, Operators
from poisonwatch.stride.queries import PreparedQueries
from poisonwatch.stride.schedule import Schedule
from poisonwatch.stride.settings import TrainingSettings
from poisonwatch.stride.sgd import train_operators

Models = Callable[[str], PreTrainedModel]
N, K, R, D, LAYER = 16, 6, 4, 32, 1
SETTINGS = TrainingSettings(
    epochs=3, operators_per_row=5, rows_per_step=4, sketch=3, checkpoint_every=1
)
STEPS = 12


def rows(n: int = N) -> list[Encoded]:
    encoder = ChatEncoder(build_tokenizer())
    return [
        encoder.encode(
            [Message("user", f"{i}?"), Message("assistant", f"{'Yes. ' * (1 + i % 2)}{i * i}")]
        )
        for i in range(n)
    ]


def draw(n: int = N, k: int = K, d: int = 2) -> Membership:
    return draw_random_membership([str(i) for i in range(n)], k, d)


def start(r: int = R) -> Basis:
    return Basis(
        torch.linalg.qr(torch.randn(D, r - 1, generator=torch.Generator().manual_seed(3)))[0]
    )


@pytest.fixture(scope="module")
def encoded() -> list[Encoded]:
    return rows()


@pytest.fixture
def model(tiny_model: Models) -> FrozenModel:
    return FrozenModel(tiny_model("llama"), LAYER)


def assert_same(
    found: tuple[Operators, LearningCurve], expected: tuple[Operators, LearningCurve]
) -> None:
    """To the bit: operators, basis, scale and learning curve."""
    assert torch.equal(found[0].a, expected[0].a)
    assert torch.equal(found[0].basis.directions, expected[0].basis.directions)
    assert found[0].eta == expected[0].eta
    for name in ("step", "total", "fidelity", "stability", "linearity"):
        np.testing.assert_array_equal(getattr(found[1], name), getattr(expected[1], name))


# --- what a step draws


def test_every_epoch_meets_each_row_once(encoded: list[Encoded]) -> None:
    """An epoch's minibatches partition the rows, in an order that differs from epoch to epoch and
    from seed to seed.
    """
    schedule = Schedule(encoded, draw(), replace(SETTINGS, rows_per_step=5), seed=0)
    assert (schedule.steps_per_epoch, schedule.steps) == (4, 12)
    epochs = [
        np.concatenate([schedule.rows(4 * epoch + place) for place in range(4)])
        for epoch in range(3)
    ]
    assert all(sorted(epoch) == list(range(N)) for epoch in epochs)
    other = Schedule(encoded, draw(), replace(SETTINGS, rows_per_step=5), seed=1)
    assert (
        len(
            {
                tuple(epoch)
                for epoch in [*epochs, np.concatenate([other.rows(place) for place in range(4)])]
            }
        )
        == 4
    )


def test_each_row_meets_its_own_subsets_and_distinct_others(encoded: list[Encoded]) -> None:
    """Of a row's m operators the first d are those of its subsets; no operator comes twice."""
    membership = draw()
    schedule = Schedule(encoded, membership, SETTINGS, seed=0)
    for step in range(STEPS):
        for row, ks in zip(schedule.rows(step), schedule.operators(step), strict=True):
            assert list(ks[:2]) == list(membership.subsets[row])
            assert len(set(ks)) == 5
            assert set(ks) <= set(range(K))


def test_others_are_drawn_evenly() -> None:
    """Each of the K - d other subsets comes with probability (m - d) / (K - d): within 4.5 standard
    errors over 2,000 draws.
    """
    membership = Membership(np.array([[4, 1]] * 2000), K)
    schedule = Schedule(
        [Encoded.of([i], [True]) for i in range(2000)],
        membership,
        replace(SETTINGS, rows_per_step=2000),
        seed=5,
    )
    counts = np.bincount(schedule.operators(0)[:, 2:].ravel(), minlength=K)
    assert list(counts[[1, 4]]) == [0, 0]
    assert np.abs(counts[[0, 2, 3, 5]] / 2000 - 3 / 4).max() < 4.5 * (3 / 4 / 4 / 2000) ** 0.5


def test_sketch_keeps_the_inner_products_of_memberships(encoded: list[Encoded]) -> None:
    """E[M~ M~^T] = M M^T: the mean over 3,000 steps is within 5 standard errors, and no two steps
    share a sketch.
    """
    membership = draw()
    schedule = Schedule(encoded, membership, SETTINGS, seed=0)
    M = membership.matrix().toarray()
    sketches = [schedule.sketch(step) for step in range(3000)]
    found = np.array([sketch @ sketch.T for sketch in sketches])
    error = np.abs(found.mean(axis=0) - M @ M.T) / (found.std(axis=0) / 3000**0.5)
    assert error.max() < 5
    assert not np.allclose(sketches[0], sketches[1])


def test_what_a_step_draws_follows_the_rows_wherever_they_stand(encoded: list[Encoded]) -> None:
    """Permuting rows and memberships together permutes the minibatches and nothing else."""
    membership = draw()
    order = np.random.default_rng(0).permutation(N)
    schedule = Schedule(encoded, membership, SETTINGS, seed=0)
    moved = Schedule(
        [encoded[i] for i in order], Membership(membership.subsets[order], K), SETTINGS, seed=0
    )
    for step in (0, 7):
        np.testing.assert_array_equal(order[moved.rows(step)], schedule.rows(step))
        np.testing.assert_array_equal(moved.operators(step), schedule.operators(step))
        np.testing.assert_allclose(moved.sketch(step), schedule.sketch(step), atol=1e-12)
    assert moved.contents == schedule.contents


def test_fewer_operators_a_row_than_its_subsets_are_refused(encoded: list[Encoded]) -> None:
    """m >= d, or a row would not meet its own subsets."""
    with pytest.raises(
        ConfigError, match="1 operators a row are too few: every row is in 2 subsets"
    ):
        Schedule(encoded, draw(), replace(SETTINGS, operators_per_row=1), seed=0)


# --- the optimiser


def test_adam_equals_torchs_where_every_row_is_touched() -> None:
    """The same values as torch.optim.Adam after each of 20 steps, in units of `unit`."""
    rng = torch.Generator().manual_seed(0)
    ours = Adam(torch.zeros(3, 4, dtype=torch.float64), unit=2.0)
    theirs = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([theirs], lr=0.02, eps=1e-12)
    for _ in range(20):
        theirs.grad = torch.randn(3, 4, dtype=torch.float64, generator=rng)
        optimiser.step()
        ours.update(torch.arange(3), theirs.grad, lr=0.01)
        torch.testing.assert_close(ours.value, theirs.detach(), rtol=1e-6, atol=1e-9)


def test_adam_moves_only_what_a_step_touches() -> None:
    """A row touched in some steps ends where it would have ended alone, with those steps only."""
    rng = torch.Generator().manual_seed(0)
    together, alone = Adam(torch.zeros(2, 4), 1.0), Adam(torch.zeros(1, 4), 1.0)
    for step in range(10):
        gradient = torch.randn(2, 4, generator=rng)
        if step % 3:
            together.update(torch.tensor([0]), gradient[:1], 0.01)
        else:
            together.update(torch.tensor([1, 0]), gradient.flip(0), 0.01)
            alone.update(torch.tensor([0]), gradient[1:], 0.01)
    assert torch.equal(together.value[1:], alone.value)
    assert together.steps.tolist() == [10, 4]


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
    queries = PreparedQueries(tuple(encoded), np.eye(len(encoded)), torch.zeros(len(encoded), R, D))
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
from test_sgd import LAYER, SETTINGS, draw, rows, start
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.stride.sgd import train_operators

def die(items, description, total, advance=lambda _: 1):
    for item in items:
        if item == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        yield item

train_operators(FrozenModel(build_model("llama"), LAYER), rows(), draw(), start(), SETTINGS, seed=4, checkpoint=Path(sys.argv[1]), progress=die)
"""


class Interrupted(Exception):  # noqa: N818
    """Ends a training in this process."""


def stop_at(step: int) -> Callable[..., Iterator[int]]:
    def progress(
        items: Iterable[int],
        description: str,
        total: int,
        advance: Callable[[int], int] = lambda _: 1,
    ) -> Iterator[int]:
        for item in items:
            if item == step:
                raise Interrupted
            yield item

    return progress


def interrupt(
    model: FrozenModel, encoded: list[Encoded], checkpoint: Path, step: int = 8, **changes: object
) -> None:
    with pytest.raises(Interrupted):
        train_operators(
            model,
            encoded,
            draw(),
            start(),
            replace(SETTINGS, **changes),
            seed=4,
            checkpoint=checkpoint,
            progress=stop_at(step),
        )


def steps_of(done: list[int]) -> Callable[..., Iterator[int]]:
    def progress(
        items: Iterable[int],
        description: str,
        total: int,
        advance: Callable[[int], int] = lambda _: 1,
    ) -> Iterator[int]:
        seen = list(items)
        assert len(seen) == total
        done.extend(seen)
        yield from seen

    return progress


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


@pytest.mark.parametrize("what", ["seed", "row", "membership", "layer", "weights", "lr", "r"])
def test_checkpoint_of_another_training_is_left_out(
    model: FrozenModel,
    encoded: list[Encoded],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    what: str,
) -> None:
    """Any change of what defines a training starts it anew, with a warning, and gives what it gives
    without a checkpoint.
    """
    checkpoint = tmp_path / "training"
    interrupt(model, encoded, checkpoint, step=2)
    other = build_model("llama", seed=1) if what == "weights" else model.model
    model = FrozenModel(other, LAYER + (what == "layer"))
    encoded = (
        [*encoded[:-1], Encoded.of(encoded[-1].input_ids[::-1], encoded[-1].answer)]
        if what == "row"
        else encoded
    )
    membership = draw(d=3) if what == "membership" else draw()
    settings = replace(SETTINGS, lr=2e-3) if what == "lr" else SETTINGS
    basis, seed = start(R - (what == "r")), 4 + (what == "seed")
    done: list[int] = []
    with caplog.at_level(logging.WARNING):
        found = train_operators(
            model,
            encoded,
            membership,
            basis,
            settings,
            seed=seed,
            checkpoint=checkpoint,
            progress=steps_of(done),
        )
    assert "is of another training" in caplog.text
    assert done == list(range(STEPS))
    assert_same(found, train_operators(model, encoded, membership, basis, settings, seed=seed))


def test_unreadable_checkpoint_is_left_out(
    model: FrozenModel, encoded: list[Encoded], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is no checkpoint starts the training anew, with a warning."""
    checkpoint = tmp_path / "training"
    checkpoint.write_bytes(b"not a checkpoint")
    with caplog.at_level(logging.WARNING):
        train_operators(model, encoded, draw(), start(), SETTINGS, seed=4, checkpoint=checkpoint)
    assert "cannot be read" in caplog.text
    assert not checkpoint.exists()


def test_how_often_to_save_is_no_part_of_the_training(
    model: FrozenModel, encoded: list[Encoded], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another checkpoint_every or token_budget resumes the same training."""
    checkpoint = tmp_path / "training"
    interrupt(model, encoded, checkpoint)
    done: list[int] = []
    settings = replace(SETTINGS, checkpoint_every=7, token_budget=500)
    train_operators(
        model,
        encoded,
        draw(),
        start(),
        settings,
        seed=4,
        checkpoint=checkpoint,
        progress=steps_of(done),
    )
    assert done == [8, 9, 10, 11]
    assert not caplog.text


def test_checkpoint_that_cannot_be_written_is_an_error_in_the_trees_terms(
    model: FrozenModel, encoded: list[Encoded], tmp_path: Path
) -> None:
    """A file where the folder should be."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(OperationError, match=r"checkpoint .*taken.* cannot be written"):
        train_operators(
            model,
            encoded,
            draw(),
            start(),
            SETTINGS,
            seed=4,
            checkpoint=tmp_path / "taken" / "training",
        )
