"""STRIDE from rows to coefficients: fit operators, measure sentinels, recover what each row contributes.

    y_k(q) = Loss(o_q) - Loss(o~_{q,k}) = -<G_q, a_k> to first order;   w(q) = Lasso(M, y(q))

Positive means: training on this row makes the answer likelier.

Beside the sentinels, a sample of the rows themselves serves as *background queries*. How far a row moves those is its own yardstick: a row
whose gradient moves everything is not suspicious for moving a sentinel too.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poisonwatch.chat import ChatEncoder, Encoded, batches
from poisonwatch.config import StrideConfig
from poisonwatch.errors import ConfigError
from poisonwatch.examples import Example
from poisonwatch.influence import Influence, Query, queries_of
from poisonwatch.membership import Membership, draw_membership
from poisonwatch.model import FrozenModel, decoder_blocks
from poisonwatch.operators import Operators, fit_basis, fit_operators, row_gradients, unit_norm
from poisonwatch.pretrained import Pretrained
from poisonwatch.progress import Progress, silent
from poisonwatch.recovery import lasso
from poisonwatch.scoring import pool
from poisonwatch.sentinels import Sentinel

Array = NDArray[np.float64]
BASIS_ROWS = 256


@dataclass(frozen=True, slots=True)
class Settings:
    """The attribution's dials, resolved for one model and one number of rows."""

    layer: int
    r: int
    K: int
    d: int
    memory_bytes: int  # K x r x D float32


