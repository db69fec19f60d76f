"""Heads of the chain of records in MLflow: what a run was told of the ledger's length is a witness,
should somebody cut the ledger off, or put another in its place.
"""

from mlflow import MlflowClient

from poisonwatch.config import AuditConfig
from poisonwatch.errors import InputError
from poisonwatch.integrations.mlflow.client import (
    UNAVAILABLE,
    make_mlflow_client,
    make_mlflow_error,
)
from poisonwatch.ledger.differences import Difference
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.records import ChainHead, holds_head
from poisonwatch.ledger.transactions import retried
from poisonwatch.text.environment import expand_variables
from poisonwatch.text.sqlite_files import find_sqlite_file

CHAIN = "poisonwatch.chain"  # tag of runs
RUNS_PER_PAGE = 1000


def tag_head(client: MlflowClient, run_id: str, ledger: Ledger) -> None:
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
    # To ask MLflow for a store that is not there makes one.
    place = expand_variables(config.tracking, "tracking").partition("sqlite:///")[2]
    store = find_sqlite_file(place.partition("?")[0])
    if store is not None and not store.is_file():
        return 0, []
    try:
        heads = _list_heads(make_mlflow_client(config), config.name)
    except UNAVAILABLE as error:
        raise make_mlflow_error(config, "cannot be used", error) from error
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


def _list_heads(client: MlflowClient, name: str) -> dict[str, str]:
    """The heads that the runs of an experiment were told, by run, oldest first."""
    experiment = client.get_experiment_by_name(name)
    found: dict[str, str] = {}
    if experiment is None:
        return found
    token: str | None = None
    while True:
        page = client.search_runs(
            [experiment.experiment_id],
            "tags.`poisonwatch.kind` = 'audit'",
            order_by=["attributes.start_time ASC"],
            max_results=RUNS_PER_PAGE,
            page_token=token,
        )
        for run in page:
            if CHAIN in run.data.tags:
                found[run.info.run_id] = run.data.tags[CHAIN]
        token = page.token
        if not token:
            return found
