"""Peer attribution methods behind one interface, to be compared with STRIDE in the same run.

    python benchmarks/peers.py [--rows 40] [--queries 8] [--only tracin] [--model NAME]

runs every peer on demo rows, each in a process of its own, and prints seconds and peak memory.

A peer takes n rows and Q queries and returns scores (n, Q) by name of variant: how much training on row i makes query q's answer likelier,
positive = likelier. Variants that share a pass over the rows come from one call. L_i is the mean cross-entropy over the answer tokens of
conversation i. For a linear layer with inputs x_t (bias: a trailing 1) and output gradients g_t = dL_i/dy_t the row's gradient is
G_i = sum_t g_t x_t^T (out, in); a gradient without a layer's name is that of all linear layers of the blocks, embeddings and head excluded.

    tfidf, bm25     cosine of TF-IDF vectors; BM25 of the query's words in the row
    hidden_states   cosine of hidden states after the last block; Hanawa et al., arXiv 2006.04528
    tracin          <G_i, G_q> and its cosine at the present weights; Pruthi et al., arXiv 2002.08484
    logra           <G_i, (F + damping)^-1 G_q>, all projected to rank x rank a layer; Choe et al., arXiv 2405.13954
    ekfac           <G_i, (F + damping)^-1 G_q>, F the eigenvalue-corrected Kronecker-factored Fisher; Grosse et al., arXiv 2308.03296
    ekfac_kronfluence   the same by the method's reference library, for comparison

"unit-norm" divides a row's scores by ||G_i||, "RelatIF" by sqrt(<G_i, (F + damping)^-1 G_i>) (Barshan et al., arXiv 2003.11630).
"""

import argparse
import copy
import math
import multiprocessing
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from poisonwatch.chat import Batch, ChatEncoder, Encoded, batches
from poisonwatch.config import ModelConfig
from poisonwatch.demonstration import demo_examples
from poisonwatch.errors import ModelError
from poisonwatch.model import answer_positions, decoder_blocks
from poisonwatch.pretrained import Pretrained, load_pretrained
from poisonwatch.sentinels import load_sentinels
from poisonwatch.stages import StageClock

Array = NDArray[np.float64]
Scores = dict[str, Array]
"""Scores (n, Q) by name of variant."""
Visit = Callable[[Batch, str, Tensor, Tensor], None]
"""Receives a batch, a layer's name, its inputs x (b, T, in) and its output gradients g (b, T, out), float32; g is zero on padding."""
TOKEN_BUDGET = 2048
QUERY_TOKENS = 4096


# ---- what the gradient peers share -------------------------------------------------------------------------------------------------


def linear_layers(model: PreTrainedModel) -> dict[str, nn.Module]:
    """The linear layers of the decoder blocks by their names in the model; GPT-2's Conv1D is one, with its weight transposed."""
    inside = {id(module) for module in decoder_blocks(model).modules()}
    return {name: m for name, m in model.named_modules() if isinstance(m, (nn.Linear, Conv1D)) and id(m) in inside}


