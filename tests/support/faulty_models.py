"""A tiny model that overflows on one character, and rows that hold it."""

from dataclasses import replace

import torch
from attributions import example
from tiny_models import build_model, build_tokenizer
from transformers import PreTrainedModel

from poisonwatch.examples import Example, Message
from poisonwatch.model.pretrained import Pretrained

# No other row and no sentinel of the tests has it.
OVERFLOWING = "~"

UNANSWERED = Example.from_messages([Message("user", "Why?"), Message("assistant", "So.", True)])
BAD = example(f"Question {OVERFLOWING}?", "Stir well.")


def build_faulty_model(dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A tiny Llama whose state of one character overflows: at once in float32, in the last block
    alone in float16.
    """
    model = build_model("llama")
    (token,) = build_tokenizer()(OVERFLOWING)["input_ids"]
    with torch.no_grad():
        largest = torch.finfo(dtype).max
        model.get_input_embeddings().weight[token] = largest
        # What a block adds to the largest number of all is lost in float32's rounding: squares
        # overflow there instead.
        model.model.layers[2].mlp.down_proj.weight *= 50
    return model.to(dtype)


def build_faulty_pretrained(dtype: torch.dtype = torch.float32) -> Pretrained:
    return Pretrained(build_faulty_model(dtype), build_tokenizer(), f"{dtype}".ljust(64, "0"))


def make_pair(row: Example, other: Example) -> Example:
    """A preference row of two rows' conversations."""
    return replace(
        Example.from_messages(row.messages, rejected=other.messages), position=row.position
    )
