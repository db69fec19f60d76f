import numpy as np
from numpy.random import Generator
from scipy.sparse import csc_array, csr_array, hstack

from poisonwatch.arrays import Array, Integers

# a stream of its own: phantoms must not repeat columns that were drawn from the same seed
DECOY_STREAM = 0x9A7


def draw_balanced_columns(K: int, count: int, d: int, generator: Generator) -> Integers:
    """Subsets (count, d) for `count` rows, d distinct ones each, loads even: shuffled decks of the
    K subsets are dealt out d at a time.

    Every set of d is as likely as any other for each row, and no row stands out by its place.
    """
    hands = K // d
    decks = np.tile(np.arange(K), (-(-count // hands), 1))
    dealt = generator.permuted(decks, axis=1)[:, : hands * d].reshape(-1, d)[:count]
    return dealt[generator.permutation(count)]


def add_decoy_columns(M: csr_array, count: int, seed: int) -> csr_array:
    """M (K, n) followed by `count` columns of rows that do not exist: a matrix (K, n + count).

    Each phantom gets as many ones as M's columns have, d, with even loads. As its subsets were
    drawn without regard to y, its coefficient is distributed like that of a row of zero influence.
    Nearly: as the loads of M are even, too, a row meets another one less often than a phantom does,
    by a factor of 1 - O(K / (n d)), which makes phantoms a little too good. Memberships drawn for
    rows and phantoms together have no such flaw; at K = n and d = 1, where a row meets nobody,
    these are the only ones that serve. Raises ValueError where the columns of M hold different
    numbers of ones.
    """
    K = M.shape[0]
    sizes = np.unique(np.diff(csc_array(M).indptr))
    if len(sizes) != 1 or not 1 <= sizes[0] <= K:
        raise ValueError(
            f"columns of M hold {sizes.min()} to {sizes.max()} ones: phantoms need the same number, at least 1, in each"
        )
    d = int(sizes[0])
    subsets = draw_balanced_columns(K, count, d, np.random.default_rng([seed, DECOY_STREAM]))
    phantoms = csr_array(
        (np.ones(count * d), (subsets.ravel(), np.repeat(np.arange(count), d))), shape=(K, count)
    )
    return csr_array(hstack([M, phantoms], format="csr"))


def target_decoy_q(w: Array, phantom: Array) -> Array:
    """q-values (n,) of coefficients w (n,) against those of phantom rows (p,), one-sided: is w_i
    more than recovery makes of nothing?

        q_i = min_{0 < t <= w_i} (1 + #{phantom >= t}) (n / p) / #{w >= t},   at most 1;   1 where
        w_i <= 0

    Phantoms estimate how many of the n rows pass t by chance (target-decoy search: Elias and Gygi,
    Nature Methods 4, 2007); the 1 makes the estimate honest (knockoff+: Barber and Candes, Annals
    of Statistics 43, 2015). No q is below n / (p * rows as good): take p >= n.
    """
    n, p = len(w), len(phantom)
    order = np.argsort(w, kind="stable")
    ascending = w[order]
    as_good = n - np.searchsorted(ascending, ascending, side="left")
    decoys = p - np.searchsorted(np.sort(phantom), ascending, side="left")
    estimate = np.where(ascending > 0, (1 + decoys) * (n / p) / as_good, 1.0)
    q = np.empty(n)
    q[order] = np.minimum(np.minimum.accumulate(estimate), 1.0)
    return q
