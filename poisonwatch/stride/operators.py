"""Natural-gradient fit of the steering operators: one backward pass over the rows, no training.

STRIDE (Dagli et al., arXiv 2606.05165) steers subset k's rows by z~_t = z_t + B(z_t)^T a_k, with
a_k in R^(r x D) fitted so that rows in A_k become likelier while all others stay put. Linearising
the first aim and taking the second to second order gives the minimiser in closed form. With G_i =
sum_t B(z_t) (x) dL_i/dz_t, and the Fisher's Kronecker factors A = E[B B^T] and S = E[g g^T],

    a_k = -eta (A + damping)^-1 ( sum_{i in A_k} c_i G_i ) (S + damping)^-1

A and S are sums over the tokens of a sample of the rows, known before the pass; the pass then sums
c_i G_i into the subsets. c_i is one over the spread of what row i does to ordinary conversations
(`background`), so that a coefficient says how unusual a push is for its row. eta is one number for
all k, or effects would stop adding up; it is set so that the typical shift ||z~ - z|| / ||z|| is
`shift`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from poisonwatch.model.encoding import Batch, Encoded, make_batches
from poisonwatch.model.faults import has_finite_rows
from poisonwatch.model.free_memory import return_main_memory
from poisonwatch.model.frozen import FrozenModel, StateGradients
from poisonwatch.model.halving import compute_batches
from poisonwatch.progress import Progress, silent
from poisonwatch.stride.operator_memory import NUMBERS_AT_ONCE

# Keeps the norm of a zero state away from zero.
NORM_EPSILON = 1e-6

# Rows whose states the basis is fitted to.
BASIS_ROWS = 256


@dataclass(frozen=True, slots=True)
class Basis:
    """B(z) = (U^T z / rms(z), 1) in R^r: `directions` U (D, r - 1), orthonormal; the trailing 1
    steers by a constant vector.
    """

    directions: Tensor

    @property
    def r(self) -> int:
        return int(self.directions.shape[1]) + 1

    def __call__(self, z: Float[Tensor, "*b D"]) -> Float[Tensor, "*b r"]:
        """B(z): states (..., D) to coordinates (..., r)."""
        return torch.cat([normalise_rms(z) @ self.directions, torch.ones_like(z[..., :1])], dim=-1)


def normalise_rms(z: Float[Tensor, "*b D"]) -> Float[Tensor, "*b D"]:
    """z / sqrt(mean(z^2)) over the last dimension."""
    return z * torch.rsqrt(z.pow(2).mean(dim=-1, keepdim=True) + NORM_EPSILON)


def fit_basis(
    model: FrozenModel,
    encoded: Sequence[Encoded],
    r: int,
    token_budget: int,
    progress: Progress = silent,
) -> Basis:
    """The r - 1 leading principal directions of the RMS-normalised states of `encoded`, plus the
    constant. Conversations whose states are not finite are left out.
    """
    return fit_bases(model, encoded, r, token_budget, progress)[0]


def fit_bases(
    model: FrozenModel,
    encoded: Sequence[Encoded],
    r: int,
    token_budget: int,
    progress: Progress = silent,
) -> tuple[Basis, ...]:
    """A basis at each of the model's splits, as `fit_basis` has it, from one pass."""
    if not encoded:
        raise ValueError("a basis needs at least one conversation")

    def compute_moments(batch: Batch) -> list[Tensor]:
        return [_compute_second_moment(z, batch) for z in model.compute_all_states(batch)]

    splits, width = 1 + len(model.further), model.width
    second_moments = torch.zeros(splits, width, width, device=model.device)
    by_parts = compute_batches(compute_moments)
    batches = make_batches(encoded, token_budget, model.device)
    for batch in progress(batches, "basis", len(encoded), lambda batch: len(batch.rows)):
        for _, moments in by_parts(batch):
            for total, moment in zip(second_moments, moments, strict=True):
                total += moment
    return_main_memory()
    return tuple(_find_leading_directions(total, r) for total in second_moments)


def _compute_second_moment(states: Float[Tensor, "b T D"], batch: Batch) -> Float[Tensor, "D D"]:
    """The sum of z z^T over the tokens of conversations whose states are finite."""
    finite = has_finite_rows(states, batch.rejected.to(states.device))
    mask = batch.attention_mask.bool() & finite[:, None]
    z = normalise_rms(states)[mask]
    return z.T @ z


def _find_leading_directions(second_moment: Float[Tensor, "D D"], r: int) -> Basis:
    # Eigenvalues ascend: the leading directions are the last ones.
    _, vectors = torch.linalg.eigh(second_moment)
    return Basis(vectors[:, len(vectors) - (r - 1) :].flip(1).contiguous())


