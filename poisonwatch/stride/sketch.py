"""What is kept of a row's gradient where the whole of it takes too much room: enough to find the
rows behind an answer that nobody thought of yet.

Influence is an inner product of whitened gradients:

    y_i(q) = <P G_q, G_i> / (||G_q|| spread_i) = <H_q, H_i> / (||G_q|| spread_i)
    H = L_A^-1 G L_S^-T (r, D) ,   A + damping = L_A L_A^T ,   S + damping = L_S L_S^T

Of H its c leading pairs of singular vectors are kept, H ~ sum_c u_c v_c^T (LoRIF; Li et al., arXiv
2601.21929), in 4 bits a number and one scale a pair. L comes from the factors' eigenvectors, so
that where a wide model's v_c would take too much room, the directions in which its gradients have
least are left out. As many bytes of random projections, or of the numbers in which gradients have
most, find fewer rows (`benchmarks/sketches.py`).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from poisonwatch.arrays import Array, Features
from poisonwatch.stride.operators import Preconditioner

# Pairs that are kept of a row whatever the width; narrow models have room for more.
USUAL_RANK = 2

# Codes are -7 to 7, two in a byte; the largest stands for so many standard deviations, which loses
# least of normal numbers (Max, 1960).
LARGEST_CODE = 7
CLIP = 2.9
OFFSET = 8

# Rows whose codes are widened to float32 at a time.
ROWS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class RowSketches:
    """Sketches of m rows: `codes` (m, k), two in a byte, and `scale` (m, c), what the products of
    each pair's codes count; over the rows' spread.
    """

    codes: UInt8[NDArray[np.uint8], "m k"]
    scale: Float32[Features, "m c"]

    @classmethod
    def allocate(cls, m: int, sketch: "Sketch") -> "RowSketches":
        """Room for m sketches."""
        codes = np.zeros((m, sketch.bytes_of_codes), dtype=np.uint8)
        return cls(codes, np.zeros((m, sketch.rank), dtype=np.float32))

    def __len__(self) -> int:
        return len(self.codes)

    def measure(self, probes: Float[Tensor, "Q r b"]) -> Float64[Array, "m Q"]:
        """What the rows do to queries, projected as `Sketch.project_queries` does, (m, Q), as far
        as sketches tell. Codes that are mapped from a file are read in passing.
        """
        Q, r, b = probes.shape
        c = self.scale.shape[1]
        effects = np.empty((len(self), Q))
        for start in range(0, len(self), ROWS_AT_ONCE):
            some = slice(start, start + ROWS_AT_ONCE)
            codes = torch.from_numpy(_unpack(self.codes[some], c * (r + b))).to(probes)
            u = codes[:, : c * r].reshape(-1, c, r)
            v = codes[:, c * r :].reshape(-1, c, b)
            across = (v.flatten(0, 1) @ probes.flatten(0, 1).T).view(-1, c, Q, r)
            pairs = torch.einsum("mcqr,mcr->mcq", across, u).cpu().double().numpy()
            effects[some] = (pairs * self.scale[some, :, None]).sum(axis=1)
        return effects


@dataclass(frozen=True, slots=True)
class Sketch:
    """The map from gradients to sketches: of H = `left`^T G `right`, from `left` (r, r) and `right`
    (D, b), the `rank` c leading pairs of singular vectors.
    """

    left: Tensor
    right: Tensor
    rank: int

    @property
    def bytes_of_codes(self) -> int:
        """Bytes a row, its scales aside."""
        return (self.rank * (len(self.left) + self.right.shape[1]) + 1) // 2

    def project(self, G: Float[Tensor, "m r D"]) -> Float[Tensor, "m r b"]:
        """H (m, r, b) of gradients (m, r, D)."""
        return self.left.mT @ G @ self.right

    def project_queries(self, G: Float[Tensor, "Q r D"]) -> Float[Tensor, "Q r b"]:
        """What a row's sketch is multiplied with: H of G (Q, r, D) over the queries' lengths. A
        query that nothing moves is 0.
        """
        lengths = G.flatten(1).norm(dim=1)
        return self.project(G) / torch.where(lengths > 0, lengths, 1.0)[:, None, None]

    def encode(self, G: Float[Tensor, "m r D"], spread: Float32[Features, " m"]) -> RowSketches:
        """The sketches of rows with gradients (m, r, D) and that `spread` (m,)."""
        H = self.project(G)
        # Rows of one size: squares of float32 leave its range. Of a row that is not finite nothing
        # is kept.
        largest = H.abs().amax(dim=(1, 2), keepdim=True)
        H = (H / torch.where(largest > 0, largest, 1.0)).nan_to_num(0.0)
        # The r x r matrix has the left singular vectors, and is small: eigenvalues ascend.
        u = torch.linalg.eigh(H @ H.mT).eigenvectors[:, :, -self.rank :].mT
        codes_u, scale_u = _quantise(u)
        codes_v, scale_v = _quantise(u @ H)
        codes = torch.cat([codes_u.flatten(1), codes_v.flatten(1)], dim=1).cpu().numpy()
        scale = (scale_u * scale_v).double() * largest[:, :, 0].nan_to_num(0.0, 0.0).double()
        over_spread = scale.cpu().numpy() / spread[:, None].astype(np.float64)
        return RowSketches(_pack(codes), over_spread.astype(np.float32))

    def restore(self, sketches: RowSketches, some: slice) -> Float[Tensor, "m r b"]:
        """What is kept of H (m, r, b) of `some` of the rows, over their spread."""
        c, r, b = self.rank, len(self.left), self.right.shape[1]
        codes = torch.from_numpy(_unpack(sketches.codes[some], c * (r + b)))
        scale = torch.from_numpy(sketches.scale[some])
        u = codes[:, : c * r].reshape(-1, c, r) * scale[:, :, None]
        return torch.einsum("mcr,mcb->mrb", u, codes[:, c * r :].reshape(-1, c, b))


def choose_sketch(preconditioner: Preconditioner, size: int) -> Sketch:
    """The sketch of about `size` bytes a row: as many pairs as there is room for, USUAL_RANK at
    least; where these take too much room, of the directions in which gradients have most.
    """
    left, right = preconditioner.find_whitening()
    r, D = len(left), len(right)
    numbers = 2 * size
    rank = min(r, max(1, numbers // (r + D), min(USUAL_RANK, numbers // (2 * r))))
    b = max(1, min(D, numbers // rank - r))
    return Sketch(left, right[:, :b].contiguous(), rank)


def _quantise(x: Float[Tensor, "m c k"]) -> tuple[Tensor, Tensor]:
    """Codes (m, c, k) and their scale (m, c)."""
    scale = x.pow(2).mean(dim=2).sqrt() * (CLIP / LARGEST_CODE)
    usable = torch.where(scale > 0, scale, 1.0)[:, :, None]
    return (x / usable).round().clamp(-LARGEST_CODE, LARGEST_CODE).to(torch.int8), scale


def _pack(codes: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Two codes a byte: (m, s) to (m, (s + 1) // 2)."""
    m, s = codes.shape
    shifted = np.full((m, s + s % 2), OFFSET, dtype=np.uint8)
    shifted[:, :s] = codes + OFFSET
    packed: NDArray[np.uint8] = shifted[:, ::2] | shifted[:, 1::2] << 4
    return packed


def _unpack(packed: NDArray[np.uint8], s: int) -> Float32[Features, "m s"]:
    """The codes (m, s) of bytes (m, (s + 1) // 2), as float32."""
    codes = np.empty((len(packed), 2 * packed.shape[1]), dtype=np.float32)
    codes[:, ::2] = packed & 15
    codes[:, 1::2] = packed >> 4
    codes -= OFFSET
    return codes[:, :s]
