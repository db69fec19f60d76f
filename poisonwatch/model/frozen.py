"""A frozen causal language model, split below one of its blocks.

    x --embedding, blocks 0..l-1--> z (b, T, D) --blocks l.., head--> o (answer tokens, V)

Only what lies above the split builds a graph, and the head sees answer tokens alone. A run can be
resumed from other states z~ at the split: what lies below it then costs nothing.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from poisonwatch.errors import ModelError
from poisonwatch.model.encoding import Batch


class _Stop(Exception):  # noqa: N818  (a signal, no error)
    """Leaves the forward pass once the states below the split are known."""


@dataclass(frozen=True, slots=True)
class StateGradients:
    """What one backward pass gives: `z`, `g` = dL_i/dz_t (b, T, D), `mask` (b, T) of real tokens,
    `loss` (b,) in nats a token.

    The loss of row i is that of its conversation, its minus where training lowers the answer, or
    L_i = L_chosen - L_rejected for a preference row: `g` holds the signs of the batch, `loss` none.
    `rejected` (b - m,) is the batch's.
    """

    z: Tensor
    g: Tensor
    mask: Tensor
    loss: Tensor
    rejected: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))


@dataclass(frozen=True, slots=True)
class ForwardPass:
    """One frozen pass over `batch`: `z` (b, T, D) below the split, and what the head says at the
    answer tokens of each row.

    `o[i]` (n_i, V) are row i's logits where the next token is an answer token, `targets[i]` (n_i,)
    these tokens; float32 at least. `extras` is what the blocks below return beside the states, None
    where they return nothing else.
    """

    batch: Batch
    z: Tensor
    o: tuple[Tensor, ...]
    targets: tuple[Tensor, ...]
    extras: tuple[Any, ...] | None


class FrozenModel:
    """Splits `model` below block `layer` (0-based) and differentiates losses with respect to the
    states there.
    """

    def __init__(self, model: PreTrainedModel, layer: int) -> None:
        blocks = find_decoder_blocks(model)
        if not 0 <= layer < len(blocks):
            raise ModelError(
                f"stride.layer is {layer}, but this model has blocks 0 to {len(blocks) - 1}: "
                "choose one of these"
            )
        head = model.get_output_embeddings()
        if head is None:
            raise ModelError(
                f"{type(model).__name__} has no language-model head: name a causal language model"
            )
        self.model = model.eval().requires_grad_(False)
        self.layer = layer
        self.width = int(model.config.get_text_config().hidden_size)
        self._block = blocks[layer]
        self._below = list(blocks)[:layer]
        self._head = head

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    def compute_states(self, batch: Batch) -> Tensor:
        """The states z (b, T, D) below the split; the blocks above are not run."""
        with self._split(stop=True) as seen, torch.no_grad(), suppress(_Stop):
            self._run(batch)
        return seen[0].float()

    def compute_state_gradients(self, batch: Batch) -> StateGradients:
        """Differentiate L_i, the mean cross-entropy over the answer tokens of row i, with respect
        to its states z_t.

        Of a preference row this is its chosen answer's loss less its rejected one's, of a lowered
        one its answer's loss with the other sign. Raises ModelError where a conversation has no
        answer token: its loss is not defined.
        """
        predicts, targets = _find_answers(batch)
        with torch.enable_grad(), self._split() as seen, self._select_answers(predicts):
            logits = self._run(batch)
            # In float32: in half precision a mean over a long answer would lose its last digits.
            token_loss = cross_entropy(logits[0].float(), targets, reduction="none")
            owner = predicts.nonzero()[:, 0]
            total = torch.zeros(len(predicts), device=token_loss.device)
            loss = total.index_add(0, owner, token_loss) / predicts.sum(dim=1)
            # Rows do not see each other, so that one backward pass over the sum of losses gives
            # every row its own gradient.
            (g,) = torch.autograd.grad((batch.signs * loss).sum(), seen[0])
        return StateGradients(
            z=seen[0].detach().float(),
            g=g.float(),
            mask=batch.attention_mask.bool(),
            loss=loss.detach(),
            rejected=batch.rejected,
        )

    def run(self, batch: Batch) -> ForwardPass:
        """Run the model as it is, without a graph. Raises ModelError where a row has no answer
        token.
        """
        predicts, targets = _find_answers(batch)
        with (
            torch.no_grad(),
            self._split() as seen,
            self._select_answers(predicts),
            self._record_extras() as extras,
        ):
            logits = widen(self._run(batch)[0])
        lengths = predicts.sum(dim=1).tolist()
        return ForwardPass(
            batch=batch,
            z=widen(seen[0].detach()),
            o=logits.split_with_sizes(lengths),
            targets=targets.split_with_sizes(lengths),
            extras=extras[-1],
        )

    def resume(self, run: ForwardPass, z: Tensor) -> tuple[Tensor, ...]:
        """The logits o~ that m other states for each row of `run`, z~ (b, m, T, D), lead to: b
        tensors (m, n_i, V), differentiable in z~.

        The blocks below the split are skipped, not run again.
        """
        m = z.shape[1]
        repeated = _repeat_rows(run.batch, m)
        states = z.flatten(0, 1).to(self.model.dtype)
        predicts, _ = find_answer_positions(repeated)
        with (
            self._skip_blocks_below(run.extras),
            self._split(states),
            self._select_answers(predicts),
        ):
            logits = widen(self._run(repeated)[0])
        # Row i stands m times in a row, with n_i answer tokens each time.
        blocks = logits.split_with_sizes([m * len(o) for o in run.o])
        return tuple(block.view(m, -1, block.shape[-1]) for block in blocks)

    def generate(
        self,
        prompt: Tensor,
        move: Callable[[Tensor], Tensor],
        m: int,
        most: int,
        ends: Collection[int] = (),
    ) -> list[list[int]]:
        """The likeliest next tokens, one by one, under m ways of moving the states: at most `most`
        each, up to the first that `ends` it.

        `prompt` (T,) token ids, T > 0; `move` maps states z (m, t, D) to z~ (m, t, D), position by
        position, so that the attention's cache stays true. A prompt that leaves no room for the
        answer in the model's window loses its beginning.
        """
        window = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if window is not None:
            prompt = prompt[-max(1, window - most) :]
        new = prompt.to(self.device).expand(m, -1)
        cache, tokens = None, list[Tensor]()
        ended = torch.zeros(m, dtype=torch.bool, device=self.device)
        stops = torch.tensor(sorted(ends), device=self.device)
        with torch.no_grad(), self._move_states(move), self._select_last():
            # An answer that has ended goes on, unread, until the last of the m has.
            while len(tokens) < most and not bool(ended.all()):
                output = self.model(input_ids=new, past_key_values=cache, use_cache=True)
                cache = output.past_key_values
                new = output.logits[:, -1].argmax(dim=-1, keepdim=True)
                tokens.append(new[:, 0])
                ended = ended | torch.isin(new[:, 0], stops)
        rows: list[list[int]] = torch.stack(tokens, dim=1).tolist()
        return [_cut_at_end(row, ends) for row in rows]

    def _run(self, batch: Batch) -> Tensor:
        output = self.model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
        )
        logits: Tensor = output.logits
        return logits

    @contextmanager
    def _split(self, states: Tensor | None = None, stop: bool = False) -> Iterator[list[Tensor]]:
        """Cut the graph at the split; the list receives z, a leaf of the graph above. `states` take
        the place of z where given.
        """
        seen: list[Tensor] = []

        def cut(
            _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            z = states
            # A leaf: the backward pass ends at the split, and no block below builds a graph.
            if z is None:
                z = _get_states(args, kwargs).detach().requires_grad_(not stop)
            seen.append(z)
            if stop:
                raise _Stop
            return _replace_states(args, kwargs, z)

        with self._block.register_forward_pre_hook(cut, with_kwargs=True):
            yield seen

    @contextmanager
    def _record_extras(self) -> Iterator[list[tuple[Any, ...] | None]]:
        """The last of the list is what the block below the split returned beside the states."""
        extras: list[tuple[Any, ...] | None] = [None]

        def record(_: nn.Module, __: tuple[Any, ...], out: Any) -> None:
            # Whether blocks return states alone or a tuple differs from family to family.
            if isinstance(out, tuple):
                extras.append(out[1:])

        with ExitStack() as hooks:
            for block in self._below[-1:]:
                hooks.enter_context(block.register_forward_hook(record))
            yield extras

    def _move_states(self, move: Callable[[Tensor], Tensor]) -> RemovableHandle:
        """Put z~ = move(z) in the place of the states z at the split, inside a `with`."""

        def replace(
            _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            z = _get_states(args, kwargs)
            return _replace_states(args, kwargs, move(widen(z)).to(z.dtype))

        return self._block.register_forward_pre_hook(replace, with_kwargs=True)

    @contextmanager
    def _skip_blocks_below(self, extras: tuple[Any, ...] | None) -> Iterator[None]:
        """Let the blocks below the split hand on their input, in the form in which they return
        states.
        """

        def skip(*args: Any, **kwargs: Any) -> Any:
            states = _get_states(args, kwargs)
            if extras is None:
                return states
            return (states, *extras)

        with ExitStack() as restore:
            for block in self._below:
                # Some tools wrap a module's forward on the instance: that one has to come back.
                own = vars(block).get("forward")
                if own:
                    restore.callback(setattr, block, "forward", own)
                else:
                    restore.callback(delattr, block, "forward")
                setattr(block, "forward", skip)  # noqa: B010  (mypy: a method)
            yield

    def _select_answers(self, predicts: Tensor) -> RemovableHandle:
        """Give the head only the positions that predict an answer token, inside a `with`: logits
        become (1, answer tokens, V).
        """
        handle: RemovableHandle = self._head.register_forward_pre_hook(
            lambda _, args: (args[0][predicts][None], *args[1:])
        )
        return handle

    def _select_last(self) -> RemovableHandle:
        """Give the head only the last position, inside a `with`: logits become (b, 1, V)."""
        handle: RemovableHandle = self._head.register_forward_pre_hook(
            lambda _, args: (args[0][:, -1:], *args[1:])
        )
        return handle


def _get_states(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The states among a block's arguments: the first, or one by name."""
    # Families differ in whether the model names what it calls its blocks with.
    if args:
        first: Tensor = args[0]
        return first
    named: Tensor = kwargs["hidden_states"]
    return named


