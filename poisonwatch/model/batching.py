"""How many tokens a batch may have on a GPU: as many as its free memory holds."""

import torch
from transformers import PreTrainedModel

from poisonwatch.config import StrideConfig
from poisonwatch.model.devices import find_input_device
from poisonwatch.model.head import LOGITS_AT_ONCE

# Beyond it a GPU is busy anyway, and a batch of a few long rows would wait for its checkpoint.
MOST_TOKENS = 65_536
# Of what is free, for a pass; the rest is for fragments, and for what others take meanwhile.
SHARE = 0.6


def adapt_token_budget(model: PreTrainedModel, stride: StrideConfig) -> StrideConfig:
    """The settings with the budget that a GPU has memory for; as they are on a CPU, and where the
    user set a budget.
    """
    device = find_input_device(model)
    if device.type != "cuda" or "token_budget" in stride.model_fields_set:
        return stride
    free, _ = torch.cuda.mem_get_info(device)
    budget = choose_token_budget(free, bytes_per_token(model), stride.token_budget)
    return stride.model_copy(update={"token_budget": budget})


def choose_token_budget(free: int, per_token: int, least: int) -> int:
    """Padded tokens a batch, for `free` bytes and `per_token` bytes each: a power of two between
    `least` and MOST_TOKENS.

        tokens = (SHARE free - 4 x 4 LOGITS_AT_ONCE) / per_token

    The head's logits, their logarithms and their gradient are there at the same time, in float32,
    and one spare. Powers of two: a little more or less of free memory gives the same batches, and
    with them the same last digits.
    """
    tokens = int(SHARE * free - 16 * LOGITS_AT_ONCE) // per_token
    if tokens < 2 * least:
        return least
    budget: int = min(MOST_TOKENS, 1 << (tokens.bit_length() - 1))
    return max(least, budget)


def bytes_per_token(model: PreTrainedModel) -> int:
    """What a token of a backward pass keeps, in bytes, at most: all blocks count, as if the split
    were below the first.

    A block keeps some 12 arrays of width D (inputs of its layers, queries, keys, values, what they
    attend to) and 4 of its inner width I; its norms 4 of width D in float32. States, gradients and
    their copies at the split are 8 of width D in float32.
    """
    config = model.config.get_text_config()
    D, depth = int(config.hidden_size), int(config.num_hidden_layers)
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * D
    element = model.dtype.itemsize
    block = element * (12 * D + 4 * int(inner)) + 4 * 4 * D
    return depth * block + 4 * 8 * D