def compute_row_gradients(basis: Basis, seen: StateGradients) -> Float[Tensor, "m r D"]:
    """G_i = sum_t B(z_t) (x) g_t, (m, r, D), over the real tokens of each row: of both
    conversations of a preference row.
    """
    G = torch.einsum("btr,btd->brd", basis(seen.z) * seen.mask[..., None], seen.g)
    # The rejected conversations of preference rows stand behind the batch's m rows.
    m = len(G) - len(seen.rejected)
    return G[:m].index_add(0, seen.rejected.to(G.device), G[m:])


def unit_norm(G: Float[Tensor, "m r D"]) -> Float[Tensor, "m r D"]:
    """c_i G_i with c_i = 1 / ||G_i||: without it a few long gradients decide everything."""
    # In float64: squares of float32 leave its range.
    lengths = torch.linalg.vector_norm(G, dim=(1, 2), keepdim=True, dtype=torch.float64)
    scaled: Tensor = G / lengths.clamp_min(torch.finfo(G.dtype).tiny).to(G.dtype)
    return scaled


@dataclass(slots=True)
class Moments:
    """Sums over the tokens of all batches seen.

    `A` (r, r) and `S` (D, D) sum B B^T and g g^T; `power` sums ||z_t||^2; `tokens` counts. All
    float32.
    """

    A: Tensor
    S: Tensor
    power: float = 0.0
    tokens: int = 0

    @classmethod
    def zeros(cls, r: int, D: int, device: torch.device | str = "cpu") -> "Moments":
        return cls(torch.zeros(r, r, device=device), torch.zeros(D, D, device=device))

    @classmethod
    def of_batch(cls, basis: Basis, seen: StateGradients) -> "Moments":
        """Of the tokens of one batch."""
        B = basis(seen.z)[seen.mask]
        g = seen.g[seen.mask]
        power = float(seen.z[seen.mask].pow(2).sum())
        return cls(B.T @ B, g.T @ g, power, len(B))

    def __iadd__(self, more: "Moments") -> "Moments":
        self.A += more.A
        self.S += more.S
        self.power += more.power
        self.tokens += more.tokens
        return self


class Preconditioner:
    """G -> (A + damping)^-1 G (S + damping)^-1 with the means A and S; `damping` is relative to the
    mean diagonal of each.
    """

    def __init__(self, moments: Moments, damping: float) -> None:
        self.moments = moments
        self.A = moments.A / moments.tokens
        # Factorised once: every row and every subset is preconditioned by them.
        self._A = _factorise_damped(self.A, damping)
        self._S = _factorise_damped(moments.S / moments.tokens, damping)
        self.mean_power = moments.power / moments.tokens

    def __call__(self, G: Float[Tensor, "*m r D"]) -> Float[Tensor, "*m r D"]:
        """Precondition G (..., r, D)."""
        return self.overwrite(G.clone(memory_format=torch.contiguous_format))

    def overwrite(self, G: Float[Tensor, "*m r D"]) -> Float[Tensor, "*m r D"]:
        """Precondition G (..., r, D) in place, and return it; G must be contiguous."""
        for part in split_evenly(G.view(-1, *G.shape[-2:])):
            m, r, D = part.shape
            # All rows are columns of one right-hand side: a batch of systems would copy the factor,
            # D x D numbers, for each.
            right = torch.cholesky_solve(part.reshape(m * r, D).T, self._S).T.view(m, r, D)
            both = torch.cholesky_solve(right.transpose(0, 1).reshape(r, m * D), self._A)
            part.copy_(both.view(r, m, D).transpose(0, 1))
        return G

    def find_whitening(self) -> tuple[Float[Tensor, "r r"], Float[Tensor, "D D"]]:
        """U_A e_A^-1/2 (r, r) and U_S e_S^-1/2 (D, D) of the damped factors' eigenvectors and
        eigenvalues, largest first: H = left^T G right is whitened, <H, H'> = <P G, G'>.
        """
        left, right = (_find_whitening(lower @ lower.mT) for lower in (self._A, self._S))
        return left, right

    def undo(self, preconditioned: Float[Tensor, "*m r D"]) -> Float[Tensor, "*m r D"]:
        """The G (..., r, D) that became `preconditioned`."""
        return self._A @ (self._A.mT @ preconditioned @ self._S) @ self._S.mT


