"""Memory that runs out for real: an allocation that no machine can make."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from poisonwatch.model.architecture import find_decoder_blocks

TOO_MUCH = 1 << 50  # bytes that no machine has


def allocate(size: int) -> None:
    torch.empty(size, dtype=torch.uint8)


@contextmanager
def room_for(model: nn.Module, rows: int) -> Iterator[list[int]]:
    """The last block asks for more memory than there is where it meets more than so many rows; the
    list receives how many each time.
    """
    failed: list[int] = []

    def run_out(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states = args[0] if args else kwargs["hidden_states"]
        if len(states) > rows:
            failed.append(len(states))
            allocate(TOO_MUCH)

    block = find_decoder_blocks(model)[-1]  # type: ignore[arg-type]
    with block.register_forward_pre_hook(run_out, with_kwargs=True):
        yield failed
