"""STRIDE from rows to coefficients: fit operators, measure sentinels, recover what each row contributes.

    y_k(q) = Loss(o_q) - Loss(o~_{q,k}) ,    w(q) from y(q) = M w(q) + noise

Positive means: training on this row makes the answer likelier.

Recovery goes on in adaptive rounds. The rows that score highest are measured alone, as subsets of one row, which is exact, and all is
recovered anew from all subsets together; rows that come up now are measured next, until no new ones do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from poisonwatch.checkpoints.store import Work
from poisonwatch.config import StrideConfig
from poisonwatch.examples import Example
from poisonwatch.model.encoding import ChatEncoder, Encoded
from poisonwatch.model.frozen import FrozenModel, decoder_blocks
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.progress import Progress, silent
from poisonwatch.recovery.gaussian_process import krige
from poisonwatch.recovery.lasso import lasso, phantom_columns, universal_fraction
from poisonwatch.recovery.membership import Membership, draw_alike, draw_membership
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.fitted import Fitted, Settings, resolve_settings
from poisonwatch.stride.influence import Influence, Query, queries_of
from poisonwatch.stride.measurement import first_order, forward
from poisonwatch.stride.natural_gradient import Geometry, Statistics, drawn_order, gradients, measure_statistics, no_views, sum_subsets
from poisonwatch.stride.operators import Basis, Operators, fit_basis, solve, unit_norm
from poisonwatch.stride.reference_cache import keep_statistics, key_of, load_statistics
from poisonwatch.stride.scoring import pool
from poisonwatch.stride.sgd import LearningCurve, TrainingSettings, check_trainable, train_operators
from poisonwatch.stride.similarity import Features, Kernel, features_of, survey

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

BASIS_ROWS = 256  # whose states the basis is fitted to
PHANTOM_QUANTILE = 0.95


def fit(
    pretrained: Pretrained,
    examples: Sequence[Example],
    stride: StrideConfig,
    seed: int = 0,
    progress: Progress = silent,
    checkpoint: Path | None = None,
    ordinary: Rows | None = None,
    trusted: Rows | None = None,
    work: Work | None = None,
) -> Fitted:
    """Fit the subsets' operators to the rows. Results do not depend on the order of the rows.

    The yardstick's conversations are drawn from the rows `ordinary`, by default from all; basis and Fisher factors come from these, or from
    the rows `trusted` where they are given, whose statistics are then kept for the next fit (`statistics`). A training (`fit: sgd`) keeps
    its state in the file `checkpoint` and goes on from it. What an interrupted fit left in `work` is not passed over again.
    """
    work = work or Work()
    width = int(pretrained.model.config.get_text_config().hidden_size)
    settings = resolve_settings(stride, len(decoder_blocks(pretrained.model)), width, len(examples))
    model = FrozenModel(pretrained.model, settings.layer)
    encoder = ChatEncoder(pretrained.tokenizer, stride.max_tokens)
    ids = tuple(example.id for example in examples)
    encoded = tuple(encoder.encode(example.messages, example.rejected) for example in examples)
    order, n = drawn_order(ids, seed), len(ids)
    sample = (order if ordinary is None else order[np.isin(order, ordinary)])[: stride.background]
    if stride.fit == "sgd":
        check_trainable(encoded)
        first = [encoded[i] for i in sample[:BASIS_ROWS]]
        basis = work.kept("basis", Basis, lambda: fit_basis(model, first, settings.r, stride.token_budget, progress))
        features = features_of(survey(model, encoded, basis, stride.token_budget, progress, work))
        membership, dials = draw(ids, features, settings, stride, seed), training_settings(stride)
        operators, curve = work.kept(
            "training",
            tuple[Operators, LearningCurve],
            lambda: train_operators(model, encoded, membership, basis, dials, seed, checkpoint, progress),
        )
        M, unmeasured = membership.matrix(), (np.zeros(n), np.ones(n))
        return Fitted(settings, model, encoder, ids, operators, M, features, *unmeasured, encoded, None, curve)
    known = sample if trusted is None else order[np.isin(order, trusted)]
    key = None if trusted is None else key_of(pretrained, stride, settings.layer, [ids[i] for i in known])
    statistics = _statistics(model, [encoded[i] for i in known], settings.r, stride, key, progress, work)
    basis, rest = statistics.basis, np.setdiff1d(sample, known)
    views = no_views(n, basis)
    views[known] = statistics.views
    beside = measure_statistics(model, [encoded[i] for i in rest], basis, stride.token_budget, "sample", progress, work)
    views[rest] = beside.views
    known, G = np.concatenate([known, rest]), torch.cat([statistics.G, beside.G])
    geometry = Geometry.of(basis, statistics.moments, stride.damping, known, G, sample)
    if n != settings.K:  # memberships of like rows need to know all states first; else the pass over the rows sees them anyway
        left = np.setdiff1d(np.arange(n), known)
        views[left] = survey(model, [encoded[i] for i in left], basis, stride.token_budget, progress, work)
    membership = draw(ids, features_of(views), settings, stride, seed)
    on_the_way = views if n == settings.K else None
    sums = sum_subsets(model, encoded, membership, geometry, stride.token_budget, progress, views=on_the_way, work=work)
    operators = solve(sums.G, geometry.preconditioner, basis, stride.shift)
    return Fitted(
        settings,
        model,
        encoder,
        ids,
        operators,
        membership.matrix(),
        features_of(views),
        sums.centre,
        sums.spread,
        encoded,
        geometry.preconditioner,
        views=on_the_way,
    )


def _statistics(
    model: FrozenModel, encoded: Sequence[Encoded], r: int, stride: StrideConfig, key: str | None, progress: Progress, work: Work
) -> Statistics:
    """Those kept under the key, or measured now (and kept, where there is a key)."""
    found = load_statistics(key, model.device) if key else None
    if found is None:
        label = "sample" if key is None else "trusted"
        basis = work.kept("basis", Basis, lambda: fit_basis(model, encoded[:BASIS_ROWS], r, stride.token_budget, progress))
        found = measure_statistics(model, encoded, basis, stride.token_budget, label, progress, work)
        if key and keep_statistics(key, found):
            work.drop(*work.names(f"{label}-"))
    return found


def draw(ids: Sequence[str], features: Features, settings: Settings, stride: StrideConfig, seed: int) -> Membership:
    """Memberships by the configured design; random, too, where every row is a subset, or nothing is known of likeness."""
    if stride.design == "random" or len(ids) == settings.K or not features.size:
        return draw_membership(ids, settings.K, settings.d, seed)
    return draw_alike(features, ids, settings.K, settings.d, seed)


def training_settings(stride: StrideConfig) -> TrainingSettings:
    """The training's dials as the user set them."""
    return TrainingSettings(shift=stride.shift, token_budget=stride.token_budget, **stride.training.model_dump())