def split_evenly(G: Float[Tensor, "m r D"]) -> tuple[Tensor, ...]:
    """G (m, r, D) in parts of at most NUMBERS_AT_ONCE numbers, or of one row."""
    return torch.split(G, max(1, NUMBERS_AT_ONCE // (G.shape[1] * G.shape[2])))


def _factorise_damped(factor: Tensor, damping: float) -> Tensor:
    """The lower Cholesky factor of (factor + damping * mean diagonal)."""
    # Relative to the mean diagonal, or damping would depend on the model's scale.
    ridge = damping * factor.diagonal().mean()
    identity = torch.eye(len(factor), device=factor.device)
    lower: Tensor = torch.linalg.cholesky(factor + ridge * identity)
    return lower


def _find_whitening(factor: Float[Tensor, "k k"]) -> Float[Tensor, "k k"]:
    """Eigenvectors over the roots of their eigenvalues, (k, k), of a positive definite factor."""
    values, vectors = torch.linalg.eigh(factor.double())
    whitening: Tensor = (vectors * values.rsqrt()).flip(1).to(factor.dtype)
    return whitening


@dataclass(frozen=True, slots=True)
class Operators:
    """K steering operators `a` (K, r, D) over `basis`, with the `eta` and the typical `shift` they
    were scaled to.
    """

    a: Tensor
    basis: Basis
    eta: float
    shift: float


def compute_typical_eta(
    a: Float[Tensor, "K r D"], A: Float[Tensor, "r r"], mean_power: float, shift: float
) -> float:
    """What scales a (K, r, D) to a typical relative shift: the root of shift^2 mean_t ||z||^2 /
    mean_{k,t} ||B_t^T a_k||^2.

    `A` (r, r) is E[B B^T], `mean_power` mean_t ||z_t||^2.
    """
    # tr(A sum_k a_k a_k^T): nothing of the size of a is made on the way.
    gram = torch.zeros_like(A, dtype=torch.float64)
    for part in split_evenly(a):
        rows = part.transpose(0, 1).reshape(part.shape[1], -1)
        gram += rows @ rows.T
    moved = (A.double() * gram).sum() / len(a)
    return shift * float((mean_power / moved) ** 0.5)


def solve_operators(
    sums: Float[Tensor, "K r D"], preconditioner: Preconditioner, basis: Basis, shift: float
) -> Operators:
    """a_k from the subsets' sums of c_i G_i (K, r, D), scaled to the wanted typical ||z~ - z|| /
    ||z||. The sums are overwritten: operators take their place.
    """
    # In place: sums are K x r x D floats, the most that a fit holds.
    a = preconditioner.overwrite(sums)
    eta = compute_typical_eta(a, preconditioner.A, preconditioner.mean_power, shift)
    return Operators(a.mul_(-eta), basis, eta, shift)


def add_to_subsets(
    sums: Float[Tensor, "K r D"], G: Float[Tensor, "b r D"], subsets: Int64[Tensor, "b d"]
) -> None:
    """Add each row's c_i G_i (b, r, D) to the sums (K, r, D) of the `subsets` (b, d) that hold
    it.
    """
    # One membership at a time: d copies of the batch's gradients would take d times their memory.
    for members in subsets.to(sums.device).unbind(dim=1):
        sums.index_add_(0, members, G)


def compute_gradients(
    model: FrozenModel,
    basis: Basis,
    encoded: Sequence[Encoded],
    token_budget: int,
    label: str,
    progress: Progress,
) -> Float[Tensor, "m r D"]:
    """G (m, r, D) of conversations, one backward pass each."""
    return compute_all_gradients(model, (basis,), encoded, token_budget, label, progress)[0]


def compute_all_gradients(
    model: FrozenModel,
    bases: Sequence[Basis],
    encoded: Sequence[Encoded],
    token_budget: int,
    label: str,
    progress: Progress,
    look: Callable[[Batch, StateGradients], None] | None = None,
) -> tuple[Float[Tensor, "m r D"], ...]:
    """G (m, r, D) of conversations at the model's first splits, one for each of the `bases`; one
    backward pass each, whatever the splits. What a pass gives is shown to `look`, too.
    """

    def differentiate(batch: Batch) -> list[Tensor]:
        seen = model.compute_state_gradients(batch)
        if look is not None:
            look(batch, seen)
        # There may be fewer bases than splits.
        return [
            compute_row_gradients(basis, at_split)
            for basis, at_split in zip(bases, seen.splits, strict=False)
        ]

    found = tuple(
        torch.zeros(len(encoded), basis.r, model.width, device=model.device) for basis in bases
    )
    by_parts = compute_batches(differentiate)
    batches = make_batches(encoded, token_budget, model.device)
    for batch in progress(batches, label, len(encoded), lambda batch: len(batch.rows)):
        for part, of_rows in by_parts(batch):
            for G, some in zip(found, of_rows, strict=True):
                G[part.rows.to(G.device)] = some
    return found
