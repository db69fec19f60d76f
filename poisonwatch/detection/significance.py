"""From scores to p-values, and from p-values to q-values that count rows."""

import numpy as np
from scipy.stats import genpareto, kstest

from poisonwatch.arrays import Array
from poisonwatch.detection.detection import Null
from poisonwatch.detection.trusted import LEAST_EXCEEDANCES, LEAST_TRUSTED, TAILS

# p-value of the Kolmogorov-Smirnov distance between exceedances and their fit; below it the fit is
# not used
LEAST_FIT = 0.01
# quantiles between which the empirical null's tail is fitted: above the centre, below a few percent
# of poison
BULK = (0.80, 0.95)


def compute_p_values(scores: Array, reference: Array | None = None) -> tuple[Array, Null]:
    """One-sided p-values of `scores` (n,): against trusted `reference` scores, where there are
    enough, else against the bulk of all.

    Ranks among m trusted rows end at 1 / (m + 1), which no correction for many rows survives; it
    takes LEAST_TRUSTED of them to fit a tail. Fewer than that join the bulk.
    """
    if reference is not None and len(reference) >= LEAST_TRUSTED:
        return compute_conformal_p(scores, reference)
    if reference is None or not len(reference):
        return compute_bulk_p(scores)
    p, null = compute_bulk_p(np.concatenate([scores, reference]))
    rule = f"{null.rule}; {len(reference)} trusted rows, too few to stand alone, are among them"
    return p[: len(scores)], Null(rule, null.n)


def compute_conformal_p(scores: Array, reference: Array) -> tuple[Array, Null]:
    """Rank among the reference, (1 + #{ref >= s}) / (n_ref + 1), with a generalised-Pareto tail
    above its 90 % (or 95 %) quantile.

    The tail's shape and scale come from probability-weighted moments (Hosking and Wallis,
    Technometrics 29, 1987), the shape held within [0, 1/2]: never lighter than exponential. With
    fewer than 10 exceedances, or where they do not follow the fit, the ranks stand alone.
    """
    ordered = np.sort(reference)
    n = len(ordered)
    rule = f"rank among {n} trusted rows"
    p = _compute_rank_p(scores, ordered)
    for tail in TAILS:
        threshold = float(np.quantile(ordered, 1 - tail))
        excess = ordered[ordered > threshold] - threshold
        # Many equal scores leave fewer above the quantile than its share of them.
        if len(excess) < LEAST_EXCEEDANCES:
            return p, Null(rule, n)
        shape, scale = fit_pareto_tail(excess)
        fitted = genpareto(shape, scale=scale)
        if kstest(excess, fitted.cdf).pvalue >= LEAST_FIT:
            above = scores > threshold
            p[above] = len(excess) / n * fitted.sf(scores[above] - threshold)
            return p, Null(f"{rule}, generalised-Pareto tail (shape {shape:.2f})", n)
    return p, Null(f"{rule}, whose largest scores follow no generalised Pareto tail", n)


def compute_bulk_p(scores: Array) -> tuple[Array, Null]:
    """Rank in the batch, with an exponential tail through its 80 % and 95 % quantiles: poison is
    rare, so the bulk is clean.

    With fewer than 20 rows the 95 % quantile leans on the largest score itself: the ranks stand
    alone.
    """
    ordered = np.sort(scores)
    n = len(ordered)
    p = _compute_rank_p(scores, ordered)
    if n * (1 - BULK[1]) < 1:
        return p, Null(f"rank among the {n} rows of the batch itself", n)
    low, high = float(np.quantile(ordered, BULK[0])), float(np.quantile(ordered, BULK[1]))
    scale = (high - low) / np.log((1 - BULK[0]) / (1 - BULK[1]))
    # Where the two quantiles are one value, there is no tail to fit.
    if scale > 0:
        above = scores > low
        p[above] = (1 - BULK[0]) * np.exp(-(scores[above] - low) / scale)
    return p, Null(f"empirical null on the bulk of {n} rows, exponential tail", n)


def _compute_rank_p(scores: Array, ordered: Array) -> Array:
    """(1 + #{ref >= s}) / (n_ref + 1) for `scores` (n,) among rising reference scores (n_ref,)."""
    n = len(ordered)
    p: Array = (1 + n - np.searchsorted(ordered, scores, side="left")) / (n + 1)
    return p


def fit_pareto_tail(excess: Array) -> tuple[float, float]:
    """(shape, scale) of a generalised-Pareto distribution by probability-weighted moments, shape
    held within [0, 1/2].
    """
    x = np.sort(excess)
    a0 = float(x.mean())
    # a1 estimates E[X (1 - F(X))].
    a1 = float((x * (len(x) - 1 - np.arange(len(x))) / (len(x) - 1)).mean())
    # At a0 = 2 a1 the shape's formula has its pole; from there on the tail is the heaviest allowed.
    shape = 0.5
    if a0 > 2 * a1:
        shape = min(max(2 - a0 / (a0 - 2 * a1), 0.0), 0.5)
    # This scale keeps the mean excess, though the shape was held within its bounds.
    return shape, a0 * (1 - shape)


def compute_row_q_values(p: Array) -> Array:
    """q-values (n, P) of panel-wise p-values (n, P) such that the false-discovery rate counts
    *rows*.

    A row's p-value is its smallest over the P panels, times P (Bonferroni); Benjamini-Hochberg runs
    over the n rows. A row that moves two panels is one discovery: counted twice, it would loosen
    the threshold for all others. An entry's q is the smallest rate at which it alone would flag its
    row.
    """
    n, P = p.shape
    rows = np.sort(np.minimum(P * p.min(axis=1), 1.0))
    raw = rows * n / np.arange(1, n + 1)
    adjusted = np.append(np.minimum.accumulate(raw[::-1])[::-1], np.inf)
    q = np.empty((n, P))
    for j in range(P):
        own = np.minimum(P * p[:, j], 1.0)
        # Rows at least as extreme: never 0, since the entry's own row is one.
        below = np.searchsorted(rows, own, side="right")
        q[:, j] = np.minimum(np.minimum(own * n / below, adjusted[below]), 1.0)
    return q