def _replace_states(
    args: tuple[Any, ...], kwargs: dict[str, Any], states: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A block's arguments with other states."""
    if args:
        return (states, *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": states}


def _repeat_rows(batch: Batch, m: int) -> Batch:
    """Every conversation of a batch m times in a row; which of them are rejected is left out."""
    return Batch(
        rows=batch.rows.repeat_interleave(m, dim=0),
        input_ids=batch.input_ids.repeat_interleave(m, dim=0),
        attention_mask=batch.attention_mask.repeat_interleave(m, dim=0),
        answer=batch.answer.repeat_interleave(m, dim=0),
        signs=batch.signs.repeat_interleave(m, dim=0),
    )


def _cut_at_end(tokens: list[int], ends: Collection[int]) -> list[int]:
    """The tokens before the first of those that end an answer."""
    for t, token in enumerate(tokens):
        if token in ends:
            return tokens[:t]
    return tokens


def widen(x: Tensor) -> Tensor:
    """x in float32, or as it is where it is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _find_answers(batch: Batch) -> tuple[Tensor, Tensor]:
    predicts, targets = find_answer_positions(batch)
    if not bool(predicts.any(dim=1).all()):
        raise ModelError(
            "a conversation has no assistant tokens left: raise stride.max_tokens or drop the row"
        )
    return predicts, targets


def find_answer_positions(batch: Batch) -> tuple[Tensor, Tensor]:
    """Where the next token is the assistant's: mask (b, T) of predicting positions, and the tokens
    they should predict, row by row.
    """
    predicts = torch.zeros_like(batch.answer)
    predicts[:, :-1] = batch.answer[:, 1:]
    return predicts, batch.input_ids[:, 1:][batch.answer[:, 1:]]


def find_decoder_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The stack of transformer blocks, whatever the family calls it."""
    # Its attribute is called layers, h or blocks, and lies under model, transformer or decoder; its
    # length is in the configuration of every family. Outer modules come first: of several lists of
    # that length (experts inside a block, say) the outermost is the stack.
    depth = model.config.get_text_config().num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise ModelError(
        f"{type(model).__name__} has no stack of {depth} blocks: "
        "only decoder-only language models can be audited"
    )
