"""Stop a training flow whose rows are not cleared."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from poisonwatch.release import gate
from poisonwatch.tasks.options import PLAIN


@task(cache_policy=NO_CACHE, **PLAIN)
def require_cleared(
    paths: list[str], audit: str, keys: list[str] | None = None, head: str | None = None
) -> int:
    """The number of rows of these manifests and files, all of which are cleared by the audits of an
    audit file; signed by one of the `keys`, by a ledger that goes through the `head`.

    Raises NotClearedError where some are not.
    """
    return gate.require_cleared(paths, audit, keys=keys, head=head)
