"""The paper's own fit of the steering operators: joint training of B and all a_k (STRIDE: Dagli et al., arXiv 2606.05165).

K operators a_k in R^(r x D) and the directions U of the basis B are trained together on the frozen model, by minibatches of rows. Each row
meets m operators: the d of the subsets that hold it, and m - d drawn from the others. One steered forward pass of these pairs serves all
three losses, whose sum Adam minimises:

    fidelity   rows become likelier under the subsets that hold them          fidelity(logp~, targets)
    stability  and stay put under the others                                  stability(logp, logp~)
    linearity  the subsets' effects on a row add up from its fellow rows'     linearity(y, M~, gamma)

What a step draws depends on the seed, the step and the rows' contents alone, so neither the order of the rows nor an interruption changes
the training: killed and resumed from its checkpoint it ends in the same operators, to the bit where the device's kernels are deterministic.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import log
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from poisonwatch.errors import ConfigError, OperationError
from poisonwatch.model.encoding import Batch, Encoded, batches
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.progress import Progress, silent
from poisonwatch.recovery.membership import Membership
from poisonwatch.stride.operators import Basis, Operators, typical_eta
from poisonwatch.stride.steering import fidelity, linearity, log_likelihood, stability, steered

logger = logging.getLogger(__name__)

Array = NDArray[np.float64]
BETAS, EPSILON = (0.9, 0.999), 1e-8


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """The training's dials. Weights and `lr` are free of units: `lr` is the typical relative shift of a state that one Adam step makes."""

    epochs: int = 4
    """How often every row is met."""
    lr: float = 1e-3
    operators_per_row: int = 8
    """m: the d operators of a row's own subsets, and m - d others."""
    rows_per_step: int = 8
    stability: float = 1.0
    linearity: float = 1.0
    gamma: float = 1.0
    """Ridge of the linearity loss, in rows: the sketch's Gram matrix has about |A_k| on its diagonal."""
    sketch: int = 16
    """p: columns of the sketch M~ = M R."""
    clip: float = 1.0
    """Longest gradient of a step, by a in units of the state's length and by U in units of its own."""
    shift: float = 0.005
    """Typical relative shift ||z~ - z|| / ||z|| that the trained operators are scaled to."""
    token_budget: int = 2048
    """Padded tokens of (row, operator) pairs in one forward pass; a row and its m operators always go together."""
    checkpoint_every: int = 100
    """Steps between two checkpoints."""


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """The losses of every step, before that step's update: `step` (steps,) from 1, the others (steps,) in nats a token."""

    step: NDArray[np.int64]
    total: Array
    fidelity: Array
    stability: Array
    linearity: Array