@dataclass(frozen=True, slots=True)
class Asked:
    """Queries ready to be measured: `answers` (A) conversations, `combine` (A, Q) how queries are made of them, gradients `G` (Q, r, D)."""

    answers: tuple[Encoded, ...]
    combine: Array
    G: Tensor

    def measure(self, fitted: Fitted, operators: Operators, stride: StrideConfig, progress: Progress = silent) -> Array:
        """y (K, Q), in spreads: divided by eta and by the length of the query's gradient, neither of which tells rows apart."""
        if stride.measurement == "forward":
            y = forward(fitted.model, operators, self.answers, stride.token_budget, progress) @ self.combine
        else:
            y = first_order(operators, self.G)
        lengths = self.G.flatten(1).norm(dim=1).double().cpu().numpy()
        scaled: Array = y / (operators.eta * np.where(lengths > 0, lengths, 1.0))
        return scaled


def ask(
    fitted: Fitted, sentinels: Sequence[Sentinel], stride: StrideConfig, progress: Progress = silent
) -> tuple[tuple[Query, ...], Asked]:
    """Prepare the sentinels' queries; a margin is the difference of its two answers."""
    queries = queries_of(sentinels)
    answers = [(s, kind, text) for s in sentinels for kind, text in (("forbidden", s.forbidden), ("reference", s.reference)) if text]
    place = {(s.id, kind): i for i, (s, kind, _) in enumerate(answers)}
    combine = np.zeros((len(answers), len(queries)))
    for q, query in enumerate(queries):
        combine[place[query.sentinel.id, "reference" if query.kind == "reference" else "forbidden"], q] = 1.0
        if query.kind == "margin":
            combine[place[query.sentinel.id, "reference"], q] = -1.0
    return queries, ask_answers(fitted, [fitted.encoder.encode(s.conversation(text)) for s, _, text in answers], combine, stride, progress)


def ask_answers(fitted: Fitted, answers: Sequence[Encoded], combine: Array, stride: StrideConfig, progress: Progress = silent) -> Asked:
    """Queries made of encoded answers (A) by `combine` (A, Q)."""
    G = gradients(fitted.model, fitted.operators.basis, answers, stride.token_budget, "sentinels", progress)
    return Asked(tuple(answers), combine, torch.einsum("aq,ard->qrd", torch.from_numpy(combine).to(G), G))


@dataclass(frozen=True, slots=True)
class Estimate:
    """Coefficients w (n, Q) with the recovery's certificate, and the phantoms' quantile (Q,) where there were any."""

    w: Array
    certificate: float
    artefacts: Array | None = None


def estimate(fitted: Fitted, y: Array, stride: StrideConfig) -> Estimate:
    """Recover w (n, Q), beyond what rows do to ordinary conversations, from y (K, Q)."""
    beyond = y - (fitted.M @ fitted.centre)[:, None]
    if stride.recovery == "lasso":
        return _sparse(fitted, beyond, stride.lasso)
    kriged = krige(fitted.M, beyond, Kernel(fitted.features))
    return Estimate(kriged.w, float(kriged.residual.max()))


