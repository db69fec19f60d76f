"""How long stages report where they are, without knowing who looks."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Passes `items` through while showing progress towards `total` (None: unknown); `advance` says
    how far one item goes.
    """

    def __call__(
        self,
        items: Iterable[T],
        description: str,
        total: int | None,
        advance: Callable[[T], int] = ...,
    ) -> Iterator[T]: ...


def silent(
    items: Iterable[T],
    description: str,  # noqa: ARG001  (the protocol names it)
    total: int | None,  # noqa: ARG001
    advance: Callable[[T], int] = lambda _: 1,  # noqa: ARG001
) -> Iterator[T]:
    """Shows nothing."""
    yield from items
