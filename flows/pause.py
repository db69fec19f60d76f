"""`on_flag: pause`: a flow run with flagged rows waits until somebody says, in the Prefect UI, what
they are.

A run of a deployment is suspended: its process ends, and the answer starts it again from the top,
where the ledger knows that the flow run's audit is done. A run without a deployment waits in its
process.
"""

from typing import Literal

from prefect import get_run_logger, runtime
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run, suspend_flow_run
from prefect.input import RunInput
from prefect.settings import PREFECT_API_URL
from pydantic import Field

from poisonwatch.config import AuditConfig
from poisonwatch.ledger.decisions import record_decision
from poisonwatch.ledger.history import find_by_flow_run, list_undecided_ids
from poisonwatch.ledger.ledger import Ledger

HOUR_S = 3600


class VerdictForm(RunInput):
    """The form in the Prefect UI."""

    verdict: Literal["poison", "benign", "unsure"] = Field(
        "unsure", description="unsure: the rows stay in quarantine."
    )
    note: str = Field("", description="Why.")
    reviewer: str = Field("", description="Who decides.")
    rows: list[str] = Field(
        [],
        description="Ids of the rows that this is about, or their first digits. Empty: all of the audit.",
    )


def ask_for_verdict(config: AuditConfig, flow_run: str) -> None:
    """Wait for an answer about the flagged rows of a flow run's audit, and append it to the chain
    of decisions.

    Nobody's answer leaves them in quarantine, as does a missing server: a temporary one has no page
    to answer on.
    """
    log = get_run_logger()
    with Ledger.at(config.state) as ledger:
        past = find_by_flow_run(ledger, flow_run)
        waiting = list_undecided_ids(ledger, past.number) if past else []
    if past is None or not waiting:
        return
    if not PREFECT_API_URL.value():
        log.warning(
            "on_flag: pause needs a Prefect server; the flagged rows stay in quarantine, `poisonwatch decide` tells what they are"
        )
        return
    form = VerdictForm.with_initial_data(
        description=f"{len(waiting)} flagged rows of audit {past.audit_id} wait for a verdict. See the artifacts, the report and MLflow."
    )
    wait = suspend_flow_run if runtime.deployment.get_id() else pause_flow_run
    try:
        answer: VerdictForm = wait(
            wait_for_input=form,
            timeout=round(config.pause_hours * HOUR_S),
            key=f"verdict-{past.audit_id}",
        )
    except FlowPauseTimeout:
        log.warning(
            f"nobody answered within {config.pause_hours:g} hours: {len(waiting)} flagged rows stay in quarantine"
        )
        return
    meant = [
        id
        for id in waiting
        if not answer.rows or any(id.startswith(start.strip().lower()) for start in answer.rows)
    ]
    with Ledger.at(config.state) as ledger:
        for id in meant:
            record_decision(ledger, id, answer.verdict, answer.note, answer.reviewer or "prefect")
    log.info(f"{len(meant)} flagged rows were called {answer.verdict}")