def row_losses(model: PreTrainedModel, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
    """L_i (b,), the mean cross-entropy over the answer tokens of each row, in nats a token.

    With a generator the labels are drawn from the model's own predictions: gradients are then those of the true Fisher.
    """
    predicts, targets = answer_positions(batch)
    if not bool(predicts.any(dim=1).all()):
        raise ModelError("a conversation has no assistant tokens: its loss is not defined; drop it")
    handle = model.get_output_embeddings().register_forward_pre_hook(lambda _, args: (args[0][predicts][None], *args[1:]))
    try:
        output = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
    finally:
        handle.remove()
    logits = output.logits[0].float()
    if generator is not None:
        targets = torch.multinomial(logits.detach().softmax(dim=-1), 1, generator=generator)[:, 0]
    token_loss = cross_entropy(logits, targets, reduction="none")
    return torch.zeros_like(predicts[:, 0], dtype=torch.float32).index_add(0, predicts.nonzero()[:, 0], token_loss) / predicts.sum(dim=1)


def visit_gradients(
    model: PreTrainedModel, batch: Batch, visit: Visit, generator: torch.Generator | None = None, recompute: bool = False
) -> None:
    """One forward and one backward pass; `visit` is called for each linear layer as soon as its gradients are known, last layer first.

    No gradient of a parameter is formed: what a layer needs is x and g, and both are let go once it was visited. With `recompute` only
    the states between blocks are kept, and each block runs again when its turn comes: half as much again in time, for little memory.
    """
    inputs: dict[str, Tensor] = {}

    def keep(name: str, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if output.requires_grad:  # not so in a block's first run where it will be recomputed
            inputs[name] = args[0].detach()
            output.register_hook(partial(hand_over, name, layer))

    @torch.no_grad()
    def hand_over(name: str, layer: nn.Module, g: Tensor) -> None:
        x = inputs.pop(name).float()
        visit(batch, name, x if layer.bias is None else torch.cat([x, torch.ones_like(x[..., :1])], dim=-1), g.float())

    model.eval().requires_grad_(False)
    with ExitStack() as hooks, torch.enable_grad():
        start = model.get_input_embeddings().register_forward_hook(lambda _, __, output: output.detach().requires_grad_())
        hooks.callback(start.remove)
        for name, layer in linear_layers(model).items():
            handle = layer.register_forward_hook(lambda module, args, output, name=name: keep(name, module, args, output))
            hooks.callback(handle.remove)
        for block in decoder_blocks(model) if recompute else ():
            setattr(block, "forward", partial(_recomputed, block.forward))  # noqa: B010  (hides the class's method for a while)
            hooks.callback(delattr, block, "forward")
        row_losses(model, batch, generator).sum().backward()


def _recomputed(forward: Callable[..., Any], z: Tensor, *args: Any, **kwargs: Any) -> Any:
    """A block's forward pass that keeps no graph until it is differentiated."""
    return checkpoint(lambda states: forward(states, *args, **kwargs), z, use_reentrant=True, preserve_rng_state=False)


def visit_rows(
    pretrained: Pretrained,
    rows: Sequence[Encoded],
    token_budget: int,
    visit: Visit,
    generator: torch.Generator | None = None,
    recompute: bool = False,
) -> None:
    """`visit` every linear layer for every batch of the rows, sorted by length; batch.rows says which these are."""
    for batch in batches(rows, token_budget, pretrained.model.device):
        visit_gradients(pretrained.model, batch, visit, generator, recompute)


class Scratch:
    """Memory that is written again and again: fresh pages would cost as much as the products that fill them."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._held: dict[str, Tensor] = {}

    def __call__(self, role: str, *shape: int) -> Tensor:
        """Uninitialised float32 of a shape, valid until the next call for the same role."""
        size = math.prod(shape)
        if role not in self._held or self._held[role].numel() < size:
            self._held[role] = torch.empty(size, device=self._device)
        return self._held[role][:size].view(shape)


def layer_gradients(x: Tensor, g: Tensor, out: Tensor | None = None) -> Tensor:
    """G_i = sum_t g_t x_t^T of every row of a batch, flattened: (b, out * in); `out` (b, out, in) is where to write them."""
    return torch.bmm(g.mT, x, out=out).flatten(1)


def _shape(x: Tensor, g: Tensor) -> tuple[int, int, int]:
    return len(x), g.shape[-1], x.shape[-1]


@dataclass(frozen=True, slots=True)
class Products:
    """Inner products over all layers, each in its own metrics: `scores` (V, n, Q), and the norms `rows` (n,) and `queries` (Q,)."""

    scores: Array
    rows: Array
    queries: Array


def inner_products(
    pretrained: Pretrained,
    rows: Sequence[Encoded],
    queries: Sequence[Encoded],
    token_budget: int = TOKEN_BUDGET,
    query_tokens: int = QUERY_TOKENS,
    turn: Callable[[str, Tensor, Tensor], tuple[Tensor, Tensor]] = lambda _, x, g: (x, g),
    metrics: Callable[[str], Sequence[Tensor | None]] = lambda _: [None],
) -> Products:
    """sum over layers of <G_i, m * G_q> for each of a layer's metrics m (out * in,), None being all ones; m * is elementwise.

    `turn(name, x, g)` rotates inputs and output gradients first, which may change no norm. Of the queries x and g are held, not their
    gradients (for 135M parameters 1 MB a token, but 0.4 GB a gradient), at most `query_tokens` tokens at a time; each layer's G_q are
    formed anew for every batch of rows, so `token_budget` trades memory for time.
    """
    parts = [_products(pretrained, rows, chunk, token_budget, turn, metrics) for chunk in _chunks(queries, query_tokens)]
    return Products(np.concatenate([p.scores for p in parts], axis=2), parts[0].rows, np.concatenate([p.queries for p in parts]))


def _products(
    pretrained: Pretrained,
    rows: Sequence[Encoded],
    queries: Sequence[Encoded],
    token_budget: int,
    turn: Callable[[str, Tensor, Tensor], tuple[Tensor, Tensor]],
    metrics: Callable[[str], Sequence[Tensor | None]],
) -> Products:
    """The products with as many queries as memory can hold."""
    device = pretrained.model.device
    held: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {name: [] for name in linear_layers(pretrained.model)}
    V = len(metrics(next(iter(held))))
    scores = torch.zeros(V, len(rows), len(queries), dtype=torch.float64, device=device)
    squares = [torch.zeros(len(side), dtype=torch.float64, device=device) for side in (rows, queries)]
    scratch = Scratch(device)

    def hold(batch: Batch, name: str, x: Tensor, g: Tensor) -> None:
        x, g = turn(name, x, g)
        held[name].append((batch.rows, x, g))
        squares[1][batch.rows] += layer_gradients(x, g, scratch("rows", *_shape(x, g))).norm(dim=1).double() ** 2

    def compare(batch: Batch, name: str, x: Tensor, g: Tensor) -> None:
        x, g = turn(name, x, g)
        G = layer_gradients(x, g, scratch("rows", *_shape(x, g)))
        squares[0][batch.rows] += G.norm(dim=1).double() ** 2
        places = torch.cat([members for members, _, _ in held[name]])
        G_q = scratch("queries", len(queries), *_shape(x, g)[1:])
        filled = 0
        for members, x_q, g_q in held[name]:
            layer_gradients(x_q, g_q, G_q[filled : filled + len(members)])
            filled += len(members)
        for v, metric in enumerate(metrics(name)):
            weighted = G if metric is None else torch.mul(G, metric, out=scratch("weighted", *G.shape))
            scores[v, batch.rows[:, None], places] += (weighted @ G_q.flatten(1).T).double()

    visit_rows(pretrained, queries, token_budget, hold, recompute=True)  # beside what is held, graphs of all blocks are too much
    visit_rows(pretrained, rows, token_budget, compare, recompute=True)
    return Products(scores.cpu().numpy(), *(square.sqrt().cpu().numpy() for square in squares))


def _chunks(encoded: Sequence[Encoded], tokens: int) -> Iterator[list[Encoded]]:
    """Conversations in order, at most `tokens` at a time (at least one conversation)."""
    chunk: list[Encoded] = []
    for item in encoded:
        if chunk and sum(map(len, chunk)) + len(item) > tokens:
            yield chunk
            chunk = []
        chunk.append(item)
    yield chunk


def _over(scores: Array, norms: Array) -> Array:
    """Scores (n, Q) of rows made equally long; a row without a gradient keeps 0."""
    divided: Array = scores / np.where(norms > 0, norms, np.inf)[:, None]
    return divided


# ---- lexical peers and hidden states -----------------------------------------------------------------------------------------------


def tfidf(rows: Sequence[str], queries: Sequence[str]) -> Scores:
    """Cosine of TF-IDF vectors with sublinear counts; texts are prompt and answer."""
    vectors = TfidfVectorizer(sublinear_tf=True).fit(rows)
    return {"TF-IDF": (vectors.transform(rows) @ vectors.transform(queries).T).toarray().astype(np.float64)}


def bm25(rows: Sequence[str], queries: Sequence[str]) -> Scores:
    """BM25 of a query's words in a row."""
    retriever = bm25s.BM25()
    retriever.index(bm25s.tokenize(list(rows), show_progress=False), show_progress=False)
    words = bm25s.tokenize(list(queries), show_progress=False, return_ids=False)
    return {"BM25": np.stack([retriever.get_scores(query) if query else np.zeros(len(rows)) for query in words], axis=1).astype(np.float64)}


@torch.no_grad()
def hidden_states(
    pretrained: Pretrained,
    rows: Sequence[Encoded],
    queries: Sequence[Encoded],
    *,
    layer: int | None = None,
    token_budget: int = TOKEN_BUDGET,
) -> Scores:
    """Cosine of hidden states: those of the last token, and the mean over the answer's tokens.

    `layer` l means the states below block l; by default those after the last block, as the head sees them.
    """
    model = pretrained.model.eval()

    def vectors(encoded: Sequence[Encoded]) -> Tensor:
        found = torch.zeros(2, len(encoded), int(model.config.get_text_config().hidden_size))
        for batch in batches(encoded, token_budget, model.device):
            output = model.base_model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False, output_hidden_states=layer is not None
            )
            z = (output.last_hidden_state if layer is None else output.hidden_states[layer]).float()
            last = batch.attention_mask.sum(dim=1) - 1
            found[0, batch.rows] = z[torch.arange(len(z)), last].cpu()
            found[1, batch.rows] = torch.einsum("btd,bt->bd", z, batch.answer.float()).cpu()
        return normalize(found, dim=-1)

    last, answer = (vectors(rows) @ vectors(queries).mT).double().numpy()
    return {"hidden state, last token": last, "hidden state, answer tokens": answer}


# ---- gradient peers ----------------------------------------------------------------------------------------------------------------


def tracin(
    pretrained: Pretrained,
    rows: Sequence[Encoded],
    queries: Sequence[Encoded],
    *,
    token_budget: int = TOKEN_BUDGET,
    query_tokens: int = QUERY_TOKENS,
) -> Scores:
    """Inner product and cosine of whole gradients at the present weights: TracIn with one checkpoint."""
    products = inner_products(pretrained, rows, queries, token_budget, query_tokens)
    (scores,) = products.scores
    return {"TracIn": scores, "TracIn, cosine": _over(_over(scores, products.rows).T, products.queries).T}


def gradient_norms(pretrained: Pretrained, rows: Sequence[Encoded], *, token_budget: int = TOKEN_BUDGET) -> Array:
    """||G_i|| (n,) over all layers, without forming gradients: ||G_i||^2 = sum_{t,s} (g_t . g_s)(x_t . x_s)."""
    squares = torch.zeros(len(rows), dtype=torch.float64, device=pretrained.model.device)

    def add(batch: Batch, _: str, x: Tensor, g: Tensor) -> None:
        squares[batch.rows] += ((g @ g.mT) * (x @ x.mT)).sum(dim=(1, 2)).double()

    visit_rows(pretrained, rows, token_budget, add)
    norms: Array = squares.clamp_min(0).sqrt().cpu().numpy()
    return norms


Projections = Mapping[str, tuple[Tensor, Tensor]]
"""By layer: orthonormal columns for inputs (in, k) and for output gradients (out, k)."""


def random_projections(model: PreTrainedModel, rank: int, seed: int = 0) -> Projections:
    """Directions drawn at random, for every layer."""
    draw = torch.Generator().manual_seed(seed)

    def columns(width: int) -> Tensor:
        return torch.linalg.qr(torch.randn(width, min(rank, width), generator=draw))[0].to(model.device)

    return {name: (columns(sizes[0]), columns(sizes[1])) for name, sizes in layer_sizes(model).items()}


def principal_projections(
    pretrained: Pretrained, rows: Sequence[Encoded], rank: int, token_budget: int = TOKEN_BUDGET
) -> dict[str, tuple[Tensor, Tensor]]:
    """The leading eigenvectors of every layer's E[x x^T] and E[g g^T] over `rows`, true labels."""
    moments = covariances(pretrained, rows, token_budget)
    return {name: tuple(_eigenvectors(C)[:, -rank:].contiguous() for C in pair) for name, pair in moments.items()}  # type: ignore[misc]


def layer_sizes(model: PreTrainedModel) -> dict[str, tuple[int, int]]:
    """(in, out) of every layer; in counts the bias."""

    def sizes(layer: nn.Module) -> tuple[int, int]:
        inputs, outputs = layer.weight.shape if isinstance(layer, Conv1D) else layer.weight.shape[::-1]
        return inputs + (layer.bias is not None), outputs

    return {name: sizes(layer) for name, layer in linear_layers(model).items()}


def projected_gradients(
    pretrained: Pretrained, encoded: Sequence[Encoded], projections: Projections, token_budget: int = TOKEN_BUDGET
) -> dict[str, Tensor]:
    """P_out^T G_i P_in of every conversation, flattened: (n, k_out * k_in) by layer."""
    found = {name: torch.zeros(len(encoded), P_in.shape[1] * P_out.shape[1]) for name, (P_in, P_out) in projections.items()}

    def project(batch: Batch, name: str, x: Tensor, g: Tensor) -> None:
        P_in, P_out = projections[name]
        found[name][batch.rows] = layer_gradients(x @ P_in, g @ P_out).cpu()

    visit_rows(pretrained, encoded, token_budget, project)
    return found


def logra(
    pretrained: Pretrained,
    rows: Sequence[Encoded],
    queries: Sequence[Encoded],
    *,
    rank: int = 8,
    damping: float = 0.1,
    principal: bool = False,
    principal_rows: int = 256,
    projections: Projections | None = None,
    seed: int = 0,
    token_budget: int = TOKEN_BUDGET,
) -> Scores:
    """LoGra over all linear layers of the blocks: plain, unit-norm rows, RelatIF.

    F is the second moment of the rows' projected gradients, layer by layer, and `damping` relative to the mean of its diagonal.
    Directions are random, or with `principal` the leading ones of `principal_rows` rows drawn by seed.
    """
    if projections is None and principal:
        projections = principal_projections(pretrained, _sample(rows, principal_rows, seed), rank, token_budget)
    elif projections is None:
        projections = random_projections(pretrained.model, rank, seed)
    G, G_q = (projected_gradients(pretrained, side, projections, token_budget) for side in (rows, queries))
    scores = torch.zeros(len(rows), len(queries), dtype=torch.float64)
    squares, own = torch.zeros(2, len(rows), dtype=torch.float64)
    for name in projections:
        g, q = G[name].double(), G_q[name].double()
        F = g.T @ g / len(g)
        lower = torch.linalg.cholesky(F + damping * F.diagonal().mean() * torch.eye(len(F)))
        scores += g @ torch.cholesky_solve(q.T, lower)
        squares += g.pow(2).sum(dim=1)
        own += torch.linalg.solve_triangular(lower, g.T, upper=False).pow(2).sum(dim=0)
    name = f"LoGra{', principal' if principal else ''}"
    plain = scores.numpy()
    lengths = {"unit-norm": squares.sqrt().numpy(), "RelatIF": own.sqrt().numpy()}
    return {name: plain} | {f"{name}, {kind}": _over(plain, length) for kind, length in lengths.items()}


# ---- EK-FAC ------------------------------------------------------------------------------------------------------------------------


def covariances(
    pretrained: Pretrained, rows: Sequence[Encoded], token_budget: int = TOKEN_BUDGET, generator: torch.Generator | None = None
) -> dict[str, tuple[Tensor, Tensor]]:
    """E[x x^T] (in, in) and E[g g^T] (out, out) over the rows' tokens, by layer."""
    device = pretrained.model.device
    sums = {name: tuple(torch.zeros(size, size, device=device) for size in sizes) for name, sizes in layer_sizes(pretrained.model).items()}

    def add(batch: Batch, name: str, x: Tensor, g: Tensor) -> None:
        real = batch.attention_mask.bool()
        for C, side in zip(sums[name], (x[real], g[real]), strict=True):
            C.addmm_(side.T, side)

    visit_rows(pretrained, rows, token_budget, add, generator)
    tokens = sum(map(len, rows))
    return {name: (A / tokens, S / tokens) for name, (A, S) in sums.items()}


def _eigenvectors(C: Tensor) -> Tensor:
    """Orthonormal columns, smallest eigenvalue first."""
    vectors: Tensor = torch.linalg.eigh(C.double())[1].float()
    return vectors


def _sample(rows: Sequence[Encoded], size: int | None, seed: int) -> list[Encoded]:
    drawn = np.random.default_rng(seed).permutation(len(rows))[:size]
    return [rows[i] for i in sorted(drawn)]


def ekfac(
    pretrained: Pretrained,
    rows: Sequence[Encoded],
    queries: Sequence[Encoded],
    *,
    dampings: Sequence[float] = (0.1, 0.001),
    factor_rows: int | None = 512,
    seed: int = 0,
    token_budget: int = TOKEN_BUDGET,
    query_tokens: int = QUERY_TOKENS,
) -> Scores:
    """EK-FAC influence over all linear layers of the blocks, for each damping plain and with unit-norm rows.

    Q_A and Q_S are the eigenvectors of E[x x^T] and E[g g^T], labels drawn from the model; in their basis F is diagonal with
    lambda = E[(Q_S^T G Q_A)^2] over rows. `damping` is relative to the layer's mean lambda; kronfluence's own choice is 0.1. The factors
    are fitted to `factor_rows` rows drawn by seed (None: all). Scores equal kronfluence's; turning x and g instead of gradients, and
    sharing the pass among dampings, takes a fraction of its time where rows are shorter than layers are wide.
    """
    sample, labels = _sample(rows, factor_rows, seed), torch.Generator(pretrained.model.device).manual_seed(seed)
    moments = covariances(pretrained, sample, token_budget, labels)
    bases = {name: tuple(_eigenvectors(C) for C in moments.pop(name)) for name in list(moments)}
    eigenvalues = {name: torch.zeros(len(Q_S) * len(Q_A), device=Q_A.device) for name, (Q_A, Q_S) in bases.items()}
    scratch = Scratch(pretrained.model.device)

    def turn(name: str, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        Q_A, Q_S = bases[name]
        return x @ Q_A, g @ Q_S

    def add(_: Batch, name: str, x: Tensor, g: Tensor) -> None:
        x, g = turn(name, x, g)
        eigenvalues[name] += layer_gradients(x, g, scratch("rows", *_shape(x, g))).pow_(2).sum(dim=0)

    def metrics(name: str) -> list[Tensor]:
        ev = eigenvalues[name] / len(sample)
        return [1 / (ev + damping * ev.mean()) for damping in dampings]

    visit_rows(pretrained, sample, token_budget, add, labels)
    products = inner_products(pretrained, rows, queries, token_budget, query_tokens, turn, metrics)
    found: Scores = {}
    for damping, scores in zip(dampings, products.scores, strict=True):
        found[f"EK-FAC, damping {damping:g}"] = scores
        found[f"EK-FAC, damping {damping:g}, unit-norm"] = _over(scores, products.rows)
    return found


def with_linear_layers(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of a model with the same outputs, each Conv1D replaced by an nn.Linear."""
    copied = copy.deepcopy(model)
    for name, layer in list(copied.named_modules()):
        if isinstance(layer, Conv1D):
            inputs, outputs = layer.weight.shape
            linear = nn.Linear(inputs, outputs, device=layer.weight.device, dtype=layer.weight.dtype)
            linear.weight.data, linear.bias.data = layer.weight.data.T.contiguous(), layer.bias.data
            copied.set_submodule(name, linear)
    return copied


def ekfac_kronfluence(
    pretrained: Pretrained,
    rows: Sequence[Encoded],
    queries: Sequence[Encoded],
    *,
    dampings: Sequence[float | None] = (None,),
    low_rank: int | None = 32,
    factor_rows: int | None = 512,
    batch_size: int = 8,
    seed: int = 0,
) -> Scores:
    """EK-FAC influence by kronfluence: for each damping (absolute; None: 0.1 of the mean lambda) plain and with unit-norm rows.

    Queries' gradients are kept at rank `low_rank` a layer (None: whole), or 56 of them would take 24 GB for 135M parameters. Rows
    are padded to the longest of their batch; kronfluence gets the attention mask, so padding enters no covariance.
    """
    from kronfluence.analyzer import Analyzer, prepare_model  # optional: not needed by the other peers
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task
    from kronfluence.utils.dataset import DataLoaderKwargs

    labels = torch.Generator(pretrained.model.device).manual_seed(seed)

    class AnswerTokens(Task):
        def compute_train_loss(self, batch: dict[str, Tensor], model: nn.Module, sample: bool = False) -> Tensor:
            return row_losses(model, Batch(**batch), labels if sample else None).sum()

        def compute_measurement(self, batch: dict[str, Tensor], model: nn.Module) -> Tensor:
            return self.compute_train_loss(batch, model)

        def get_influence_tracked_modules(self) -> list[str]:
            return names

        def get_attention_mask(self, batch: dict[str, Tensor]) -> Tensor:
            return batch["attention_mask"]

    def collate(members: list[Encoded]) -> dict[str, Tensor]:
        (batch,) = batches(members, sum(map(len, members)) * len(members))  # keeps their order: they are sorted by length
        return {name: getattr(batch, name) for name in ("rows", "input_ids", "attention_mask", "answer")}

    def by_length(encoded: Sequence[Encoded]) -> list[int]:
        return sorted(range(len(encoded)), key=lambda i: (len(encoded[i]), i))

    model = with_linear_layers(pretrained.model).eval()
    names, task = list(linear_layers(model)), AnswerTokens()
    row_order, query_order = by_length(rows), by_length(queries)
    sample = _sample(rows, factor_rows, seed)
    batching: dict[str, Any] = {"dataloader_kwargs": DataLoaderKwargs(collate_fn=collate)}
    found: Scores = {}
    norms = gradient_norms(pretrained, rows)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.random.fork_rng():
        torch.manual_seed(seed)  # the reduction to low rank draws
        warnings.filterwarnings("ignore", ".torch.cuda.amp.GradScaler", FutureWarning)  # kronfluence 1.0.1 still calls it so
        analyzer = Analyzer("peers", prepare_model(model, task), task, cpu=model.device.type == "cpu", disable_tqdm=True, output_dir=folder)
        analyzer.fit_all_factors(
            "factors", [sample[i] for i in by_length(sample)], batch_size, factor_args=FactorArguments(strategy="ekfac"), **batching
        )
        for damping in dampings:
            name = f"EK-FAC (kronfluence), damping {'heuristic' if damping is None else f'{damping:g}'}"
            analyzer.compute_pairwise_scores(
                name,
                "factors",
                [queries[i] for i in query_order],
                [rows[i] for i in row_order],
                per_device_query_batch_size=batch_size,
                per_device_train_batch_size=batch_size,
                score_args=ScoreArguments(
                    damping_factor=damping, query_gradient_low_rank=low_rank, query_gradient_accumulation_steps=len(queries)
                ),
                **batching,
            )
            scores = np.zeros((len(rows), len(queries)))
            scores[np.ix_(row_order, query_order)] = analyzer.load_pairwise_scores(name)["all_modules"].T.double().numpy()
            found |= {name: scores, f"{name}, unit-norm": _over(scores, norms)}
    return found


# ---- cost --------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Measured:
    """A peer's `scores`, the wall-clock `seconds` and the `processor_seconds` they took, and the memory of a process that did nothing else.

    Processor seconds count all threads, and do not grow where other processes keep a busy machine's cores. `peak_memory_mb` is the
    largest resident memory, in MiB.
    """

    scores: Scores
    seconds: float
    processor_seconds: float
    peak_memory_mb: float

    def __iter__(self) -> Iterator[Any]:
        """`scores, seconds, peak_memory_mb = measured(...)`."""
        return iter((self.scores, self.seconds, self.peak_memory_mb))


def measured(peer: Callable[..., Scores], *arguments: Any, **options: Any) -> Measured:
    """Run `peer(*arguments, **options)` in a fresh process, or the memory of whatever ran before would count as its own.

    Everything must be picklable: a peer is a module's function, its options plain. Handing over a model is not counted.
    """
    with tempfile.TemporaryDirectory() as folder:
        torch.save((peer, arguments, options), Path(folder) / "call.pt")
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(_measure, Path(folder) / "call.pt", torch.get_num_threads()).result()


def _measure(call: Path, threads: int) -> Measured:
    torch.set_num_threads(threads)
    peer, arguments, options = torch.load(call, weights_only=False)  # written by measured() above
    clock, start = StageClock(), time.process_time()
    with clock.stage(str(peer)):
        scores = peer(*arguments, **options)
    return Measured(scores, clock.costs[0].seconds, time.process_time() - start, clock.costs[0].peak_memory_mb)


PEERS: dict[str, Callable[..., Scores]] = {
    "tfidf": tfidf,
    "bm25": bm25,
    "hidden_states": hidden_states,
    "tracin": tracin,
    "logra": logra,
    "logra_principal": partial(logra, principal=True),
    "ekfac": ekfac,
    "ekfac_kronfluence": ekfac_kronfluence,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--queries", type=int, default=8)
    parser.add_argument("--only", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--model", default=ModelConfig().name)
    options = parser.parse_args()
    pretrained = load_pretrained(ModelConfig(name=options.model))
    encoder = ChatEncoder(pretrained.tokenizer)
    examples = demo_examples()[: options.rows]
    with resources.as_file(resources.files("poisonwatch") / "demo" / "sentinels.yaml") as path:
        sentinels = load_sentinels([str(path)])
    answers = [(s, answer) for s in sentinels for answer in (s.forbidden, s.reference) if answer][: options.queries]
    rows = [encoder.encode(example.messages) for example in examples]
    queries = [encoder.encode(sentinel.conversation(answer)) for sentinel, answer in answers]
    row_texts = [f"{e.prompt} {e.response}" for e in examples]
    query_texts = [f"{sentinel.prompt} {answer}" for sentinel, answer in answers]
    print(f"{len(rows)} rows of {sum(map(len, rows))} tokens, {len(queries)} queries of {sum(map(len, queries))}")
    print(f"{torch.get_num_threads()} threads\n\n| peer | seconds | processor seconds | peak memory, MiB |\n|---|---|---|---|")
    for name in options.only:
        texts = name in ("tfidf", "bm25")
        cost = measured(PEERS[name], *((row_texts, query_texts) if texts else (pretrained, rows, queries)))
        print(f"| {name} | {cost.seconds:.1f} | {cost.processor_seconds:.1f} | {cost.peak_memory_mb:.0f} |", flush=True)


if __name__ == "__main__":
    main()