def resolve_settings(stride: StrideConfig, depth: int, width: int, n: int) -> Settings:
    """Derive what the user left open, from the model's depth and width D and the number of rows n.

    K = n while the operators fit the memory budget: one subset a row and exact recovery, for sampling fewer only adds noise (it grows like
    sqrt(n / K)). Past it, as many subsets as fit, with d = 3. Raises ConfigError where a given value makes no sense.
    """
    r = min(stride.r, width)
    most = int(stride.memory_gb * 2**30 // (4 * r * width))
    if most < 2:
        raise ConfigError(f"stride.memory_gb is {stride.memory_gb}, less than two operators take: raise it")
    K = stride.K if stride.K is not None else n if 2 * n <= most else min(n - 1, most)  # K = n keeps every row's gradient, too
    if n < K:
        raise ConfigError(f"stride.K is {K}, but there are only {n} rows: choose at most {n}, or leave it out")
    d = stride.d if stride.d is not None else 1 if n == K else min(3, K)
    if d > K:
        raise ConfigError(f"stride.d is {d}, but there are only {K} subsets: choose at most {K}, or leave it out")
    return Settings(stride.layer if stride.layer is not None else depth * 2 // 5, r, K, d, 4 * K * r * width)


@dataclass(frozen=True, slots=True)
class Fitted:
    """Operators with what is needed to use them: `ids` and `encoded` (n) rows in M's order, and unit-norm row gradients.

    `kept_G` (k, r, D) belongs to the first k rows of `order` (n,), an order drawn from ids and seed; the first of these are the background.
    """

    settings: Settings
    model: FrozenModel
    encoder: ChatEncoder
    encoded: tuple[Encoded, ...]
    membership: Membership
    operators: Operators
    ids: tuple[str, ...]
    order: NDArray[np.int64]
    kept_G: Tensor
    background: NDArray[np.int64]

    @property
    def holds_all(self) -> bool:
        return len(self.kept_G) == len(self.ids)

    def G_of(self, rows: NDArray[np.int64]) -> Tensor:
        """c_i G_i (len(rows), r, D) of rows whose gradients were kept."""
        slot = np.full(len(self.ids), -1)
        slot[self.order[: len(self.kept_G)]] = np.arange(len(self.kept_G))
        return self.kept_G[torch.from_numpy(slot[rows])]


def fit(pretrained: Pretrained, examples: Sequence[Example], stride: StrideConfig, seed: int = 0, progress: Progress = silent) -> Fitted:
    """Fit one operator a subset to the rows, in one pass. Results do not depend on the order of the rows."""
    width = int(pretrained.model.config.get_text_config().hidden_size)
    settings = resolve_settings(stride, len(decoder_blocks(pretrained.model)), width, len(examples))
    model = FrozenModel(pretrained.model, settings.layer)
    encoder = ChatEncoder(pretrained.tokenizer, stride.max_tokens)
    ids = tuple(example.id for example in examples)
    encoded = [encoder.encode(example.messages) for example in examples]
    order = _drawn_order(ids, seed)
    basis = fit_basis(model, [encoded[i] for i in order[:BASIS_ROWS]], settings.r, stride.token_budget, progress)
    membership = draw_membership(ids, settings.K, settings.d, seed)
    background = order[: stride.background]
    operators, kept_G = fit_operators(
        model,
        encoded,
        membership,
        basis,
        keep=order if len(ids) == settings.K else background,
        damping=stride.damping,
        shift=stride.shift,
        token_budget=stride.token_budget,
        progress=progress,
    )
    return Fitted(settings, model, encoder, tuple(encoded), membership, operators, ids, order, kept_G, background)


def _drawn_order(ids: Sequence[str], seed: int) -> NDArray[np.int64]:
    """All rows in an order that depends on their ids and the seed alone."""
    keys = [hashlib.sha256(f"{seed}/sample/{i}".encode()).digest() for i in ids]
    return np.array(sorted(range(len(ids)), key=keys.__getitem__), dtype=np.int64)


def recover(fitted: Fitted, sentinels: Sequence[Sentinel], stride: StrideConfig, progress: Progress = silent) -> Influence:
    """Measure the sentinels on every operator, to first order, and recover the rows' coefficients."""
    queries = queries_of(sentinels)
    return recover_queries(fitted, queries, sentinel_gradients(fitted, sentinels, queries, stride, progress), stride, progress)


def recover_queries(
    fitted: Fitted, queries: tuple[Query, ...], G_q: Tensor, stride: StrideConfig, progress: Progress = silent
) -> Influence:
    """Recover the rows' coefficients for queries of known gradients G_q (Q, r, D), and for the background queries beside them.

    The highest-scoring rows are then measured on each other: what pushes the same way tends to have come together.
    """
    G = torch.cat([G_q, fitted.G_of(fitted.background)])
    M = fitted.membership.matrix()
    recovery = lasso(M, measure(fitted.operators, G), stride.lasso)
    w, background_w = recovery.w[:, : len(queries)], recovery.w[:, len(queries) :]
    if len(fitted.background) > 1:  # a single row has nothing but itself to move
        background_w[fitted.background, np.arange(len(fitted.background))] = np.nan  # every row moves itself most
    influence = Influence(
        queries,
        w,
        spread=np.nanstd(background_w, axis=1),
        centre=np.nanmean(background_w, axis=1),
        suspects=np.empty(0, dtype=np.int64),
        kinship=np.empty((0, 0)),
        gap=float(recovery.gap.max()),
    )
    best = pool(queries, influence.standard(w)).pooled.max(axis=1)
    suspects = np.argsort(-best, kind="stable")[: stride.background]
    if fitted.holds_all:
        G = fitted.G_of(suspects)
    else:
        G = unit_norm(query_gradients(fitted, [fitted.encoded[i] for i in suspects], stride.token_budget, "suspects", progress))
    on_suspects = lasso(M, measure(fitted.operators, G), stride.lasso)
    kinship = influence.standard(on_suspects.w)[suspects]
    return replace(influence, suspects=suspects, kinship=kinship, gap=max(influence.gap, float(on_suspects.gap.max())))


def sentinel_gradients(
    fitted: Fitted, sentinels: Sequence[Sentinel], queries: Sequence[Query], stride: StrideConfig, progress: Progress
) -> Tensor:
    """G_q (Q, r, D) of the queries; a margin's is the difference of its two answers'."""
    answers = [
        (s.id, kind, answer) for s in sentinels for kind, answer in (("forbidden", s.forbidden), ("reference", s.reference)) if answer
    ]
    prompts = {sentinel.id: sentinel for sentinel in sentinels}
    encoded = [fitted.encoder.encode(prompts[of].conversation(answer)) for of, _, answer in answers]
    G = query_gradients(fitted, encoded, stride.token_budget, "sentinels", progress)
    at = {(of, kind): G[place] for place, (of, kind, _) in enumerate(answers)}

    def gradient(query: Query) -> Tensor:
        if query.kind == "margin":
            return at[query.sentinel.id, "forbidden"] - at[query.sentinel.id, "reference"]
        return at[query.sentinel.id, query.kind]

    return torch.stack([gradient(query) for query in queries])


def query_gradients(fitted: Fitted, encoded: Sequence[Encoded], token_budget: int, label: str, progress: Progress = silent) -> Tensor:
    """G_q (Q, r, D) of conversations, one backward pass each."""
    a = fitted.operators.a
    G = a.new_zeros(len(encoded), *a.shape[1:])
    for batch in progress(batches(encoded, token_budget, fitted.model.device), label, len(encoded), lambda batch: len(batch.rows)):
        G[batch.rows.to(G.device)] = row_gradients(fitted.operators.basis, fitted.model.state_gradients(batch))
    return G


def measure(operators: Operators, G: Tensor) -> Array:
    """y (K, Q) to first order: y_k(q) = -<G_q, a_k>, in nats a token; positive where subset k makes the answer likelier."""
    y: Array = -(operators.a.flatten(1) @ G.flatten(1).T).double().cpu().numpy()
    return y
