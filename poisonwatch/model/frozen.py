"""A frozen causal language model, split below one of its blocks.

    x --embedding, blocks 0..l-1--> z (b, T, D) --blocks l.., head--> o (answer tokens, V)

The way back to the split passes the blocks above: at further splits among them states and gradients
are there as well, for nothing.

Only what lies above the split builds a graph, and the head sees answer tokens alone, a limited
number of logits at a time. A run can be resumed from other states z~ at the split: what lies below
it then costs nothing. A pass reads no number back from the device, but for one that transformers
reads: on a GPU, batches follow each other without a wait.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from poisonwatch.errors import ModelError
from poisonwatch.model.architecture import (
    READING_ERRORS,
    compute_logits,
    differ,
    inspect_architecture,
)
from poisonwatch.model.devices import find_input_device
from poisonwatch.model.encoding import Answers, Batch, Encoded, make_batches
from poisonwatch.model.generation import can_read_on, generate_answers
from poisonwatch.model.head import compute_loss_gradients, compute_losses
from poisonwatch.model.hooks import (
    Stop,
    cut_at,
    record_extras,
    record_states,
    select_answers,
    skip_blocks,
    stop_at_head,
    widen,
)


@dataclass(frozen=True, slots=True)
class StateGradients:
    """What one backward pass gives: `z`, `g` = dL_i/dz_t (b, T, D), `mask` (b, T) of real tokens,
    `loss` (b,) in nats a token.

    The loss of row i is that of its conversation, its minus where training lowers the answer, or
    L_i = L_chosen - L_rejected for a preference row: `g` holds the signs of the batch, `loss` none.
    `rejected` (b - m,) is the batch's. `further` are z and g at the further splits, in their order.
    """

    z: Tensor
    g: Tensor
    mask: Tensor
    loss: Tensor
    rejected: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    further: tuple["StateGradients", ...] = ()

    @property
    def splits(self) -> tuple["StateGradients", ...]:
        """What is there at each split, the first one's first."""
        return (self, *self.further)


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRun:
    """One frozen pass over `batch` up to the split, from where others go on: `z` (b, T, D) there,
    float32 at least.

    `extras` is what the blocks below return beside the states, None where they return nothing else.
    """

    batch: Batch
    z: Tensor
    extras: tuple[Any, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardPass(SplitRun):
    """One frozen pass to its end, with what the head says at the answer tokens of each row.

    `o[i]` (n_i, V) are row i's logits where the next token is an answer token, `targets[i]` (n_i,)
    these tokens; float32 at least.
    """

    o: tuple[Tensor, ...]
    targets: tuple[Tensor, ...]


class FrozenModel:
    """Splits `model` below block `layer` (0-based) and differentiates losses with respect to the
    states there, and below the blocks `further` above it, in rising order.
    """

    def __init__(self, model: PreTrainedModel, layer: int, further: Sequence[int] = ()) -> None:
        self.model = model.eval().requires_grad_(False)
        self._device = find_input_device(model)
        found = inspect_architecture(model)
        if not 0 <= layer < len(found.blocks):
            raise ModelError(
                f"stride.layer is {layer}, but this model has blocks 0 to {len(found.blocks) - 1}: "
                "choose one of these"
            )
        above = [layer, *further]
        if above != sorted(set(above)) or above[-1] >= len(found.blocks):
            raise ModelError(
                f"stride.further_layers are {', '.join(map(str, further))}: choose blocks from "
                f"{layer + 1} to {len(found.blocks) - 1}, each once, in rising order"
            )
        self.layer, self.further = layer, tuple(further)
        config = model.config.get_text_config()
        self.width, self.vocabulary = int(config.hidden_size), int(config.vocab_size)
        self._block = found.blocks[layer]
        self._below = list(found.blocks)[:layer]
        self._further = [found.blocks[above] for above in self.further]
        self._head = found.head
        self._ends_with_head = found.ends_with_head

    @property
    def device(self) -> torch.device:
        """Where tokens go in, and states and gradients come out, wherever blocks and head are."""
        return self._device

    def compute_states(self, batch: Batch) -> Tensor:
        """The states z (b, T, D) below the split; the blocks above are not run."""
        with self._split(stop=True) as seen, torch.no_grad(), suppress(Stop):
            self._run(batch)
        return seen[0].float().to(self.device)

    def compute_all_states(self, batch: Batch) -> tuple[Tensor, ...]:
        """The states (b, T, D) at the split and at the further ones; the blocks above the last are
        not run.
        """
        blocks = [self._block, *self._further]
        with record_states(blocks, stop=True) as seen, torch.no_grad(), suppress(Stop):
            self._run(batch)
        return tuple(z.float().to(self.device) for z in seen)

    def compute_state_gradients(self, batch: Batch) -> StateGradients:
        """Differentiate L_i, the mean cross-entropy over the answer tokens of row i, with respect
        to its states z_t, at every split.

        Of a preference row this is its chosen answer's loss less its rejected one's, of a lowered
        one its answer's loss with the other sign. Raises ModelError where a conversation has no
        answer token: its loss is not defined.
        """
        answers, targets = _find_answers(batch)
        counts = torch.tensor(answers.counts)
        with torch.enable_grad(), self._split() as cut, record_states(self._further) as above:
            h = self._run_to_head(batch, answers)
        device = h.device
        owner = torch.arange(len(counts)).repeat_interleave(counts).to(device)
        share = (1 / counts).to(device)  # of a token in its conversation's loss
        # Rows do not see each other, so that one backward pass over the sum of losses gives every
        # row its own gradient.
        token_loss, dh = compute_loss_gradients(
            self._say, h, targets, (batch.signs.to(device) * share)[owner], self.vocabulary
        )
        states = [*cut, *above]
        gradients = torch.autograd.grad(h, states, dh)
        total = torch.zeros(len(counts), device=device, dtype=token_loss.dtype)
        loss = (total.index_add(0, owner, token_loss) * share).float().to(self.device)
        first, *further = (
            StateGradients(
                z=z.detach().float().to(self.device),
                g=g.float().to(self.device),
                mask=batch.attention_mask.bool(),
                loss=loss,
                rejected=batch.rejected,
            )
            for z, g in zip(states, gradients, strict=True)
        )
        return replace(first, further=tuple(further))

    def run_losses(self, batch: Batch) -> tuple[SplitRun, Tensor]:
        """Run the model as it is, without a graph: the losses (b,) in nats a token, float64. Raises
        ModelError where a conversation has no answer token.
        """
        answers, targets = _find_answers(batch)
        with torch.no_grad(), self._split() as seen, record_extras(self._below) as extras:
            h = self._run_to_head(batch, answers)
        token_loss = compute_losses(self._say, h, targets, self.vocabulary)
        z = widen(seen[0].detach()).to(self.device)
        run = SplitRun(batch=batch, z=z, extras=extras[-1])
        return run, _average(token_loss, answers).to(self.device)

    def run(self, batch: Batch) -> ForwardPass:
        """Run the model as it is, without a graph, and keep all logits (`run_losses` keeps few).
        Raises ModelError where a row has no answer token.
        """
        answers, targets = _find_answers(batch)
        with (
            torch.no_grad(),
            self._split() as seen,
            select_answers(self._head, answers),
            record_extras(self._below) as extras,
        ):
            logits = widen(self._run(batch)[0])
        lengths = list(answers.counts)
        return ForwardPass(
            batch=batch,
            z=widen(seen[0].detach()).to(self.device),
            o=logits.split_with_sizes(lengths),
            targets=targets.split_with_sizes(lengths),
            extras=extras[-1],
        )

    def resume(self, run: SplitRun, z: Tensor) -> tuple[Tensor, ...]:
        """The logits o~ that m other states for each row of `run`, z~ (b, m, T, D), lead to: b
        tensors (m, n_i, V), differentiable in z~.

        The blocks below the split are skipped, not run again, but for families whose blocks above
        read more of them than states.
        """
        m = z.shape[1]
        repeated = _repeat_rows(run.batch, m)
        answers = repeated.locate_answers()
        with self._resume(run, z), select_answers(self._head, answers):
            logits = widen(self._run(repeated)[0])
        # Row i stands m times in a row, with n_i answer tokens each time.
        blocks = logits.split_with_sizes([m * count for count in answers.counts[::m]])
        return tuple(block.view(m, -1, block.shape[-1]) for block in blocks)

    def resume_losses(self, run: SplitRun, z: Tensor) -> Tensor:
        """The losses (b, m) in nats a token that the states z~ (b, m, T, D) lead to, float64; see
        `resume`. No graph, and never more logits at a time than a pass may have.
        """
        m = z.shape[1]
        repeated = _repeat_rows(run.batch, m)
        answers, targets = _find_answers(repeated)
        with torch.no_grad(), self._resume(run, z):
            h = self._run_to_head(repeated, answers)
        token_loss = compute_losses(self._say, h, targets, self.vocabulary)
        return _average(token_loss, answers).view(-1, m).to(self.device)

    def generate(
        self,
        prompts: Sequence[Tensor],
        move: Callable[[Tensor], Tensor],
        most: int,
        ends: Collection[int] = (),
    ) -> list[list[int]]:
        """The likeliest next tokens, one by one, of each of m prompts: at most `most` each, up to
        the first that `ends` it.

        `prompts` (T_i,) token ids, T_i > 0; `move` maps states z (m, t, D) to z~ (m, t, D),
        position by position, so that the attention's cache stays true. A prompt that leaves no room
        for the answer in the model's window loses its beginning.
        """

        def move_here(z: Tensor) -> Tensor:
            return move(z.to(self.device))

        prompts = [prompt[self._find_start(prompt, most) :] for prompt in prompts]
        return generate_answers(
            self.model, self._block, self._head, prompts, move_here, most, ends, self._reads_on
        )

    @cached_property
    def _reads_on(self) -> bool:
        """Whether the model's cache serves it; asked once."""
        return can_read_on(self.model)

    def _find_start(self, prompt: Tensor, most: int) -> int:
        """Where a prompt must start to leave room for `most` tokens in the model's window."""
        config = self.model.config.get_text_config()
        window: int | None = getattr(config, "max_position_embeddings", None)
        if window is None:
            return 0
        return max(0, len(prompt) - max(1, window - most))

    def _run(self, batch: Batch) -> Tensor:
        # No mask: padding is on the right, where no token of a causal model looks. Attention may
        # skip half of its work then, and takes the kernels that know no masks.
        output = self.model(input_ids=batch.input_ids, use_cache=False)
        logits: Tensor = output.logits
        return logits

    def _run_to_head(self, batch: Batch, answers: Answers) -> Tensor:
        """The states (n, D) that the head sees of the answer tokens (`_say`: their logits)."""
        with stop_at_head(self._head, answers) as seen, suppress(Stop):
            self._run(batch)
        return seen[0]

    def _say(self, h: Tensor) -> Tensor:
        """The logits (n, V) of states (n, D) that the head sees."""
        if self._ends_with_head:
            logits: Tensor = self._head(h)
            return logits
        return compute_logits(self.model, self._head, h)

    def _split(
        self, states: Tensor | None = None, stop: bool = False
    ) -> AbstractContextManager[list[Tensor]]:
        """Cut the graph at the split; the list receives z."""
        return cut_at(self._block, states, stop)

    @contextmanager
    def _resume(self, run: SplitRun, z: Tensor) -> Iterator[None]:
        """Start from the states z~ (b, m, T, D) at the split, inside a `with`."""
        if len(z) != len(run.z):
            raise ValueError(f"states of {len(z)} rows cannot go on with a run of {len(run.z)}")
        # Moved states may lie in memory in another order than a model's own, of which some families
        # take views.
        states = z.flatten(0, 1).to(self.model.dtype).contiguous()
        below = self._below if self._skips_below else []
        with skip_blocks(below, run.extras), self._split(states):
            yield

    @cached_property
    def _skips_below(self) -> bool:
        """Whether the blocks above the split need nothing of those below but states; some families'
        read what those left, such as keys and values. Asked once.
        """
        if not self._below:
            return True
        text = Encoded.of([0, 1, 2, 3], [False, True, True, True])
        run = self.run(next(make_batches([text], 1, self.device)))
        states = torch.stack([run.z[0], run.z[0].flip(0)]).to(self.model.dtype)
        repeated = _repeat_rows(run.batch, 2)
        with torch.no_grad(), self._split(states):
            whole = self._run(repeated)
            try:
                with skip_blocks(self._below, run.extras):
                    resumed = self._run(repeated)
            except torch.OutOfMemoryError:
                raise
            except READING_ERRORS:
                return False
        return not differ(whole, resumed)


def _repeat_rows(batch: Batch, m: int) -> Batch:
    """Every conversation of a batch m times in a row; which of them are rejected is left out."""
    return Batch(
        rows=batch.rows.repeat_interleave(m, dim=0),
        input_ids=batch.input_ids.repeat_interleave(m, dim=0),
        attention_mask=batch.attention_mask.repeat_interleave(m, dim=0),
        answer=batch.answer.repeat_interleave(m, dim=0),
        signs=batch.signs.repeat_interleave(m, dim=0),
        answers=batch.locate_answers().repeat(m, batch.input_ids.shape[1]),
    )


def _average(token_loss: Tensor, answers: Answers) -> Tensor:
    """The mean (b,) of the losses (n,) of each conversation's answer tokens."""
    each = token_loss.split_with_sizes(list(answers.counts))
    return torch.stack([loss.mean() for loss in each])


def _find_answers(batch: Batch) -> tuple[Answers, Tensor]:
    """Where answer tokens are predicted, and which they are (n,)."""
    answers = batch.locate_answers()
    if 0 in answers.counts:
        raise ModelError(
            "a conversation has no assistant tokens left: raise stride.max_tokens or drop the row"
        )
    return answers, batch.input_ids.flatten().index_select(0, answers.at + 1)


def find_answer_positions(batch: Batch) -> tuple[Tensor, Tensor]:
    """Where the next token is the assistant's: mask (b, T) of predicting positions, and the tokens
    they should predict, row by row.
    """
    predicts = torch.zeros_like(batch.answer)
    predicts[:, :-1] = batch.answer[:, 1:]
    return predicts, batch.input_ids[:, 1:][batch.answer[:, 1:]]
