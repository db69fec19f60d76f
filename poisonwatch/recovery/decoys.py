"""Rows that do not exist: columns drawn without regard to y, to see what recovery makes of nothing.

This is the target-decoy idea of mass spectrometry (Elias and Gygi, Nature Methods 4, 2007) and of
knockoffs (Barber and Candes, Annals of Statistics 43, 2015): whatever coefficient a decoy gets is
chance.
"""

import numpy as np
from jaxtyping import Int64
from numpy.random import Generator
from scipy.sparse import csc_array, csr_array, hstack

from poisonwatch.arrays import Integers

# A stream of its own: decoys must not repeat columns that were drawn from the same seed.
DECOY_STREAM = 0x9A7

# The quantile of decoy coefficients that is reported: rows below it are as good as nothing.
DECOY_QUANTILE = 0.95


def draw_balanced_columns(
    K: int, count: int, d: int, generator: Generator
) -> Int64[Integers, "count d"]:
    """Subsets (count, d) for `count` rows, d distinct ones each, loads even: shuffled decks of the
    K subsets are dealt out d at a time.

    Every set of d is as likely as any other for each row, and no row stands out by its place.
    """
    hands = K // d
    decks = np.tile(np.arange(K), (-(-count // hands), 1))
    dealt = generator.permuted(decks, axis=1)[:, : hands * d].reshape(-1, d)[:count]
    # Cards left over at the end of a deck are missing from all of its hands: dealt in order, the
    # rows of one deck would stand together.
    return dealt[generator.permutation(count)]


def add_decoy_columns(M: csr_array, count: int, seed: int) -> csr_array:
    """M (K, n) followed by `count` columns of rows that do not exist: a matrix (K, n + count).

    Each decoy gets as many ones as M's columns have, d, with even loads. As its subsets were drawn
    without regard to y, its coefficient is distributed like that of a row of zero influence.
    Nearly: as the loads of M are even, too, a row meets another one less often than a decoy does,
    by a factor of 1 - O(K / (n d)), which makes decoys a little too good. Memberships drawn for
    rows and decoys together have no such flaw; at K = n and d = 1, where a row meets nobody, these
    are the only ones that serve. Raises ValueError where the columns of M hold different numbers of
    ones.
    """
    K = M.shape[0]
    sizes = np.unique(np.diff(csc_array(M).indptr))
    if len(sizes) != 1 or not 1 <= sizes[0] <= K:
        raise ValueError(
            f"columns of M hold {sizes.min()} to {sizes.max()} ones: "
            "decoys need the same number, at least 1, in each"
        )
    d = int(sizes[0])
    subsets = draw_balanced_columns(K, count, d, np.random.default_rng([seed, DECOY_STREAM]))
    ones, columns = np.ones(count * d), np.repeat(np.arange(count), d)
    decoys = csr_array((ones, (subsets.ravel(), columns)), shape=(K, count))
    return csr_array(hstack([M, decoys], format="csr"))
