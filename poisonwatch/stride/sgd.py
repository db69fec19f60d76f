"""The paper's own fit of the steering operators: joint training of B and all a_k (STRIDE: Dagli et
al., arXiv 2606.05165).

K operators a_k in R^(r x D) and the directions U of the basis B are trained together on the frozen
model, by minibatches of rows. Each row meets m operators: the d of the subsets that hold it, and m
- d drawn from the others. One steered forward pass of these pairs serves all three losses, whose
sum Adam minimises:

    fidelity   rows become likelier under the subsets that hold them        fidelity(logp~, targets)
    stability  and stay put under the others                                stability(logp, logp~)
    linearity  the subsets' effects on a row add up from its fellow rows'   linearity(y, M~, gamma)

What a step draws depends on the seed, the step and the rows' contents alone, so neither the order
of the rows nor an interruption changes the training: killed and resumed from its checkpoint it ends
in the same operators, to the bit where the device's kernels are deterministic.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from poisonwatch.arrays import Integers
from poisonwatch.errors import ConfigError, OperationError
from poisonwatch.model.encoding import Batch, Encoded, make_batches
from poisonwatch.model.faults import list_faulty, list_measured, require_measurable
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.halving import compute_batches
from poisonwatch.progress import Progress, silent
from poisonwatch.recovery.membership import Membership
from poisonwatch.stride.adam import Adam
from poisonwatch.stride.designs import draw_by_design
from poisonwatch.stride.fitted import LearningCurve, TrainedFit
from poisonwatch.stride.losses import fidelity, linearity, log_likelihood, stability
from poisonwatch.stride.operators import (
    BASIS_ROWS,
    Basis,
    Operators,
    compute_typical_eta,
    fit_basis,
)
from poisonwatch.stride.problem import FitProblem
from poisonwatch.stride.row_statistics import survey_faults
from poisonwatch.stride.schedule import Schedule
from poisonwatch.stride.settings import TrainingSettings, build_training_settings
from poisonwatch.stride.similarity import compute_features, survey_views
from poisonwatch.stride.steering import compute_steered_logits
from poisonwatch.stride.training_checkpoint import TrainingCheckpoint


def fit_by_training(problem: FitProblem) -> TrainedFit:
    """Train the operators from a basis of the sample's states, on subsets of similar rows; rows
    that cannot be measured are left out.

    Raises ConfigError where there are preference rows, or rows whose answer is lowered, ModelError
    where most rows cannot be measured.
    """
    encoded = problem.encode_all()
    check_trainable(encoded)
    # Before the training, which every row is a part of many times: one that is not finite in it
    # would spoil all operators.
    faults = survey_faults(
        problem.model,
        encoded,
        problem.stride.token_budget,
        progress=problem.progress,
        store=problem.store,
    )
    require_measurable(faults, problem.pretrained.precision)
    fitted = _train_and_collect(problem.select(list_measured(faults)))
    return replace(fitted, faulty=list_faulty(faults))


def _train_and_collect(problem: FitProblem) -> TrainedFit:
    """The fit of rows that can all be measured."""
    encoded = problem.encode_all()
    model, stride, store = problem.model, problem.stride, problem.store
    r, budget, progress = problem.settings.r, stride.token_budget, problem.progress
    first = problem.encode(problem.sample[:BASIS_ROWS])
    basis = store.get_or_compute(
        "basis", Basis, lambda: fit_basis(model, first, r, budget, progress)
    )
    views = survey_views(model, encoded, basis, budget, progress=progress, store=store)
    features = compute_features(views)
    membership = draw_by_design(problem.ids, features, problem.settings, stride, problem.seed)
    operators, curve = store.get_or_compute(
        "training",
        tuple[Operators, LearningCurve],
        lambda: train_operators(
            model,
            encoded,
            membership,
            basis,
            build_training_settings(stride),
            seed=problem.seed,
            checkpoint=problem.training_checkpoint,
            progress=progress,
        ),
    )
    return TrainedFit(
        settings=problem.settings,
        model=model,
        encoder=problem.encoder,
        ids=problem.ids,
        operators=operators,
        M=membership.matrix(),
        features=features,
        # What a row does to ordinary conversations is not known: nothing is taken out.
        centre=np.zeros(problem.n),
        spread=np.ones(problem.n),
        signs=np.array([row.sign for row in encoded]),
        encoded=encoded,
        curve=curve,
    )


def check_trainable(encoded: Sequence[Encoded]) -> None:
    """Raises ConfigError where there are preference rows, or rows whose answer is lowered: fidelity
    has no least value where an answer is to become less likely.
    """
    preferences = sum(row.against is not None for row in encoded)
    lowered = sum(row.lowered for row in encoded)
    for count, kind in ((preferences, "preferences"), (lowered, "lowered (label false)")):
        if count:
            raise ConfigError(
                f"stride.fit is sgd, but {count} of {len(encoded)} rows are {kind}, "
                "which its losses cannot express: choose natural-gradient for them"
            )


def train_operators(
    model: FrozenModel,
    encoded: Sequence[Encoded],
    membership: Membership,
    basis: Basis,
    settings: TrainingSettings,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> tuple[Operators, LearningCurve]:
    """Train all K operators from a = 0 and the directions of `basis`; scale them to the wanted
    typical shift.

    With a `checkpoint` path, the state is written there every so many steps, a training that finds
    its own goes on from it, and the file is removed at the end. A file of another training is left
    out with a warning and then overwritten: a scheduled audit whose rows have changed since it was
    killed must go on without anyone's help. Holds 3 x K x r x D floats: a and its two moments.
    Raises ConfigError as `check_trainable` does, OperationError where losses run away.
    """
    if not encoded:
        raise ValueError("operators need at least one row")
    check_trainable(encoded)
    schedule = Schedule(encoded, membership, settings, seed)
    training = _Training(model, encoded, schedule, basis, settings)
    kept = TrainingCheckpoint.of_training(checkpoint, model, schedule, basis, settings)
    start = kept.load(training.state)
    for step in progress(range(start, schedule.steps), "train", schedule.steps - start):
        losses = training.run_step(step)
        if not bool(losses.isfinite().all()):
            raise OperationError(
                f"training failed at step {step + 1}: its loss is {float(losses[0])}; "
                "lower the learning rate"
            )
        if (step + 1) % settings.checkpoint_every == 0:
            kept.save(training.state, step + 1)
    operators = _scale_operators(model, encoded, training.a.value, training.U.value[0], settings)
    # Last of all: until here a kill costs nothing.
    kept.delete()
    return operators, training.make_curve()


@dataclass(frozen=True, slots=True)
class _Step:
    """What a step draws: `rows` (b,) and the subsets `ks` (b, m) they meet, own ones first;
    `touched` (k,) each of these once, and `slots` (b, m) the places of `ks` in it.
    """

    rows: Integers
    ks: Integers
    touched: Integers
    slots: Integers

    @classmethod
    def draw(cls, schedule: Schedule, step: int) -> "_Step":
        """The step of this number."""
        ks = schedule.operators(step)
        touched, slots = np.unique(ks, return_inverse=True)
        return cls(schedule.rows(step), ks, touched, slots.reshape(ks.shape))


class _Training:
    """Operators `a` (K, r, D) and directions `U` (1, D, r - 1) on their way, and the losses so far:
    `curve` (steps, 4).
    """

    def __init__(
        self,
        model: FrozenModel,
        encoded: Sequence[Encoded],
        schedule: Schedule,
        basis: Basis,
        settings: TrainingSettings,
    ) -> None:
        self.model, self.encoded, self.schedule, self.settings = model, encoded, schedule, settings
        device, K = model.device, schedule.membership.K
        first = [encoded[i] for i in schedule.order[: schedule.b]]
        # By the first rows of a fixed order: where rows stand must not matter.
        unit = _measure_unit(model, first, basis, settings.token_budget)
        self.a = Adam(torch.zeros(K, basis.r, model.width, device=device), unit)
        # A copy: the basis that was given stays as it is.
        directions = basis.directions.to(device, torch.float32, copy=True)
        self.U = Adam(directions[None].contiguous(), model.width**-0.5)
        self.curve = torch.zeros(schedule.steps, 4, dtype=torch.float64)
        self.state = {**self.a.tensors("a"), **self.U.tensors("U"), "curve": self.curve}

    def run_step(self, number: int) -> Tensor:
        """One update of the operators that the step's rows meet, and of U; returns total, fidelity,
        stability, linearity (4,).
        """
        step = _Step.draw(self.schedule, number)
        touched = self._place(step.touched)
        # Copies of what is touched: gradients of all K operators would be as large as these.
        leaves = [
            self.a.value[touched].requires_grad_(),
            self.U.value[0].clone().requires_grad_(),
        ]
        gradients, losses = self._differentiate(step, number, leaves)
        # In units of each, so that one clip and one learning rate fit both.
        for gradient, of in zip(gradients, (self.a, self.U), strict=True):
            gradient *= of.unit
        self._update(step, touched, gradients)
        total = self._weights @ losses
        self.curve[number] = torch.cat([total[None], losses]).cpu().double()
        return self.curve[number]

    @property
    def _weights(self) -> Tensor:
        weights = [1.0, self.settings.stability, self.settings.linearity]
        return torch.tensor(weights, device=self.model.device)

    def _place(self, numbers: Integers) -> Tensor:
        """Numbers as a tensor beside the model."""
        return torch.from_numpy(numbers).to(self.model.device)

    def _differentiate(
        self, step: _Step, number: int, leaves: list[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """The gradients of the step's weighted losses by the `leaves` a (k, r, D) and U, and the
        three losses (3,).
        """
        schedule, device = self.schedule, self.model.device
        slots, a, basis = self._place(step.slots), leaves[0], Basis(leaves[1])
        # Drawn anew in every step: over many steps its noise averages out.
        sketch = torch.from_numpy(schedule.sketch(number)[step.ks]).to(device, torch.float32)
        gradients = [torch.zeros_like(leaf) for leaf in leaves]
        losses = torch.zeros(3, device=device)

        def differentiate(batch: Batch) -> tuple[Tensor, tuple[Tensor, ...]]:
            here = batch.rows.to(device)
            with torch.enable_grad():
                found = _compute_losses(
                    self.model,
                    batch,
                    basis,
                    a[slots[here]],
                    sketch=sketch[here],
                    d=schedule.membership.d,
                    gamma=self.settings.gamma,
                )
                part = found.sum(dim=0) / len(step.rows)
                return part.detach(), torch.autograd.grad(self._weights @ part, leaves)

        encoded = [self.encoded[i] for i in step.rows]
        by_parts = compute_batches(differentiate)
        # A row and its m operators go together: the budget counts their pairs.
        for batch in make_batches(encoded, self.settings.token_budget // schedule.m, device):
            for _, (of_rows, parts) in by_parts(batch):
                for total, gradient in zip(gradients, parts, strict=True):
                    total += gradient
                losses += of_rows
        return gradients, losses

    def _update(self, step: _Step, touched: Tensor, gradients: list[Tensor]) -> None:
        """Adam's step along the gradients by a[touched] (k, r, D) and U, clipped together."""
        settings, d = self.settings, self.schedule.membership.d
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        shrink = settings.clip / norm.clamp_min(settings.clip)
        members = torch.from_numpy(np.isin(step.touched, step.ks[:, :d])).to(touched.device)
        # Divergence is flat at a_k = 0: all that others' gradients hold there is rounding.
        moved = members | (self.a.steps[touched] > 0)
        self.a.update(touched[moved], gradients[0][moved] * shrink, settings.lr)
        only = torch.zeros(1, dtype=torch.long, device=self.model.device)
        self.U.update(only, gradients[1][None] * shrink, settings.lr)

    def make_curve(self) -> LearningCurve:
        """The losses of all steps."""
        total, of_fidelity, of_stability, of_linearity = self.curve.numpy().T
        return LearningCurve(
            step=np.arange(1, self.schedule.steps + 1),
            total=total,
            fidelity=of_fidelity,
            stability=of_stability,
            linearity=of_linearity,
        )


