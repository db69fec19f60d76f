"""Heads of the chain of records in MLflow: what a run was told of the ledger's length is a witness,
should somebody cut the ledger off, or put another in its place.
"""

from typing import TYPE_CHECKING

from poisonwatch.config import AuditConfig
from poisonwatch.errors import InputError
from poisonwatch.integrations.mlflow.audit_runs import list_runs
from poisonwatch.ledger.differences import Difference
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.records import ChainHead, holds_head
from poisonwatch.ledger.transactions import retried

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAIN = "poisonwatch.chain"  # tag of runs


def tag_head(client: "MlflowClient", run_id: str, ledger: Ledger) -> None:
    """Tell a run where the chain of records ends, if it was not told before: a ledger that was cut
    off since cannot take its own witness back.
    """
    if CHAIN in client.get_run(run_id).data.tags:
        return
    client.set_tag(run_id, CHAIN, str(ledger.read_head()))


@retried
def check_heads(ledger: Ledger, config: AuditConfig) -> tuple[int, list[Difference]]:
    """How many runs of the audit's experiment were told a head, and those whose head the ledger
    does not hold. Raises OperationError where the server cannot be used.
    """
    heads = _list_heads(config)
    differences = []
    with ledger.read() as connection:
        for run_id, text in heads.items():
            what = f"the chain of records at MLflow run {run_id}"
            try:
                is_held = holds_head(connection, ChainHead.parse(text))
            except InputError:
                differences.append(Difference(what, "a head, as NUMBER:HASH", text))
                continue
            if not is_held:
                differences.append(Difference(what, text, "a ledger without that record"))
    return len(heads), differences


def _list_heads(config: AuditConfig) -> dict[str, str]:
    """The heads that the runs of an experiment were told, by run, oldest first."""
    runs = list_runs(config, newest_first=False)
    return {run.run_id: run.tags[CHAIN] for run in runs if CHAIN in run.tags}
