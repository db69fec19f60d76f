"""What Prefect does with a task: nothing is cached, and some are tried again."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from poisonwatch.errors import PoisonwatchError

if TYPE_CHECKING:
    from prefect import Task

P = ParamSpec("P")
R = TypeVar("R")

# Inputs hold models and tensors: hashing them for a cache key would cost more than most stages.
PLAIN: dict[str, Any] = {"persist_result": False}

# For accounts that are owed until they are given: a server that is down is asked again by the next
# audit.
TRIED_NEXT_AUDIT: dict[str, Any] = PLAIN

# For steps that touch disks, networks and servers.
WITH_RETRIES: dict[str, Any] = {**PLAIN, "retries": 2, "retry_delay_seconds": [1, 5]}


class Step(Generic[P, R]):
    """A function, `fn`, that is a Prefect task where a flow runs it: made when it is first asked
    for, so that whoever calls the function alone waits for no Prefect.
    """

    def __init__(self, fn: Callable[P, R], options: dict[str, Any]) -> None:
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.name = fn.__name__
        self._options = options

    @functools.cached_property
    def prefect_task(self) -> "Task[P, R]":
        """The task."""
        from prefect import task as make_task
        from prefect.cache_policies import NO_CACHE

        return make_task(cache_policy=NO_CACHE, **self._options)(self.fn)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the task."""
        return self.prefect_task(*args, **kwargs)


def task(**options: Any) -> Callable[[Callable[P, R]], Step[P, R]]:
    """Make a `Step` of a function, with these options of its task."""
    return lambda fn: Step(fn, options)


def should_retry(_task: Any, _run: Any, state: Any) -> bool:
    """Retry what the network or the disk did, not what the user asked for."""
    return not isinstance(state.result(raise_on_failure=False), PoisonwatchError)
