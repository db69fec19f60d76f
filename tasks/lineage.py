"""Audits and releases, told to an OpenLineage server."""

from poisonwatch.config import AuditConfig
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.tasks.options import TRIED_NEXT_AUDIT, task


@task(**TRIED_NEXT_AUDIT)
def tell_lineage(ledger: Ledger, config: AuditConfig) -> int:
    """Tell the OpenLineage server of the audits and releases that it is owed: how many.

    Raises OperationError where it does not take one, InputError where OpenLineage's package is not
    installed.
    """
    from poisonwatch.provenance.openlineage_owed import tell_pending

    return tell_pending(ledger, config)
