"""A frozen causal language model, split below one of its blocks.

    x --embedding, blocks 0..l-1--> z (b, T, D) --blocks l.., head--> o (answer tokens, V)

Only what lies above the split builds a graph, and the head sees answer tokens alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from poisonwatch.chat import Batch
from poisonwatch.errors import ModelError


class _Stop(Exception):  # noqa: N818  (a signal, no error)
    """Leaves the forward pass once the states below the split are known."""


@dataclass(frozen=True, slots=True)
class StateGradients:
    """What one backward pass gives: `z`, `g` = dL_i/dz_t (b, T, D), `mask` (b, T) of real tokens, `loss` (b,) in nats a token."""

    z: Tensor
    g: Tensor
    mask: Tensor
    loss: Tensor


class FrozenModel:
    """Splits `model` below block `layer` (0-based) and differentiates losses with respect to the states there."""

    def __init__(self, model: PreTrainedModel, layer: int) -> None:
        blocks = decoder_blocks(model)
        if not 0 <= layer < len(blocks):
            raise ModelError(f"stride.layer is {layer}, but this model has blocks 0 to {len(blocks) - 1}: choose one of these")
        head = model.get_output_embeddings()
        if head is None:
            raise ModelError(f"{type(model).__name__} has no language-model head: name a causal language model")
        self.model = model.eval().requires_grad_(False)
        self.layer = layer
        self.width = int(model.config.get_text_config().hidden_size)
        self._block = blocks[layer]
        self._head = head

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    def states(self, batch: Batch) -> Tensor:
        """The states z (b, T, D) below the split; the blocks above are not run."""
        with self._split(stop=True) as seen, torch.no_grad(), suppress(_Stop):
            self._run(batch)
        return seen[0].float()

    def state_gradients(self, batch: Batch) -> StateGradients:
        """Differentiate L_i, the mean cross-entropy over the answer tokens of row i, with respect to its states z_t.

        Raises ModelError where a row has no answer token: its loss is not defined.
        """
        predicts, targets = answer_positions(batch)
        if not bool(predicts.any(dim=1).all()):
            raise ModelError("a conversation has no assistant tokens left: raise stride.max_tokens or drop the row")
        with torch.enable_grad(), self._split() as seen, self._answers_only(predicts):
            logits = self._run(batch)
            token_loss = cross_entropy(logits[0].float(), targets, reduction="none")
            owner = predicts.nonzero()[:, 0]
            loss = torch.zeros(len(predicts), device=token_loss.device).index_add(0, owner, token_loss)
            loss = loss / predicts.sum(dim=1)
            (g,) = torch.autograd.grad(loss.sum(), seen[0])
        return StateGradients(seen[0].detach().float(), g.float(), batch.attention_mask.bool(), loss.detach())

    def _run(self, batch: Batch) -> Tensor:
        output = self.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
        logits: Tensor = output.logits
        return logits

    @contextmanager
    def _split(self, stop: bool = False) -> Iterator[list[Tensor]]:
        """Cut the graph at the split; the list receives z, a leaf of the graph above."""
        seen: list[Tensor] = []

        def cut(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
            z = args[0] if args else kwargs["hidden_states"]
            seen.append(z.detach().requires_grad_(not stop))
            if stop:
                raise _Stop
            return ((seen[0], *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": seen[0]})

        handle = self._block.register_forward_pre_hook(cut, with_kwargs=True)
        try:
            yield seen
        finally:
            handle.remove()

    @contextmanager
    def _answers_only(self, predicts: Tensor) -> Iterator[None]:
        """Give the head only the positions that predict an answer token: logits become (1, answer tokens, V)."""
        handle = self._head.register_forward_pre_hook(lambda _, args: (args[0][predicts][None], *args[1:]))
        try:
            yield
        finally:
            handle.remove()


def answer_positions(batch: Batch) -> tuple[Tensor, Tensor]:
    """Where the next token is the assistant's: mask (b, T) of predicting positions, and the tokens they should predict, row by row."""
    predicts = torch.zeros_like(batch.answer)
    predicts[:, :-1] = batch.answer[:, 1:]
    return predicts, batch.input_ids[:, 1:][batch.answer[:, 1:]]


def decoder_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The stack of transformer blocks, whatever the family calls it."""
    depth = model.config.get_text_config().num_hidden_layers
    stacks = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if not stacks:
        raise ModelError(f"{type(model).__name__} has no stack of {depth} blocks: only decoder-only language models can be audited")
    return stacks[0]
