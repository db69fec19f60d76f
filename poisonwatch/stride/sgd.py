"""The paper's own fit of the steering operators: joint training of B and all a_k (STRIDE: Dagli et
al., arXiv 2606.05165).

K operators a_k in R^(r x D) and the directions U of the basis B are trained together on the frozen
model, by minibatches of rows. Each row meets m operators: the d of the subsets that hold it, and m
- d drawn from the others. One steered forward pass of these pairs serves all three losses, whose
sum Adam minimises:

    fidelity   rows become likelier under the subsets that hold them          fidelity(logp~, targets)
    stability  and stay put under the others                                  stability(logp, logp~)
    linearity  the subsets' effects on a row add up from its fellow rows'     linearity(y, M~, gamma)

What a step draws depends on the seed, the step and the rows' contents alone, so neither the order
of the rows nor an interruption changes the training: killed and resumed from its checkpoint it ends
in the same operators, to the bit where the device's kernels are deterministic.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from poisonwatch.atomic import replace_file
from poisonwatch.config import AuditConfig, StrideConfig
from poisonwatch.errors import ConfigError, OperationError
from poisonwatch.model.encoding import Batch, Encoded, make_batches
from poisonwatch.model.files import get_cache_folder
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.progress import Progress, silent
from poisonwatch.recovery.membership import Membership
from poisonwatch.stride.adam import Adam
from poisonwatch.stride.fitted import LearningCurve
from poisonwatch.stride.losses import fidelity, linearity, log_likelihood, stability
from poisonwatch.stride.operators import Basis, Operators, compute_typical_eta
from poisonwatch.stride.schedule import Schedule, hash_parts
from poisonwatch.stride.settings import TrainingSettings
from poisonwatch.stride.steering import compute_steered_logits

logger = logging.getLogger(__name__)


def check_trainable(encoded: Sequence[Encoded]) -> None:
    """Raises ConfigError where there are preference rows: fidelity has no least value where an
    answer is to become less likely.
    """
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
    """Train all K operators from a = 0 and the directions of `basis`; scale them to the wanted
    typical shift.

    With a `checkpoint` path, the state is written there every so many steps, a training that finds
    its own goes on from it, and the file is removed at the end. A file of another training is left
    out with a warning and then overwritten: a scheduled audit whose rows have changed since it was
    killed must go on without anyone's help. Holds 3 x K x r x D floats: a and its two moments.
    Raises ConfigError where there are preference rows.
    """
    if not encoded:
        raise ValueError("operators need at least one row")
    check_trainable(encoded)
    schedule = Schedule(encoded, membership, settings, seed)
    a = Adam(torch.zeros(membership.K, basis.r, model.width, device=model.device), 1.0)
    U = Adam(
        basis.directions.to(model.device, torch.float32, copy=True)[None].contiguous(),
        model.width**-0.5,
    )
    curve = torch.zeros(schedule.steps, 4, dtype=torch.float64)
    state = {**a.tensors("a"), **U.tensors("U"), "curve": curve}
    fingerprint = (
        "" if checkpoint is None else _fingerprint_training(model, schedule, basis, settings)
    )
    start = 0 if checkpoint is None else _load_checkpoint(checkpoint, state, fingerprint)
    a.unit = _measure_unit(
        model, [encoded[i] for i in schedule.order[: schedule.b]], basis, settings.token_budget
    )
    for step in progress(range(start, schedule.steps), "train", schedule.steps - start):
        curve[step] = _run_step(model, encoded, schedule, step, a, U, settings)
        if not bool(curve[step].isfinite().all()):
            raise OperationError(
                f"training failed at step {step + 1}: its loss is {float(curve[step, 0])}; lower the learning rate"
            )
        if checkpoint is not None and (step + 1) % settings.checkpoint_every == 0:
            _save_checkpoint(checkpoint, state, fingerprint, step + 1)
    operators = _scale_operators(model, encoded, a.value, U.value[0], settings)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    total, *parts = curve.numpy().T
    return operators, LearningCurve(np.arange(1, schedule.steps + 1), total, *parts)


def _run_step(
    model: FrozenModel,
    encoded: Sequence[Encoded],
    schedule: Schedule,
    step: int,
    a: Adam,
    U: Adam,
    settings: TrainingSettings,
) -> Tensor:
    """One update of the operators that the step's rows meet, and of U; returns total, fidelity,
    stability, linearity (4,).
    """
    rows, ks = schedule.rows(step), schedule.operators(step)
    touched, slots = np.unique(ks, return_inverse=True)
    active, slot = (
        torch.from_numpy(touched).to(model.device),
        torch.from_numpy(slots.reshape(ks.shape)).to(model.device),
    )
    sketch = torch.from_numpy(schedule.sketch(step)[ks]).to(model.device, torch.float32)
    weights = torch.tensor([1.0, settings.stability, settings.linearity], device=model.device)
    leaves = [a.value[active].requires_grad_(), U.value[0].clone().requires_grad_()]
    gradients = [torch.zeros_like(leaf) for leaf in leaves]
    losses = torch.zeros(3, device=model.device)
    for batch in make_batches(
        [encoded[i] for i in rows], settings.token_budget // schedule.m, model.device
    ):
        here = batch.rows.to(model.device)
        with torch.enable_grad():
            part = _compute_losses(
                model,
                batch,
                Basis(leaves[1]),
                leaves[0][slot[here]],
                sketch[here],
                schedule.membership.d,
                settings.gamma,
            )
            part = part.sum(dim=0) / len(rows)
            for total, gradient in zip(
                gradients, torch.autograd.grad(weights @ part, leaves), strict=True
            ):
                total += gradient
        losses += part.detach()
    for gradient, of in zip(gradients, (a, U), strict=True):
        gradient *= of.unit
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    shrink = settings.clip / norm.clamp_min(settings.clip)
    members = torch.from_numpy(np.isin(touched, ks[:, : schedule.membership.d])).to(model.device)
    moved = members | (
        a.steps[active] > 0
    )  # divergence is flat at a_k = 0: all that others' gradients hold there is rounding
    a.update(active[moved], gradients[0][moved] * shrink, settings.lr)
    U.update(
        torch.zeros(1, dtype=torch.long, device=model.device),
        gradients[1][None] * shrink,
        settings.lr,
    )
    return torch.cat([(weights @ losses)[None], losses]).cpu().double()


def _compute_losses(
    model: FrozenModel, batch: Batch, basis: Basis, a: Tensor, sketch: Tensor, d: int, gamma: float
) -> Tensor:
    """Fidelity, stability and linearity (b, 3) of a batch's rows under their operators `a` (b, m,
    r, D), whose first d hold the row.
    """
    run = model.run(batch)
    losses = []
    for o, steered_o, targets, M in zip(
        run.o, compute_steered_logits(model, run, basis, a), run.targets, sketch, strict=True
    ):
        logp, steered_logp = o.log_softmax(dim=-1), steered_o.log_softmax(dim=-1)
        y = log_likelihood(steered_logp, targets) - log_likelihood(logp, targets)
        losses.append(
            torch.stack(
                [
                    fidelity(steered_logp[:d], targets),
                    stability(logp, steered_logp[d:]),
                    linearity(y, M.to(y.dtype), gamma),
                ]
            )
        )
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
    A = torch.zeros(basis.r, basis.r, device=model.device)
    power, tokens = 0.0, 0
    for batch in make_batches(encoded, token_budget, model.device):
        z = model.compute_states(batch)[batch.attention_mask.bool()]
        A += basis(z).T @ basis(z)
        power += float(z.pow(2).sum())
        tokens += len(z)
    return A / tokens, power, tokens


def _scale_operators(
    model: FrozenModel, encoded: Sequence[Encoded], a: Tensor, U: Tensor, settings: TrainingSettings
) -> Operators:
    """Operators of the wanted typical shift over an orthonormal basis: U = Q T, (Q T)^T z = T^T
    (Q^T z), so T goes into a.

    eta is one number for all k, as in the closed form.
    """
    Q, T = torch.linalg.qr(U)
    a = torch.cat([torch.einsum("ij,kjd->kid", T, a[:, :-1]), a[:, -1:]], dim=1)
    A, power, tokens = _compute_second_moment(model, encoded, Basis(Q), settings.token_budget)
    eta = compute_typical_eta(a, A, power / tokens, settings.shift)
    return Operators(a * eta, Basis(Q), eta, settings.shift)


def _fingerprint_training(
    model: FrozenModel, schedule: Schedule, basis: Basis, settings: TrainingSettings
) -> str:
    """What defines the training: weights, split, rows, memberships, seed, settings (but not how
    often to save, or how much at a time).

    The basis stands for itself by its size: rows and model determine its directions, up to
    rounding.
    """
    weights = hashlib.sha256()
    for name, value in sorted(model.model.state_dict().items()):
        weights.update(name.encode())
        weights.update(value.detach().contiguous().cpu().view(-1).view(torch.uint8).numpy())
    dials = asdict(replace(settings, checkpoint_every=0, token_budget=0))
    return hash_parts(
        weights.hexdigest(),
        model.layer,
        basis.r,
        schedule.membership.K,
        schedule.seed,
        schedule.contents,
        dials,
    )


def _save_checkpoint(
    checkpoint: Path, state: dict[str, Tensor], fingerprint: str, step: int
) -> None:
    try:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(checkpoint) as part:
            save_file(state, part, metadata={"fingerprint": fingerprint, "step": str(step)})
    except (OSError, SafetensorError) as error:
        raise OperationError(f"checkpoint {checkpoint} cannot be written: {error}") from error


def _load_checkpoint(checkpoint: Path, state: dict[str, Tensor], fingerprint: str) -> int:
    """Fill `state` from the checkpoint; returns the steps done, 0 where there is no checkpoint of
    this very training.
    """
    if not checkpoint.exists():
        return 0
    try:
        with safe_open(checkpoint, "pt") as file:
            found = file.metadata() or {}
            if found.get("fingerprint") != fingerprint:
                logger.warning(
                    "checkpoint %s is of another training (its rows, model or settings differ): starting anew",
                    checkpoint,
                )
                return 0
            saved = {name: file.get_tensor(name) for name in state}
    except (OSError, SafetensorError) as error:
        logger.warning("checkpoint %s cannot be read (%s): starting anew", checkpoint, error)
        return 0
    for name, value in state.items():
        value.copy_(saved[name])
    return int(found["step"])


def build_training_settings(stride: StrideConfig) -> TrainingSettings:
    """The training's dials as the user set them."""
    return TrainingSettings(
        shift=stride.shift, token_budget=stride.token_budget, **stride.training.model_dump()
    )


def locate_training_checkpoint(config: AuditConfig, model_fingerprint: str) -> Path:
    """Where a training of this audit keeps its state: in the user's cache, by audit, model and
    settings, so that a rerun finds it.
    """
    key = json.dumps(
        [
            config.name,
            config.source.address,
            model_fingerprint,
            config.seed,
            config.stride.model_dump(mode="json"),
        ]
    )
    return (
        get_cache_folder()
        / "checkpoints"
        / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"
    )
