"""What a model says after several prompts at once, under moves of its states."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from poisonwatch.model.architecture import READING_ERRORS, differ
from poisonwatch.model.devices import find_input_device
from poisonwatch.model.hooks import move_states, select_last

# What transformers calls a model's cache, in calls and in what they return: `past_key_values` up to
# 5.23, and then `cache`.
CACHE = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"


class NextTokens:
    """The likeliest next token of each of several texts, which grow by one token at a time.

    Where `keeps`, the model's cache holds what it has read; else it reads the whole texts again for
    every token.
    """

    def __init__(self, model: PreTrainedModel, texts: Tensor, keeps: bool) -> None:
        self.model, self.keeps = model, keeps
        self._texts, self._new, self._cache = texts, texts, None

    def say(self) -> Tensor:
        """(m,) token ids."""
        logits: Tensor
        if self.keeps:
            logits, self._cache = read_on(self.model, self._new, self._cache)
        else:
            logits = self.model(input_ids=self._texts, use_cache=False).logits
        return logits[:, -1].argmax(dim=-1)

    def add(self, tokens: Tensor) -> None:
        """Go on with these tokens (m,)."""
        self._new = tokens[:, None]
        if not self.keeps:
            self._texts = torch.cat([self._texts, self._new], dim=1)


def read_on(model: PreTrainedModel, new: Tensor, cache: Any) -> tuple[Tensor, Any]:
    """Logits of the tokens `new` (m, t) after what the cache holds, and the cache with them."""
    output = model(input_ids=new, use_cache=True, **{CACHE: cache})
    return output.logits, getattr(output, CACHE)


def can_read_on(model: PreTrainedModel) -> bool:
    """Whether a model says the same from its cache as from the whole text.

    State-space models keep caches of their own kinds, and some families' caches are for one text
    at a time, or for none.
    """
    texts = torch.tensor([[0, 1, 2, 3], [3, 0, 2, 1]], device=find_input_device(model))
    with torch.no_grad():
        whole = model(input_ids=texts, use_cache=False).logits[:, -1]
        try:
            _, cache = read_on(model, texts[:, :-1], None)
            kept, _ = read_on(model, texts[:, -1:], cache)
        except torch.OutOfMemoryError:
            raise
        except READING_ERRORS:
            return False
    return not differ(whole, kept[:, -1])


def generate_answers(
    model: PreTrainedModel,
    block: nn.Module,
    head: nn.Module,
    prompts: Sequence[Tensor],
    move: Callable[[Tensor], Tensor],
    most: int,
    ends: Collection[int],
    keeps: bool,
) -> list[list[int]]:
    """The likeliest next tokens of each of m prompts (T_i,), with states moved before a block; see
    `FrozenModel.generate` and `NextTokens`.
    """
    device = find_input_device(model)
    shortest = min(map(len, prompts))
    # Side by side without padding, which families of models take differently: all start with as
    # many tokens, and longer prompts are read on while shorter ones are answered.
    rest = pad_sequence([prompt[shortest:] for prompt in prompts], batch_first=True).to(device)
    waits = torch.tensor([len(prompt) - shortest for prompt in prompts])
    left = waits.to(device) + most  # tokens until an answer is as long as it may be
    stops = torch.tensor(sorted(ends), device=device)
    texts = torch.stack([prompt[:shortest] for prompt in prompts]).to(device)
    following, tokens, ended = NextTokens(model, texts, keeps), list[Tensor](), left <= 0
    with torch.no_grad(), move_states(block, move), select_last(head):
        # An answer that has ended goes on, unread, until the last of the m has.
        while not bool(ended.all()):
            said, step = following.say(), len(tokens)
            answers = left - most <= step
            if step < rest.shape[1]:
                said = torch.where(answers, said, rest[:, step])
            tokens.append(said)
            following.add(said)
            ended = ended | (answers & torch.isin(said, stops)) | (left <= step + 1)
    rows: list[list[int]] = torch.stack(tokens, dim=1).tolist()
    found = []
    for row, wait in zip(rows, waits.tolist(), strict=True):
        found.append(_cut_at_end(row[wait : wait + most], ends))
    return found


def _cut_at_end(tokens: list[int], ends: Collection[int]) -> list[int]:
    """The tokens before the first of those that end an answer."""
    for t, token in enumerate(tokens):
        if token in ends:
            return tokens[:t]
    return tokens
