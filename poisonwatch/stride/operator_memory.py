"""What a fit that keeps operators takes with its recovery, at its worst moment: the memory that
`stride.memory_gb` promises.

Counted in gradients of r x D floats, as many as an operator has:

    geometry   2 known + 4 background    gathered, joined, made into what the background is told by
    pass       known + background + K    the sums of the subsets
    solve      the same                  operators take the place of their sums
    rounds     (R + 1) K, at most 3 K    operators of the caller, of the last round and of this one
    recovery   2 K, beside V             or V's sparse factors

and, in R rounds of s suspects, the gradients of these. Where every row has a subset to itself there
are no rounds: K once. A training (`fit: sgd`) holds 4 K: the operators, Adam's two averages, and
what they become while they are scaled. A few D x D matrices and the part that
is worked on (`operators.NUMBERS_AT_ONCE`) stand beside these. The model, a batch of its states and
the gradients of the sentinels come on top: they do not grow with the rows.
"""

from dataclasses import dataclass

from poisonwatch.config import StrideConfig
from poisonwatch.recovery.gaussian_process import COLUMN_ENTRIES, DENSE_UP_TO, TILE_ENTRIES

# Numbers of gradients and operators that are worked on at a time (16 MB): each takes up to four
# times as much on its way.
NUMBERS_AT_ONCE = 1 << 22

# D x D matrices: while the Fisher factor is factorised, and from then on.
MATRICES_AT_FIRST, MATRICES_KEPT = 6, 3

# Operators that a training holds for each that it trains, and for each that one step meets: copies,
# and their gradients.
TRAINING_COPIES, STEP_COPIES = 4, 6

# Arrays of n numbers for each query that is recovered at a time: solutions, products, residuals.
RECOVERY_ARRAYS = 6


@dataclass(frozen=True, slots=True)
class OperatorMemory:
    """What is known of a fit before its subsets are counted: `n` rows, rank `r` and width `width`
    (D), `shortlist` suspects a round (s), how many rows' gradients are `known` before the pass, and
    how many operators `step` of a training meets at once.
    """

    stride: StrideConfig
    n: int
    r: int
    width: int
    shortlist: int
    known: int
    step: int

    def count_bytes(self, K: int, single: int = 0) -> int:
        """Bytes at the worst moment, with K subsets and `single` rows measured alone after them."""
        fitting = self._count_training(K) if self.stride.fit == "sgd" else self._count_closed(K)
        return max(fitting, self._count_rounds(K, single))

    @property
    def _gradient(self) -> int:
        return 4 * self.r * self.width

    @property
    def _matrix(self) -> int:
        return 4 * self.width**2

    def _count_part(self, m: int) -> int:
        """Bytes that m gradients take while they are preconditioned, part by part."""
        return 4 * min(4 * NUMBERS_AT_ONCE, m * self._gradient)

    def _count_closed(self, K: int) -> int:
        background = min(self.n, self.stride.background)
        gathered = 2 * self.known + 4 * background
        at_first = (
            gathered * self._gradient
            + MATRICES_AT_FIRST * self._matrix
            + self._count_part(background)
        )
        solving = self.known + background + K
        later = solving * self._gradient + MATRICES_KEPT * self._matrix + self._count_part(K)
        return max(at_first, later)

    def _count_training(self, K: int) -> int:
        return (TRAINING_COPIES * K + STEP_COPIES * self.step) * self._gradient

    def _count_rounds(self, K: int, single: int) -> int:
        held = MATRICES_KEPT * self._matrix
        copies = 1 + min(self.stride.rounds, 2) * (single > 0)
        adding = copies * K + 3 * single + self.shortlist
        recovering = min(copies, 2) * K + 2 * single + 5 * self.shortlist
        found = self._count_recovery(K, single)
        return held + max(adding * self._gradient, recovering * self._gradient + found)

    def _count_recovery(self, K: int, single: int) -> int:
        """Bytes of recovering coefficients from all subsets."""
        subsets = K + single
        queries = 1 + self.shortlist
        together = min(queries, 1 + COLUMN_ENTRIES // self.n)
        arrays = 8 * self.n * (queries + RECOVERY_ARRAYS * together)
        if self.stride.recovery == "lasso":
            return arrays
        # V in double precision, and what a strip of the kernel becomes on its way into it.
        strip = min(self.n**2, TILE_ENTRIES)
        strips = strip * 12 + strip * 24 * subsets // self.n
        if subsets <= DENSE_UP_TO:
            return arrays + strips + 8 * subsets**2
        # Sparse factors that may fill up, with their indices; where no subsets share rows they are
        # a diagonal.
        factors = 12 * subsets**2
        if self.n == K and not single:
            factors = 0
        return arrays + strips + factors
