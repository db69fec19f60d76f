"""`on_flag: pause`: a flow run with flagged rows waits until somebody says, in the Prefect UI, what
they are.

A run of a deployment is suspended: its process ends, and the answer starts it again from the top,
where the ledger knows that the flow run's audit is done. A run without a deployment waits in its
process.
"""

from collections.abc import Callable
from typing import Literal

from prefect import get_run_logger, runtime
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run, suspend_flow_run
from prefect.input import RunInput
from prefect.settings import PREFECT_API_URL
from pydantic import Field

from poisonwatch.config import AuditConfig
from poisonwatch.ledger.history import find_by_flow_run, list_undecided_ids
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.two_people import submit_verdict

HOUR_S = 3600  # seconds


class VerdictForm(RunInput):
    """The form in the Prefect UI. Prefect stores the fields under their names."""

    verdict: Literal["poison", "benign", "unsure"] = Field(
        "unsure", description="unsure: the rows stay in quarantine."
    )
    note: str = Field("", description="Why.")
    reviewer: str = Field("", description="Who decides.")
    rows: list[str] = Field(
        [],
        description="Ids of the rows that this is about, or their first digits. "
        "Empty: all of the audit.",
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
            "on_flag: pause needs a Prefect server; the flagged rows stay in quarantine, "
            "`poisonwatch decide` tells what they are"
        )
        return
    try:
        answer = _wait_for_form(config, past.audit_id, len(waiting))
    except FlowPauseTimeout:
        log.warning(
            f"nobody answered within {config.pause_hours:g} hours: "
            f"{len(waiting)} flagged rows stay in quarantine"
        )
        return
    meant = _choose_rows(waiting, answer.rows)
    # opened again: nothing holds the ledger for the hours in which people think
    with Ledger.at(config.state, signer=config.signing.load_signer()) as ledger:
        author = answer.reviewer or "prefect"
        outcome = submit_verdict(
            ledger,
            meant,
            answer.verdict,
            note=answer.note,
            author=author,
            two_people=config.review.two_people,
        )
    log.info(f"{len(meant)} flagged rows were called {answer.verdict}")
    if outcome.proposal is not None:
        log.info(f"{len(outcome.proposal.rows)} of them wait for a second person to say the same")


def _wait_for_form(config: AuditConfig, audit_id: str, count: int) -> VerdictForm:
    """What somebody answered about `count` rows. Raises FlowPauseTimeout; where the run is of a
    deployment, this ends the process.
    """
    form = VerdictForm.with_initial_data(
        description=f"{count} flagged rows of audit {audit_id} wait for a verdict. "
        "See the artifacts, the report and MLflow."
    )
    wait: Callable[..., VerdictForm] = pause_flow_run
    if runtime.deployment.get_id():
        wait = suspend_flow_run
    # The key makes a flow run that starts again find the answer to this question, instead of asking
    # a second time.
    return wait(
        wait_for_input=form,
        timeout=round(config.pause_hours * HOUR_S),
        key=f"verdict-{audit_id}",
    )


def _choose_rows(waiting: list[str], asked: list[str]) -> list[str]:
    """Which of the waiting ids begin with one of those that were asked for; without any, all."""
    if not asked:
        return waiting
    starts = tuple(start.strip().lower() for start in asked)
    return [id for id in waiting if id.startswith(starts)]