class Schedule:
    """Which rows meet which operators in which step: functions of the seed, the step and the rows' contents."""

    def __init__(self, encoded: Sequence[Encoded], membership: Membership, settings: TrainingSettings, seed: int) -> None:
        self.m = min(settings.operators_per_row, membership.K)
        if self.m < membership.d:
            raise ConfigError(f"{self.m} operators a row are too few: every row is in {membership.d} subsets, choose at least that many")
        self.n, self.b, self.p, self.seed = len(encoded), settings.rows_per_step, settings.sketch, seed
        self.membership = membership
        self.M = membership.matrix()
        self.steps_per_epoch = -(-self.n // self.b)
        self.steps = settings.epochs * self.steps_per_epoch
        keys = [_content(row, subsets) for row, subsets in zip(encoded, membership.subsets, strict=True)]
        self.order = np.array(sorted(range(self.n), key=keys.__getitem__), dtype=np.int64)  # one that the rows' places do not change
        self.contents = _digest(*(keys[i] for i in self.order))

    def rows(self, step: int) -> NDArray[np.int64]:
        """The rows (b,) of a step; every epoch meets each row once."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return self.order[self._rng("rows", epoch).permutation(self.n)[place * self.b : (place + 1) * self.b]]

    def operators(self, step: int) -> NDArray[np.int64]:
        """The m operators (b, m) of a step's rows: each row's own d, then others without repetition."""
        rng, d, K = self._rng("operators", step), self.membership.d, self.membership.K
        own = self.membership.subsets[self.rows(step)]
        others = np.stack([rng.choice(K - d, self.m - d, replace=False) for _ in own])
        for taken in np.sort(own, axis=1).T:  # number the subsets that do not hold the row from 0, then make room for those that do
            others += others >= taken[:, None]
        return np.hstack([own, others])

    def sketch(self, step: int) -> Array:
        """M~ = M R (K, p), R (n, p) Gaussian with variance 1/p: E[M~ M~^T] = M M^T. Drawn anew in every step."""
        R = np.empty((self.n, self.p))
        R[self.order] = self._rng("sketch", step).standard_normal((self.n, self.p)) / self.p**0.5
        sketch: Array = self.M @ R
        return sketch

    def _rng(self, use: str, number: int) -> np.random.Generator:
        return np.random.default_rng(int.from_bytes(bytes.fromhex(_digest(self.seed, use, number))))


class Adam:
    """Adam on the rows of `value` (N, ...): a row and its moments move only in the steps that touch it.

    Kingma and Ba, arXiv 1412.6980; each row counts its own steps. `unit` is the size of a value that counts as large: steps are `lr` of it.
    """

    def __init__(self, value: Tensor, unit: float) -> None:
        self.unit = unit
        self.value = value
        self.first = torch.zeros_like(value)
        self.second = torch.zeros_like(value)
        self.steps = torch.zeros(len(value), device=value.device)

    def update(self, rows: Tensor, gradient: Tensor, lr: float) -> None:
        """One step of the given distinct `rows` (k,) along `gradient` (k, ...), itself in units."""
        self.steps[rows] += 1
        first = torch.lerp(gradient, self.first[rows], BETAS[0])
        second = torch.lerp(gradient.pow(2), self.second[rows], BETAS[1])
        self.first[rows], self.second[rows] = first, second
        unbias = [-torch.expm1(self.steps[rows] * log(beta)).reshape(-1, *[1] * (gradient.ndim - 1)) for beta in BETAS]  # 1 - beta^steps
        self.value[rows] -= lr * self.unit * (first / unbias[0]) / ((second / unbias[1]).sqrt() + EPSILON)

    def tensors(self, name: str) -> dict[str, Tensor]:
        return {f"{name}.value": self.value, f"{name}.first": self.first, f"{name}.second": self.second, f"{name}.steps": self.steps}


def check_trainable(encoded: Sequence[Encoded]) -> None:
    """Raises ConfigError where there are preference rows: fidelity has no least value where an answer is to become less likely."""
    preferences = sum(row.against is not None for row in encoded)
    if preferences:
        raise ConfigError(
            f"stride.fit is sgd, but {preferences} of {len(encoded)} rows are preferences, which its losses cannot express: "
            "choose natural-gradient for them"
        )


def train_operators(
    model: FrozenModel,
    encoded: Sequence[Encoded],
    membership: Membership,
    basis: Basis,
    settings: TrainingSettings,
    seed: int = 0,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> tuple[Operators, LearningCurve]:
    """Train all K operators from a = 0 and the directions of `basis`; scale them to the wanted typical shift.

    With a `checkpoint` path, the state is written there every so many steps, a training that finds its own goes on from it, and the file is
    removed at the end. A file of another training is left out with a warning and then overwritten: a scheduled audit whose rows have
    changed since it was killed must go on without anyone's help. Holds 3 x K x r x D floats: a and its two moments. Raises ConfigError
    where there are preference rows.
    """
    if not encoded:
        raise ValueError("operators need at least one row")
    check_trainable(encoded)
    schedule = Schedule(encoded, membership, settings, seed)
    a = Adam(torch.zeros(membership.K, basis.r, model.width, device=model.device), 1.0)
    U = Adam(basis.directions.to(model.device, torch.float32, copy=True)[None].contiguous(), model.width**-0.5)
    curve = torch.zeros(schedule.steps, 4, dtype=torch.float64)
    state = {**a.tensors("a"), **U.tensors("U"), "curve": curve}
    fingerprint = "" if checkpoint is None else _fingerprint(model, schedule, basis, settings)
    start = 0 if checkpoint is None else _load(checkpoint, state, fingerprint)
    a.unit = _unit(model, [encoded[i] for i in schedule.order[: schedule.b]], basis, settings.token_budget)
    for step in progress(range(start, schedule.steps), "train", schedule.steps - start):
        curve[step] = _step(model, encoded, schedule, step, a, U, settings)
        if not bool(curve[step].isfinite().all()):
            raise OperationError(f"training failed at step {step + 1}: its loss is {float(curve[step, 0])}; lower the learning rate")
        if checkpoint is not None and (step + 1) % settings.checkpoint_every == 0:
            _save(checkpoint, state, fingerprint, step + 1)
    operators = _scaled(model, encoded, a.value, U.value[0], settings)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    total, *parts = curve.numpy().T
    return operators, LearningCurve(np.arange(1, schedule.steps + 1), total, *parts)


def _step(
    model: FrozenModel, encoded: Sequence[Encoded], schedule: Schedule, step: int, a: Adam, U: Adam, settings: TrainingSettings
) -> Tensor:
    """One update of the operators that the step's rows meet, and of U; returns total, fidelity, stability, linearity (4,)."""
    rows, ks = schedule.rows(step), schedule.operators(step)
    touched, slots = np.unique(ks, return_inverse=True)
    active, slot = torch.from_numpy(touched).to(model.device), torch.from_numpy(slots.reshape(ks.shape)).to(model.device)
    sketch = torch.from_numpy(schedule.sketch(step)[ks]).to(model.device, torch.float32)
    weights = torch.tensor([1.0, settings.stability, settings.linearity], device=model.device)
    leaves = [a.value[active].requires_grad_(), U.value[0].clone().requires_grad_()]
    gradients = [torch.zeros_like(leaf) for leaf in leaves]
    losses = torch.zeros(3, device=model.device)
    for batch in batches([encoded[i] for i in rows], settings.token_budget // schedule.m, model.device):
        here = batch.rows.to(model.device)
        with torch.enable_grad():
            part = _losses(model, batch, Basis(leaves[1]), leaves[0][slot[here]], sketch[here], schedule.membership.d, settings.gamma)
            part = part.sum(dim=0) / len(rows)
            for total, gradient in zip(gradients, torch.autograd.grad(weights @ part, leaves), strict=True):
                total += gradient
        losses += part.detach()
    for gradient, of in zip(gradients, (a, U), strict=True):
        gradient *= of.unit
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    shrink = settings.clip / norm.clamp_min(settings.clip)
    members = torch.from_numpy(np.isin(touched, ks[:, : schedule.membership.d])).to(model.device)
    moved = members | (a.steps[active] > 0)  # divergence is flat at a_k = 0: all that others' gradients hold there is rounding
    a.update(active[moved], gradients[0][moved] * shrink, settings.lr)
    U.update(torch.zeros(1, dtype=torch.long, device=model.device), gradients[1][None] * shrink, settings.lr)
    return torch.cat([(weights @ losses)[None], losses]).cpu().double()


def _losses(model: FrozenModel, batch: Batch, basis: Basis, a: Tensor, sketch: Tensor, d: int, gamma: float) -> Tensor:
    """Fidelity, stability and linearity (b, 3) of a batch's rows under their operators `a` (b, m, r, D), whose first d hold the row."""
    run = model.run(batch)
    losses = []
    for o, steered_o, targets, M in zip(run.o, steered(model, run, basis, a), run.targets, sketch, strict=True):
        logp, steered_logp = o.log_softmax(dim=-1), steered_o.log_softmax(dim=-1)
        y = log_likelihood(steered_logp, targets) - log_likelihood(logp, targets)
        losses.append(
            torch.stack([fidelity(steered_logp[:d], targets), stability(logp, steered_logp[d:]), linearity(y, M.to(y.dtype), gamma)])
        )
    return torch.stack(losses)


def _unit(model: FrozenModel, encoded: Sequence[Encoded], basis: Basis, token_budget: int) -> float:
    """The size of an operator's entries at which ||B(z)^T a|| is typically ||z||: rms(z) / ||B(z)||, by some rows."""
    A, power, tokens = _second_moment(model, encoded, basis, token_budget)
    return float((power / tokens / model.width) ** 0.5 / A.trace().sqrt())


def _second_moment(model: FrozenModel, encoded: Sequence[Encoded], basis: Basis, token_budget: int) -> tuple[Tensor, float, int]:
    """E[B(z) B(z)^T] (r, r), the sum of ||z_t||^2, and the number of tokens t."""
    A = torch.zeros(basis.r, basis.r, device=model.device)
    power, tokens = 0.0, 0
    for batch in batches(encoded, token_budget, model.device):
        z = model.states(batch)[batch.attention_mask.bool()]
        A += basis(z).T @ basis(z)
        power += float(z.pow(2).sum())
        tokens += len(z)
    return A / tokens, power, tokens


def _scaled(model: FrozenModel, encoded: Sequence[Encoded], a: Tensor, U: Tensor, settings: TrainingSettings) -> Operators:
    """Operators of the wanted typical shift over an orthonormal basis: U = Q T, (Q T)^T z = T^T (Q^T z), so T goes into a.

    eta is one number for all k, as in the closed form.
    """
    Q, T = torch.linalg.qr(U)
    a = torch.cat([torch.einsum("ij,kjd->kid", T, a[:, :-1]), a[:, -1:]], dim=1)
    A, power, tokens = _second_moment(model, encoded, Basis(Q), settings.token_budget)
    eta = typical_eta(a, A, power / tokens, settings.shift)
    return Operators(a * eta, Basis(Q), eta, settings.shift)


def _content(row: Encoded, subsets: NDArray[np.int64]) -> str:
    return _digest(np.asarray(row.input_ids, dtype=np.int64).tobytes(), np.asarray(row.answer, dtype=np.bool_).tobytes(), subsets.tobytes())


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _fingerprint(model: FrozenModel, schedule: Schedule, basis: Basis, settings: TrainingSettings) -> str:
    """What defines the training: weights, split, rows, memberships, seed, settings (but not how often to save, or how much at a time).

    The basis stands for itself by its size: rows and model determine its directions, up to rounding.
    """
    weights = hashlib.sha256()
    for name, value in sorted(model.model.state_dict().items()):
        weights.update(name.encode())
        weights.update(value.detach().contiguous().cpu().view(-1).view(torch.uint8).numpy())
    dials = asdict(replace(settings, checkpoint_every=0, token_budget=0))
    return _digest(weights.hexdigest(), model.layer, basis.r, schedule.membership.K, schedule.seed, schedule.contents, dials)


def _save(checkpoint: Path, state: dict[str, Tensor], fingerprint: str, step: int) -> None:
    part = checkpoint.with_name(f"{checkpoint.name}.part")
    try:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        save_file(state, part, metadata={"fingerprint": fingerprint, "step": str(step)})
        part.replace(checkpoint)
    except (OSError, SafetensorError) as error:
        raise OperationError(f"checkpoint {checkpoint} cannot be written: {error}") from error


def _load(checkpoint: Path, state: dict[str, Tensor], fingerprint: str) -> int:
    """Fill `state` from the checkpoint; returns the steps done, 0 where there is no checkpoint of this very training."""
    if not checkpoint.exists():
        return 0
    try:
        with safe_open(checkpoint, "pt") as file:
            found = file.metadata() or {}
            if found.get("fingerprint") != fingerprint:
                logger.warning("checkpoint %s is of another training (its rows, model or settings differ): starting anew", checkpoint)
                return 0
            saved = {name: file.get_tensor(name) for name in state}
    except (OSError, SafetensorError) as error:
        logger.warning("checkpoint %s cannot be read (%s): starting anew", checkpoint, error)
        return 0
    for name, value in state.items():
        value.copy_(saved[name])
    return int(found["step"])
