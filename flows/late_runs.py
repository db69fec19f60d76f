"""Runs that were due while nothing could run them: after a night without a worker, or an audit of
many hours, one audit finds what thirteen would.
"""

from datetime import UTC, datetime
from uuid import UUID

from prefect import get_run_logger, runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId, FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelled

from poisonwatch.text.words import plural

# Names of the states of a run that has not begun; one that is to go on is called otherwise.
WAITING = ["Scheduled", "Late", "AwaitingConcurrencySlot"]


def cover_late_runs() -> None:
    """Cancel what was due before the flow run that calls this, and has not begun: it does their
    work. What cannot be cancelled runs later, and finds nothing to do.
    """
    deployment, flow_run = runtime.deployment.get_id(), runtime.flow_run.get_id()
    if deployment is None or flow_run is None:
        return
    log = get_run_logger()
    try:
        with get_client(sync_client=True) as client:
            why = f"the run {runtime.flow_run.get_name()}, which began later, covers it"
            count = cancel_late_runs(client, UUID(str(deployment)), why, but=UUID(str(flow_run)))
    # an errand on the side: no audit fails by it, whatever Prefect raises
    except Exception as error:
        log.warning(f"runs that are late were not cancelled ({type(error).__name__})")
        return
    if count:
        log.info(f"{plural(count, 'late run')} cancelled: this one covers them")


def cancel_late_runs(
    client: SyncPrefectClient, deployment: UUID, why: str, but: UUID | None = None
) -> int:
    """Cancel a deployment's runs that its schedule made, that are due and have not begun, other
    than `but`: how many.
    """
    waiting = FlowRunFilter.model_validate(
        {
            "state": {"type": {"any_": ["SCHEDULED"]}, "name": {"any_": WAITING}},
            "expected_start_time": {"before_": datetime.now(UTC).isoformat()},
        }
    )
    of_deployment = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
    count = 0
    for run in client.read_flow_runs(flow_run_filter=waiting, deployment_filter=of_deployment):
        if run.id != but and _was_only_scheduled(run):
            message = f"not run, since {why}"
            client.set_flow_run_state(run.id, Cancelled(message=message), force=True)
            count += 1
    return count


def _was_only_scheduled(run: FlowRun) -> bool:
    # a person's own start, and a run that goes on after a crash, are left
    return run.auto_scheduled and run.run_count == 0
