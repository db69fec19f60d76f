from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from poisonwatch.arrays import Array, RowIndices
from poisonwatch.config import StrideConfig
from poisonwatch.progress import Progress, silent
from poisonwatch.recovery.decoys import add_decoy_columns
from poisonwatch.recovery.estimate import Estimate
from poisonwatch.recovery.gaussian_process import Kernel, gp_regress
from poisonwatch.recovery.lasso import lasso, universal_fraction
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.fitted import Fitted
from poisonwatch.stride.influence import Influence, Query
from poisonwatch.stride.measurement import measure_first_order
from poisonwatch.stride.operators import compute_gradients, unit_norm
from poisonwatch.stride.queries import PreparedQueries, prepare_queries
from poisonwatch.stride.scoring import pool_scores

DECOY_QUANTILE = 0.95


def estimate_coefficients(fitted: Fitted, y: Array, stride: StrideConfig) -> Estimate:
    """Recover w (n, Q), beyond what rows do to ordinary conversations, from y (K, Q)."""
    beyond = y - (fitted.M @ fitted.centre)[:, None]
    if stride.recovery == "lasso":
        return _estimate_sparse(fitted, beyond, stride.lasso)
    kriged = gp_regress(fitted.M, beyond, Kernel(fitted.features))
    return Estimate(kriged.w, float(kriged.residual.max()))


def _estimate_sparse(fitted: Fitted, y: Array, fraction: float | Array | None) -> Estimate:
    """By the Lasso on the shared subsets; rows that were measured alone since are known, and taken
    out of these first.
    """
    K, n = fitted.settings.K, len(fitted.ids)
    shared, known = csr_array(fitted.M[:K]), csr_array(fitted.M[K:]).indices
    w = np.zeros((n, y.shape[1]))
    w[known] = y[K:]
    unknown = np.setdiff1d(np.arange(n), known)
    if not len(unknown):
        return Estimate(w, 0.0)
    columns, left = csr_array(shared[:, unknown]), y[:K] - shared @ w
    if fraction is None:
        fraction = universal_fraction(columns, left)
    crowded = n > K  # with a subset a row there is nothing to confuse
    recovery = lasso(
        add_decoy_columns(columns, max(1, n // 4), seed=0) if crowded else columns, left, fraction
    )
    w[unknown], phantoms = np.split(recovery.w, [len(unknown)])
    artefacts = np.quantile(phantoms, DECOY_QUANTILE, axis=0) if crowded else None
    return Estimate(w, float(recovery.gap.max()), artefacts)


RowGradients = Callable[[RowIndices], Tensor]  # rows (m,) to their gradients (m, r, D)


def recover_influence(
    fitted: Fitted, sentinels: Sequence[Sentinel], stride: StrideConfig, progress: Progress = silent
) -> tuple[Influence, Fitted]:
    """Measure the sentinels on every operator and recover the rows' coefficients; also returns the
    operators with those of the suspects.
    """
    queries, questions = prepare_queries(fitted, sentinels, stride, progress)

    def gradients_of(rows: RowIndices) -> Tensor:
        encoded = [fitted.encoded[i] for i in rows]
        return compute_gradients(
            fitted.model, fitted.operators.basis, encoded, stride.token_budget, "suspects", progress
        )

    return recover_in_rounds(fitted, queries, questions, gradients_of, stride, progress)


def recover_in_rounds(
    fitted: Fitted,
    queries: tuple[Query, ...],
    asked: PreparedQueries,
    gradients_of: RowGradients,
    stride: StrideConfig,
    progress: Progress = silent,
) -> tuple[Influence, Fitted]:
    """Recover the rows' coefficients for queries, in adaptive rounds; then measure the suspects on
    each other.
    """
    y = asked.measure(fitted, fitted.operators, stride, progress)
    found = estimate_coefficients(fitted, y, stride)
    alone, certificates, seen = found.w, [found.certificate], dict[int, Tensor]()
    suspects = _select_suspects(queries, found.w, fitted.settings.shortlist)
    for _ in range(stride.rounds if fitted.preconditioner else 0):
        room = max(0, fitted.settings.K_most - len(fitted.operators.a))
        new = suspects[~fitted.measured_alone[suspects]][:room]
        if not len(new):
            break
        G, before = gradients_of(new), len(fitted.operators.a)
        seen |= dict(zip(new.tolist(), G, strict=True))
        fitted = fitted.with_row_gradients(new, G)
        y = np.concatenate(
            [
                y,
                asked.measure(
                    fitted,
                    replace(fitted.operators, a=fitted.operators.a[before:]),
                    stride,
                    progress,
                ),
            ]
        )
        found = estimate_coefficients(fitted, y, stride)
        certificates.append(found.certificate)
        suspects = _select_suspects(queries, found.w, fitted.settings.shortlist)
    unseen = np.array([i for i in suspects.tolist() if i not in seen], dtype=np.int64)
    if len(unseen):
        seen |= dict(zip(unseen.tolist(), gradients_of(unseen), strict=True))
    G = unit_norm(torch.stack([seen[i] for i in suspects.tolist()]))
    kin = estimate_coefficients(
        fitted, measure_first_order(fitted.operators, G) / fitted.operators.eta, stride
    )
    return Influence(
        queries,
        found.w,
        alone,
        suspects,
        kin.w[suspects],
        fitted.features,
        certificate=max(*certificates, kin.certificate),
        measured_alone=int(fitted.measured_alone.sum()),
        decoy_quantile=found.decoy_quantile,
    ), fitted


def _select_suspects(queries: Sequence[Query], w: Array, count: int) -> RowIndices:
    """The rows (count,) that score highest on any panel, highest first."""
    return np.argsort(-pool_scores(queries, w).pooled.max(axis=1), kind="stable")[:count].astype(
        np.int64
    )
