"""Natural-gradient fit of the steering operators: one pass over the rows, no training.

STRIDE (Dagli et al., arXiv 2606.05165) steers subset k's rows by z~_t = z_t + B(z_t)^T a_k, with a_k in R^(r x D) fitted so that rows
in A_k become likelier while all others stay put. Linearising the first aim and taking the second to second order gives the minimiser in
closed form. With G_i = sum_t B(z_t) (x) dL_i/dz_t, and the Fisher's Kronecker factors A = E[B B^T] and S = E[g g^T],

    a_k = -eta (A + damping)^-1 ( sum_{i in A_k} c_i G_i ) (S + damping)^-1 ,     c_i = 1 / ||G_i||

eta is one number for all k, or effects would stop adding up; it is set so that the typical shift ||z~ - z|| / ||z|| is `shift`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poisonwatch.chat import Encoded, batches
from poisonwatch.membership import Membership
from poisonwatch.model import FrozenModel, StateGradients
from poisonwatch.progress import Progress, silent

EPSILON = 1e-6  # keeps the norm of a zero state away from zero


@dataclass(frozen=True, slots=True)
class Basis:
    """B(z) = (U^T z / rms(z), 1) in R^r: `directions` U (D, r - 1), orthonormal; the trailing 1 steers by a constant vector."""

    directions: Tensor

    @property
    def r(self) -> int:
        return int(self.directions.shape[1]) + 1

    def __call__(self, z: Tensor) -> Tensor:
        """B(z): states (..., D) to coordinates (..., r)."""
        return torch.cat([rms_normalised(z) @ self.directions, torch.ones_like(z[..., :1])], dim=-1)


def rms_normalised(z: Tensor) -> Tensor:
    """z / sqrt(mean(z^2)) over the last dimension."""
    return z * torch.rsqrt(z.pow(2).mean(dim=-1, keepdim=True) + EPSILON)


def fit_basis(model: FrozenModel, encoded: Sequence[Encoded], r: int, token_budget: int, progress: Progress = silent) -> Basis:
    """The r - 1 leading principal directions of the RMS-normalised states of `encoded`, plus the constant."""
    second_moment: Tensor | None = None
    for batch in progress(batches(encoded, token_budget, model.device), "basis", len(encoded), lambda batch: len(batch.rows)):
        z = rms_normalised(model.states(batch))[batch.attention_mask.bool()]
        second_moment = z.T @ z if second_moment is None else second_moment + z.T @ z
    if second_moment is None:
        raise ValueError("a basis needs at least one conversation")
    _, vectors = torch.linalg.eigh(second_moment)  # ascending
    return Basis(vectors[:, len(vectors) - (r - 1) :].flip(1).contiguous())


def row_gradients(basis: Basis, seen: StateGradients) -> Tensor:
    """G_i = sum_t B(z_t) (x) g_t, (b, r, D), over the real tokens of each row."""
    return torch.einsum("btr,btd->brd", basis(seen.z) * seen.mask[..., None], seen.g)


def unit_norm(G: Tensor) -> Tensor:
    """c_i G_i with c_i = 1 / ||G_i||: without it a few long gradients decide everything."""
    norms: Tensor = G.flatten(1).norm(dim=1).clamp_min(torch.finfo(G.dtype).tiny)
    return G / norms[:, None, None]


@dataclass(slots=True)
class Moments:
    """The sums that the closed form needs; sums over rows, so they add up across shards.

    `A` (r, r) and `S` (D, D) sum B B^T and g g^T over tokens; `G` (K, r, D) sums c_i G_i over the rows of each subset; `power` sums
    ||z_t||^2; `tokens` counts. All float32.
    """

    A: Tensor
    S: Tensor
    G: Tensor
    power: float = 0.0
    tokens: int = 0

    @classmethod
    def zeros(cls, K: int, r: int, D: int, device: torch.device | str = "cpu") -> "Moments":
        return cls(torch.zeros(r, r, device=device), torch.zeros(D, D, device=device), torch.zeros(K, r, D, device=device))

    def add(self, basis: Basis, seen: StateGradients, subsets: Tensor) -> Tensor:
        """Take in one batch of rows, `subsets` (b, d) being their memberships; returns their c_i G_i (b, r, D)."""
        B = basis(seen.z)[seen.mask]
        g = seen.g[seen.mask]
        self.A += B.T @ B
        self.S += g.T @ g
        self.power += float(seen.z[seen.mask].pow(2).sum())
        self.tokens += len(B)
        G = unit_norm(row_gradients(basis, seen))
        for members in subsets.unbind(dim=1):
            self.G.index_add_(0, members, G)
        return G


@dataclass(frozen=True, slots=True)
class Operators:
    """K steering operators `a` (K, r, D) over `basis`, with the `eta` and the typical `shift` they were scaled to."""

    a: Tensor
    basis: Basis
    eta: float
    shift: float


def solve(moments: Moments, basis: Basis, damping: float, shift: float) -> Operators:
    """a_k from the sums; `damping` is relative to the mean diagonal of A and of S, `shift` the wanted typical ||z~ - z|| / ||z||."""
    A = moments.A / moments.tokens
    S = moments.S / moments.tokens
    a = -_damped_solve(S, _damped_solve(A, moments.G, damping).mT, damping).mT
    moved = torch.einsum("krd,rs,ksd->k", a, A, a).mean()  # mean over subsets and tokens of ||B^T a_k||^2 at eta = 1
    eta = shift * float((moments.power / moments.tokens / moved) ** 0.5)
    return Operators(a * eta, basis, eta, shift)


def _damped_solve(factor: Tensor, right: Tensor, damping: float) -> Tensor:
    """(factor + damping * mean diagonal)^-1 right, for a symmetric positive semi-definite factor."""
    ridge = damping * factor.diagonal().mean()
    lower = torch.linalg.cholesky(factor + ridge * torch.eye(len(factor), device=factor.device))
    return torch.cholesky_solve(right, lower)


def fit_operators(
    model: FrozenModel,
    encoded: Sequence[Encoded],
    membership: Membership,
    basis: Basis,
    *,
    keep: NDArray[np.int64] | None = None,
    damping: float = 0.1,
    shift: float = 0.005,
    token_budget: int = 2048,
    progress: Progress = silent,
) -> tuple[Operators, Tensor]:
    """Fit all K operators in one pass over the rows; also returns c_i G_i (k, r, D) of the `keep` (k,) rows.

    Holds one batch of states at a time, and K x r x D floats of sums, whatever the number of rows.
    """
    subsets = torch.from_numpy(membership.subsets)
    slot = {int(row): place for place, row in enumerate([] if keep is None else keep)}
    moments: Moments | None = None
    for batch in progress(batches(encoded, token_budget, model.device), "fit", len(encoded), lambda batch: len(batch.rows)):
        seen = model.state_gradients(batch)
        if moments is None:
            moments = Moments.zeros(membership.K, basis.r, seen.z.shape[-1], model.device)
            kept = seen.z.new_zeros(len(slot), basis.r, seen.z.shape[-1])
        G = moments.add(basis, seen, subsets[batch.rows].to(model.device))
        for b, row in enumerate(batch.rows.tolist()):
            if row in slot:
                kept[slot[row]] = G[b]
    if moments is None:
        raise ValueError("operators need at least one row")
    return solve(moments, basis, damping, shift), kept
