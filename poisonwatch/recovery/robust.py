"""Robust standard deviations: how far values stand from the median, whatever a few of them are."""

import numpy as np
from jaxtyping import Float

from poisonwatch.arrays import Array

# Of a normal distribution.
MAD_TO_SIGMA = 1.4826


def compute_robust_z(x: Float[Array, "n Q"]) -> Float[Array, "n Q"]:
    """Columns minus their median, in units of 1.4826 median absolute deviations; 0 where a column
    is constant.

    Where more than half of a column is one value (a sparse recovery leaves most rows at zero) the
    standard deviation takes their place.
    """
    return np.column_stack([standardise(column) for column in x.T])


def standardise(column: Float[Array, " n"]) -> Float[Array, " n"]:
    """A column (n,) as `compute_robust_z` has it, anew and in float64."""
    centred = np.array(column, dtype=np.float64)
    centred -= np.median(centred)
    scale = MAD_TO_SIGMA * np.median(np.abs(centred), overwrite_input=True)
    # A sparse recovery leaves most rows at 0, and so their median deviation.
    if not scale > 0:
        scale = centred.std()
    centred /= scale if scale > 0 else np.inf
    return centred