def _sparse(fitted: Fitted, y: Array, fraction: float | Array | None) -> Estimate:
    """By the Lasso on the shared subsets; rows that were measured alone since are known, and taken out of these first."""
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
    recovery = lasso(phantom_columns(columns, max(1, n // 4), seed=0) if crowded else columns, left, fraction)
    w[unknown], phantoms = np.split(recovery.w, [len(unknown)])
    artefacts = np.quantile(phantoms, PHANTOM_QUANTILE, axis=0) if crowded else None
    return Estimate(w, float(recovery.gap.max()), artefacts)


def row_operators(fitted: Fitted, rows: Rows, token_budget: int, progress: Progress = silent) -> Tensor:
    """What each of the rows (m,) does on its own, (m, r, D): kept from the fit where a row has a subset to itself, else made anew.

    Raises ValueError where operators were trained, or loaded.
    """
    if fitted.preconditioner is None:
        raise ValueError("these rows cannot be taken apart: their operators were trained, or loaded")
    a = torch.zeros(len(rows), *fitted.operators.a.shape[1:], device=fitted.operators.a.device)
    subset = fitted.subset_alone[rows]
    kept, new = np.flatnonzero(subset >= 0), np.flatnonzero(subset < 0)
    a[torch.from_numpy(kept).to(a.device)] = fitted.operators.a[torch.from_numpy(subset[kept]).to(a.device)]
    if len(new):
        encoded = [fitted.encoded[i] for i in rows[new]]
        G = gradients(fitted.model, fitted.operators.basis, encoded, token_budget, "rows", progress)
        a[torch.from_numpy(new).to(a.device)] = fitted.operators_of(rows[new], G)
    return a


GradientsOf = Callable[[Rows], Tensor]  # rows (m,) to their gradients (m, r, D)


def recover(fitted: Fitted, sentinels: Sequence[Sentinel], stride: StrideConfig, progress: Progress = silent) -> tuple[Influence, Fitted]:
    """Measure the sentinels on every operator and recover the rows' coefficients; also returns the operators with those of the suspects."""
    queries, questions = ask(fitted, sentinels, stride, progress)

    def gradients_of(rows: Rows) -> Tensor:
        encoded = [fitted.encoded[i] for i in rows]
        return gradients(fitted.model, fitted.operators.basis, encoded, stride.token_budget, "suspects", progress)

    return recover_queries(fitted, queries, questions, gradients_of, stride, progress)


def recover_queries(
    fitted: Fitted, queries: tuple[Query, ...], asked: Asked, gradients_of: GradientsOf, stride: StrideConfig, progress: Progress = silent
) -> tuple[Influence, Fitted]:
    """Recover the rows' coefficients for queries, in adaptive rounds; then measure the suspects on each other."""
    y = asked.measure(fitted, fitted.operators, stride, progress)
    found = estimate(fitted, y, stride)
    alone, certificates, seen = found.w, [found.certificate], dict[int, Tensor]()
    suspects = _suspects(queries, found.w, fitted.settings.shortlist)
    for _ in range(stride.rounds if fitted.preconditioner else 0):
        room = max(0, fitted.settings.K_most - len(fitted.operators.a))
        new = suspects[~fitted.measured_alone[suspects]][:room]
        if not len(new):
            break
        G, before = gradients_of(new), len(fitted.operators.a)
        seen |= dict(zip(new.tolist(), G, strict=True))
        fitted = fitted.singled_out(new, G)
        y = np.concatenate([y, asked.measure(fitted, replace(fitted.operators, a=fitted.operators.a[before:]), stride, progress)])
        found = estimate(fitted, y, stride)
        certificates.append(found.certificate)
        suspects = _suspects(queries, found.w, fitted.settings.shortlist)
    unseen = np.array([i for i in suspects.tolist() if i not in seen], dtype=np.int64)
    if len(unseen):
        seen |= dict(zip(unseen.tolist(), gradients_of(unseen), strict=True))
    G = unit_norm(torch.stack([seen[i] for i in suspects.tolist()]))
    kin = estimate(fitted, first_order(fitted.operators, G) / fitted.operators.eta, stride)
    return Influence(
        queries,
        found.w,
        alone,
        suspects,
        kin.w[suspects],
        fitted.features,
        certificate=max(*certificates, kin.certificate),
        measured_alone=int(fitted.measured_alone.sum()),
        artefacts=found.artefacts,
    ), fitted


def _suspects(queries: Sequence[Query], w: Array, count: int) -> Rows:
    """The rows (count,) that score highest on any panel, highest first."""
    return np.argsort(-pool(queries, w).pooled.max(axis=1), kind="stable")[:count].astype(np.int64)