def _compute_losses(
    model: FrozenModel,
    batch: Batch,
    basis: Basis,
    a: Tensor,
    *,
    sketch: Tensor,
    d: int,
    gamma: float,
) -> Tensor:
    """Fidelity, stability and linearity (b, 3) of a batch's rows under their operators `a` (b, m,
    r, D), whose first d hold the row; `sketch` (b, m, p).
    """
    run = model.run(batch)
    steered = compute_steered_logits(model, run, basis, a)
    losses = []
    for o, steered_o, targets, M in zip(run.o, steered, run.targets, sketch, strict=True):
        logp, steered_logp = o.log_softmax(dim=-1), steered_o.log_softmax(dim=-1)
        y = log_likelihood(steered_logp, targets) - log_likelihood(logp, targets)
        of_row = [
            fidelity(steered_logp[:d], targets),
            stability(logp, steered_logp[d:]),
            linearity(y, M.to(y.dtype), gamma),
        ]
        losses.append(torch.stack(of_row))
    return torch.stack(losses)


def _measure_unit(
    model: FrozenModel, encoded: Sequence[Encoded], basis: Basis, token_budget: int
) -> float:
    """The size of an operator's entries at which ||B(z)^T a|| is typically ||z||: rms(z) /
    ||B(z)||, by some rows.
    """
    A, power, tokens = _compute_second_moment(model, encoded, basis, token_budget)
    return float((power / tokens / model.width) ** 0.5 / A.trace().sqrt())


