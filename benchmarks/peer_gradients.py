"""Gradients of linear layers without gradients of parameters: what the gradient peers share.

For a linear layer with inputs x_t (bias: a trailing 1) and output gradients g_t = dL_i/dy_t the
row's gradient is G_i = sum_t g_t x_t^T (out, in); a gradient without a layer's name is that of all
linear layers of the blocks, embeddings and head excluded. L_i is the mean cross-entropy over the
answer tokens of conversation i.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from poisonwatch.errors import ModelError
from poisonwatch.model.architecture import find_decoder_blocks
from poisonwatch.model.encoding import Batch, Encoded, make_batches
from poisonwatch.model.frozen import find_answer_positions
from poisonwatch.model.pretrained import Pretrained

Array = NDArray[np.float64]
Scores = dict[str, Array]
"""Scores (n, Q) by name of variant."""
Visit = Callable[[Batch, str, Tensor, Tensor], None]
"""Receives a batch, a layer's name, its inputs x (b, T, in) and its output gradients g (b, T, out), float32; g is zero on padding."""
TOKEN_BUDGET = 2048
QUERY_TOKENS = 4096


def linear_layers(model: PreTrainedModel) -> dict[str, nn.Module]:
    """The linear layers of the decoder blocks by their names in the model; GPT-2's Conv1D is one,
    with its weight transposed.
    """
    inside = {id(module) for module in find_decoder_blocks(model).modules()}
    return {
        name: m
        for name, m in model.named_modules()
        if isinstance(m, (nn.Linear, Conv1D)) and id(m) in inside
    }


def layer_sizes(model: PreTrainedModel) -> dict[str, tuple[int, int]]:
    """(in, out) of every layer; in counts the bias."""

    def sizes(layer: nn.Module) -> tuple[int, int]:
        inputs, outputs = (
            layer.weight.shape if isinstance(layer, Conv1D) else layer.weight.shape[::-1]
        )
        return inputs + (layer.bias is not None), outputs

    return {name: sizes(layer) for name, layer in linear_layers(model).items()}


def row_losses(
    model: PreTrainedModel, batch: Batch, generator: torch.Generator | None = None
) -> Tensor:
    """L_i (b,), the mean cross-entropy over the answer tokens of each row, in nats a token.

    With a generator the labels are drawn from the model's own predictions: gradients are then those
    of the true Fisher.
    """
    predicts, targets = find_answer_positions(batch)
    if not bool(predicts.any(dim=1).all()):
        raise ModelError("a conversation has no assistant tokens: its loss is not defined; drop it")
    handle = model.get_output_embeddings().register_forward_pre_hook(
        lambda _, args: (args[0][predicts][None], *args[1:])
    )
    try:
        output = model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
        )
    finally:
        handle.remove()
    logits = output.logits[0].float()
    if generator is not None:
        targets = torch.multinomial(logits.detach().softmax(dim=-1), 1, generator=generator)[:, 0]
    token_loss = cross_entropy(logits, targets, reduction="none")
    return torch.zeros_like(predicts[:, 0], dtype=torch.float32).index_add(
        0, predicts.nonzero()[:, 0], token_loss
    ) / predicts.sum(dim=1)


