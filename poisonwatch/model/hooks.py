"""What is hooked into a model for one pass, and taken out again: every hook lasts for a `with`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from poisonwatch.model.encoding import Answers

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Stop(Exception):  # noqa: N818  (a signal, no error)
    """Leaves the forward pass once what it is run for is known."""


@contextmanager
def cut_at(block: nn.Module, states: Tensor | None, stop: bool) -> Iterator[list[Tensor]]:
    """Cut the graph before a block; the list receives the states there, a leaf of the graph above.
    `states` take their place where given. Where it is to `stop`, the block is not run.
    """
    seen: list[Tensor] = []

    def cut(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        z = states
        # A leaf: the backward pass ends at the split, and no block below builds a graph.
        if z is None:
            z = get_states(args, kwargs).detach().requires_grad_(not stop)
        seen.append(z)
        if stop:
            raise Stop
        return _replace_states(args, kwargs, z)

    with block.register_forward_pre_hook(cut, with_kwargs=True):
        yield seen


@contextmanager
def record_states(blocks: Sequence[nn.Module], stop: bool = False) -> Iterator[list[Tensor]]:
    """The list receives the states before each of the blocks, in their order: part of the graph
    where there is one. Where it is to `stop`, the last block is not run.
    """
    seen: list[Tensor] = []

    def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        z = get_states(args, kwargs)
        seen.append(z)
        if stop and len(seen) == len(blocks):
            raise Stop
        # A copy goes on: what a block writes into its input must not change what was recorded.
        return _replace_states(args, kwargs, z.clone())

    with ExitStack() as hooks:
        for block in blocks:
            hooks.enter_context(block.register_forward_pre_hook(record, with_kwargs=True))
        yield seen


def move_states(block: nn.Module, move: Callable[[Tensor], Tensor]) -> RemovableHandle:
    """Put z~ = move(z) in the place of the states z before a block."""

    def replace(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        z = get_states(args, kwargs)
        return _replace_states(args, kwargs, move(widen(z)).to(z).contiguous())

    return block.register_forward_pre_hook(replace, with_kwargs=True)


@contextmanager
def record_extras(blocks: Sequence[nn.Module]) -> Iterator[list[tuple[Any, ...] | None]]:
    """The last of the list is what the last of the blocks returned beside the states."""
    extras: list[tuple[Any, ...] | None] = [None]

    def record(_: nn.Module, __: tuple[Any, ...], out: Any) -> None:
        # Whether blocks return states alone or a tuple differs from family to family.
        if isinstance(out, tuple):
            extras.append(out[1:])

    with ExitStack() as hooks:
        for block in blocks[-1:]:
            hooks.enter_context(block.register_forward_hook(record))
        yield extras


@contextmanager
def skip_blocks(blocks: Sequence[nn.Module], extras: tuple[Any, ...] | None) -> Iterator[None]:
    """Let blocks hand on their input, in the form in which they return states."""

    def skip(*args: Any, **kwargs: Any) -> Any:
        states = get_states(args, kwargs)
        if extras is None:
            return states
        return (states, *extras)

    with ExitStack() as restore:
        for block in blocks:
            # Some tools wrap a module's forward on the instance: that one has to come back.
            own = vars(block).get("forward")
            if own:
                restore.callback(setattr, block, "forward", own)
            else:
                restore.callback(delattr, block, "forward")
            setattr(block, "forward", skip)  # noqa: B010  (mypy: a method)
        yield


def select_answers(head: nn.Module, answers: Answers) -> RemovableHandle:
    """Give the head only the positions that predict an answer token: logits become (1, answer
    tokens, V).
    """
    handle: RemovableHandle = head.register_forward_pre_hook(
        lambda _, args: (pick(args[0], answers)[None], *args[1:])
    )
    return handle


def select_last(head: nn.Module) -> RemovableHandle:
    """Give the head only the last position: logits become (b, 1, V)."""
    handle: RemovableHandle = head.register_forward_pre_hook(
        lambda _, args: (args[0][:, -1:], *args[1:])
    )
    return handle


def replace_head_states(head: nn.Module, h: Tensor) -> RemovableHandle:
    """Give the head other states (n, D): logits become (1, n, V)."""
    handle: RemovableHandle = head.register_forward_pre_hook(lambda _, args: (h[None], *args[1:]))
    return handle


@contextmanager
def stop_at_head(head: nn.Module, answers: Answers) -> Iterator[list[Tensor]]:
    """End the pass before the head; the list receives the states (n, D) of the positions that
    predict an answer token.
    """
    seen: list[Tensor] = []

    def stop(_: nn.Module, args: tuple[Any, ...]) -> None:
        seen.append(pick(args[0], answers))
        raise Stop

    with head.register_forward_pre_hook(stop):
        yield seen


def pick(states: Tensor, answers: Answers) -> Tensor:
    """The states (n, D) that predict answer tokens, of states (b, T, D)."""
    return states.flatten(0, -2).index_select(0, answers.at.to(states.device))


def get_states(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The states among a block's arguments: the first, or one by name."""
    # Families differ in whether the model names what it calls its blocks with.
    if args:
        first: Tensor = args[0]
        return first
    named: Tensor = kwargs["hidden_states"]
    return named


def widen(x: Tensor) -> Tensor:
    """x in float32, or as it is where it is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _replace_states(args: tuple[Any, ...], kwargs: dict[str, Any], states: Tensor) -> Arguments:
    """A block's arguments with other states."""
    if args:
        return (states, *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": states}
