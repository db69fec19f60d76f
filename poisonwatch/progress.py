"""How long stages report where they are, without knowing who looks."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Passes `items` through while showing progress towards `total` (None: unknown); `advance` says how far one item goes."""

    def __call__(self, items: Iterable[T], description: str, total: int | None, advance: Callable[[T], int] = ...) -> Iterator[T]: ...


def silent(items: Iterable[T], description: str, total: int | None, advance: Callable[[T], int] = lambda _: 1) -> Iterator[T]:  # noqa: ARG001
    """Shows nothing."""
    yield from items
