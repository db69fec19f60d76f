"""Accounts of what was discovered in an audit's rows once the audit had ended: MLflow is owed them,
beside the audit's own.
"""

from sqlalchemy import ColumnElement, and_, delete, select

from poisonwatch.ledger.history import PastAudit, list_pending_audits, list_pending_targets
from poisonwatch.ledger.ledger import Ledger, now
from poisonwatch.ledger.outbox import (
    AUDIT_KIND,
    FINDING_KIND,
    MLFLOW,
    Delivery,
    enqueue,
    mark_delivered,
)
from poisonwatch.ledger.tables import deliveries
from poisonwatch.ledger.transactions import retried


@retried
def owe_finding(ledger: Ledger, number: int) -> bool:
    """Owe MLflow what is discovered now in the rows of the audit of this number: whether it is to
    hear of it, as it is of the audit.
    """
    with ledger.write() as connection:
        account = select(deliveries.c.item).where(_match(AUDIT_KIND, number))
        if connection.execute(account).first() is None:
            return False
        # Of two looks the later one counts.
        connection.execute(delete(deliveries).where(_match(FINDING_KIND, number)))
        enqueue(connection, FINDING_KIND, number, audit=number, targets=[MLFLOW])
    return True


def list_owed_findings(ledger: Ledger, name: str) -> list[PastAudit]:
    """The audits of a name of whose rows MLflow is owed a finding, oldest first; those of which it
    has no account itself yet come later.
    """
    found = list_pending_audits(ledger, name, MLFLOW, FINDING_KIND)
    untold = list_pending_targets(ledger, [past.number for past in found])
    return [past for past in found if MLFLOW not in untold.get(past.number, ())]


@retried
def mark_finding_delivered(ledger: Ledger, number: int) -> None:
    """MLflow has got what was discovered in the rows of the audit of this number."""
    with ledger.write() as connection:
        mark_delivered(connection, Delivery(FINDING_KIND, number, MLFLOW), now())


def _match(kind: str, number: int) -> ColumnElement[bool]:
    return and_(
        deliveries.c.kind == kind, deliveries.c.item == number, deliveries.c.target == MLFLOW
    )