def visit_gradients(
    model: PreTrainedModel,
    batch: Batch,
    visit: Visit,
    generator: torch.Generator | None = None,
    recompute: bool = False,
) -> None:
    """One forward and one backward pass; `visit` is called for each linear layer as soon as its
    gradients are known, last layer first.

    No gradient of a parameter is formed: what a layer needs is x and g, and both are let go once it
    was visited. With `recompute` only the states between blocks are kept, and each block runs again
    when its turn comes: half as much again in time, for little memory.
    """
    inputs: dict[str, Tensor] = {}

    def keep(name: str, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if output.requires_grad:  # not so in a block's first run where it will be recomputed
            inputs[name] = args[0].detach()
            output.register_hook(partial(hand_over, name, layer))

    @torch.no_grad()
    def hand_over(name: str, layer: nn.Module, g: Tensor) -> None:
        x = inputs.pop(name).float()
        visit(
            batch,
            name,
            x if layer.bias is None else torch.cat([x, torch.ones_like(x[..., :1])], dim=-1),
            g.float(),
        )

    model.eval().requires_grad_(False)
    with ExitStack() as hooks, torch.enable_grad():
        start = model.get_input_embeddings().register_forward_hook(
            lambda _, __, output: output.detach().requires_grad_()
        )
        hooks.callback(start.remove)
        for name, layer in linear_layers(model).items():
            handle = layer.register_forward_hook(
                lambda module, args, output, name=name: keep(name, module, args, output)
            )
            hooks.callback(handle.remove)
        for block in find_decoder_blocks(model) if recompute else ():
            setattr(block, "forward", partial(_recomputed, block.forward))  # noqa: B010  (hides the class's method for a while)
            hooks.callback(delattr, block, "forward")
        row_losses(model, batch, generator).sum().backward()


def _recomputed(forward: Callable[..., Any], z: Tensor, *args: Any, **kwargs: Any) -> Any:
    """A block's forward pass that keeps no graph until it is differentiated."""
    return checkpoint(
        lambda states: forward(states, *args, **kwargs),
        z,
        use_reentrant=True,
        preserve_rng_state=False,
    )


def visit_rows(
    pretrained: Pretrained,
    rows: Sequence[Encoded],
    token_budget: int,
    visit: Visit,
    generator: torch.Generator | None = None,
    recompute: bool = False,
) -> None:
    """`visit` every linear layer for every batch of the rows, sorted by length; batch.rows says
    which these are.
    """
    for batch in make_batches(rows, token_budget, pretrained.model.device):
        visit_gradients(pretrained.model, batch, visit, generator, recompute)


class Scratch:
    """Memory that is written again and again: fresh pages would cost as much as the products that
    fill them.
    """

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
    """G_i = sum_t g_t x_t^T of every row of a batch, flattened: (b, out * in); `out` (b, out, in)
    is where to write them.
    """
    return torch.bmm(g.mT, x, out=out).flatten(1)


def shape(x: Tensor, g: Tensor) -> tuple[int, int, int]:
    return len(x), g.shape[-1], x.shape[-1]


@dataclass(frozen=True, slots=True)
class Products:
    """Inner products over all layers, each in its own metrics: `scores` (V, n, Q), and the norms
    `rows` (n,) and `queries` (Q,).
    """

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
    """sum over layers of <G_i, m * G_q> for each of a layer's metrics m (out * in,), None being all
    ones; m * is elementwise.

    `turn(name, x, g)` rotates inputs and output gradients first, which may change no norm. Of the
    queries x and g are held, not their gradients (for 135M parameters 1 MB a token, but 0.4 GB a
    gradient), at most `query_tokens` tokens at a time; each layer's G_q are formed anew for every
    batch of rows, so `token_budget` trades memory for time.
    """
    parts = [
        _products(pretrained, rows, chunk, token_budget, turn, metrics)
        for chunk in _chunks(queries, query_tokens)
    ]
    return Products(
        np.concatenate([p.scores for p in parts], axis=2),
        parts[0].rows,
        np.concatenate([p.queries for p in parts]),
    )


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
    held: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {
        name: [] for name in linear_layers(pretrained.model)
    }
    V = len(metrics(next(iter(held))))
    scores = torch.zeros(V, len(rows), len(queries), dtype=torch.float64, device=device)
    squares = [
        torch.zeros(len(side), dtype=torch.float64, device=device) for side in (rows, queries)
    ]
    scratch = Scratch(device)

    def hold(batch: Batch, name: str, x: Tensor, g: Tensor) -> None:
        x, g = turn(name, x, g)
        held[name].append((batch.rows, x, g))
        squares[1][batch.rows] += (
            layer_gradients(x, g, scratch("rows", *shape(x, g))).norm(dim=1).double() ** 2
        )

    def compare(batch: Batch, name: str, x: Tensor, g: Tensor) -> None:
        x, g = turn(name, x, g)
        G = layer_gradients(x, g, scratch("rows", *shape(x, g)))
        squares[0][batch.rows] += G.norm(dim=1).double() ** 2
        places = torch.cat([members for members, _, _ in held[name]])
        G_q = scratch("queries", len(queries), *shape(x, g)[1:])
        filled = 0
        for members, x_q, g_q in held[name]:
            layer_gradients(x_q, g_q, G_q[filled : filled + len(members)])
            filled += len(members)
        for v, metric in enumerate(metrics(name)):
            weighted = (
                G if metric is None else torch.mul(G, metric, out=scratch("weighted", *G.shape))
            )
            scores[v, batch.rows[:, None], places] += (weighted @ G_q.flatten(1).T).double()

    visit_rows(
        pretrained, queries, token_budget, hold, recompute=True
    )  # beside what is held, graphs of all blocks are too much
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


def gradient_norms(
    pretrained: Pretrained, rows: Sequence[Encoded], *, token_budget: int = TOKEN_BUDGET
) -> Array:
    """||G_i|| (n,) over all layers, without forming gradients: ||G_i||^2 = sum_{t,s} (g_t .
    g_s)(x_t . x_s).
    """
    squares = torch.zeros(len(rows), dtype=torch.float64, device=pretrained.model.device)

    def add(batch: Batch, _: str, x: Tensor, g: Tensor) -> None:
        squares[batch.rows] += ((g @ g.mT) * (x @ x.mT)).sum(dim=(1, 2)).double()

    visit_rows(pretrained, rows, token_budget, add)
    norms: Array = squares.clamp_min(0).sqrt().cpu().numpy()
    return norms


def over(scores: Array, norms: Array) -> Array:
    """Scores (n, Q) of rows made equally long; a row without a gradient keeps 0."""
    divided: Array = scores / np.where(norms > 0, norms, np.inf)[:, None]
    return divided


def covariances(
    pretrained: Pretrained,
    rows: Sequence[Encoded],
    token_budget: int = TOKEN_BUDGET,
    generator: torch.Generator | None = None,
) -> dict[str, tuple[Tensor, Tensor]]:
    """E[x x^T] (in, in) and E[g g^T] (out, out) over the rows' tokens, by layer."""
    device = pretrained.model.device
    sums = {
        name: tuple(torch.zeros(size, size, device=device) for size in sizes)
        for name, sizes in layer_sizes(pretrained.model).items()
    }

    def add(batch: Batch, name: str, x: Tensor, g: Tensor) -> None:
        real = batch.attention_mask.bool()
        for C, side in zip(sums[name], (x[real], g[real]), strict=True):
            C.addmm_(side.T, side)

    visit_rows(pretrained, rows, token_budget, add, generator)
    tokens = sum(map(len, rows))
    return {name: (A / tokens, S / tokens) for name, (A, S) in sums.items()}


def eigenvectors(C: Tensor) -> Tensor:
    """Orthonormal columns, smallest eigenvalue first."""
    vectors: Tensor = torch.linalg.eigh(C.double())[1].float()
    return vectors


def drawn(rows: Sequence[Encoded], size: int | None, seed: int) -> list[Encoded]:
    drawn = np.random.default_rng(seed).permutation(len(rows))[:size]
    return [rows[i] for i in sorted(drawn)]
