"""Models that break where they are told to, by hooks on their modules; as whole as before once a
`with` ends.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from tiny_models import build_tokenizer
from torch import Tensor, nn

Breaks = Callable[[Tensor, bool], bool]

STEERED = 8  # copies of a text in one pass, from which on it is steered with a group and others
PROBE = 3  # the largest token id of texts that only ask whether a model's cache works


@contextmanager
def broken(model: nn.Module, breaks: Breaks, error: BaseException) -> Iterator[None]:
    """The model raises an error in every pass whose token ids (b, T), and whether it keeps a cache,
    are such that it `breaks`.
    """

    def fail(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if breaks(kwargs["input_ids"], bool(kwargs.get("use_cache"))):
            raise error

    with model.register_forward_pre_hook(fail, with_kwargs=True):
        yield


def generates(ids: Tensor, keeps_cache: bool) -> bool:
    """Breaks where the model is asked what it says."""
    return keeps_cache and int(ids.max()) > PROBE


def steers_on(marker: str, copies_needed: int = STEERED) -> Breaks:
    """Breaks where a text that holds a marker goes through the model under many operators."""
    letters = torch.tensor(build_tokenizer()(marker, add_special_tokens=False)["input_ids"])

    def breaks(ids: Tensor, keeps_cache: bool) -> bool:
        if keeps_cache or ids.shape[1] < len(letters):
            return False
        texts, copies = ids.unique(dim=0, return_counts=True)
        for text in texts[copies >= copies_needed]:
            if bool((text.unfold(0, len(letters), 1) == letters).all(dim=1).any()):
                return True
        return False

    return breaks