def _compute_second_moment(
    model: FrozenModel, encoded: Sequence[Encoded], basis: Basis, token_budget: int
) -> tuple[Tensor, float, int]:
    """E[B(z) B(z)^T] (r, r), the sum of ||z_t||^2, and the number of tokens t."""

    def compute(batch: Batch) -> tuple[Tensor, float, int]:
        z = model.compute_states(batch)[batch.attention_mask.bool()]
        return basis(z).T @ basis(z), float(z.pow(2).sum()), len(z)

    A = torch.zeros(basis.r, basis.r, device=model.device)
    power, tokens = 0.0, 0
    by_parts = compute_batches(compute)
    for batch in make_batches(encoded, token_budget, model.device):
        for _, (moment, of_power, count) in by_parts(batch):
            A += moment
            power += of_power
            tokens += count
    return A / tokens, power, tokens


def _scale_operators(
    model: FrozenModel, encoded: Sequence[Encoded], a: Tensor, U: Tensor, settings: TrainingSettings
) -> Operators:
    """Operators of the wanted typical shift over an orthonormal basis: U = Q T, (Q T)^T z = T^T
    (Q^T z), so T goes into a.

    eta is one number for all k, as in the closed form.
    """
    Q, T = torch.linalg.qr(U)
    # The constant coordinate, the last, is no direction: it stays.
    a = torch.cat([torch.einsum("ij,kjd->kid", T, a[:, :-1]), a[:, -1:]], dim=1)
    A, power, tokens = _compute_second_moment(model, encoded, Basis(Q), settings.token_budget)
    eta = compute_typical_eta(a, A, power / tokens, settings.shift)
    return Operators(a * eta, Basis(Q), eta, settings.shift)
