"""What Prefect does with a task: nothing is cached, and some are tried again."""

from typing import Any

from prefect.cache_policies import NO_CACHE

from poisonwatch.errors import PoisonwatchError

# Inputs hold models and tensors: hashing them for a cache key would cost more than most stages.
PLAIN: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}

# For accounts that are owed until they are given: a server that is down is asked again by the next
# audit.
TRIED_NEXT_AUDIT: dict[str, Any] = PLAIN

# For steps that touch disks, networks and servers.
WITH_RETRIES: dict[str, Any] = {**PLAIN, "retries": 2, "retry_delay_seconds": [1, 5]}


def should_retry(_task: Any, _run: Any, state: Any) -> bool:
    """Retry what the network or the disk did, not what the user asked for."""
    return not isinstance(state.result(raise_on_failure=False), PoisonwatchError)
