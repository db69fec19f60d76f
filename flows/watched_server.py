"""What `watch` has on a Prefect server: its deployments. Whether they are still there, whether
somebody paused them, and whether the server answers, is looked at time and again, and said once.
"""

from collections.abc import Sequence
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.responses import DeploymentResponse
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound

from poisonwatch.errors import InputError, OperationError
from poisonwatch.flows.late_runs import cancel_late_runs
from poisonwatch.flows.own_server import OwnServer
from poisonwatch.flows.prefect_server import (
    describe_server_trouble,
    is_refused,
    is_server_gone,
)
from poisonwatch.flows.reporter import Reporter
from poisonwatch.flows.run_process import settle_lost_runs
from poisonwatch.text.redaction import show_place


class WatchedServer:
    """The server at `api`, and the deployments that are served there; `ids` are theirs once they
    are registered. The first has a run at once, so that people see that it works.
    """

    def __init__(
        self,
        client: SyncPrefectClient,
        api: str,
        own: OwnServer | None,
        deployments: Sequence[RunnerDeployment],
        reporter: Reporter,
    ) -> None:
        self.ids: list[UUID] = []
        self._client = client
        self._api = api
        self._own = own
        self._deployments = deployments
        self._note = reporter.note
        self._troubles: set[str] = set()
        # which have others where the server was created anew
        self._flows: dict[UUID, str] = {}

    def register(self) -> None:
        """Register the deployments, in place of what an earlier watch left. Raises InputError where
        they are somebody else's.
        """
        for deployment in self._deployments:
            self._look_at_namesake(deployment)
        self.ids = [UUID(str(deployment.apply())) for deployment in self._deployments]
        for id, deployment in zip(self.ids, self._deployments, strict=True):
            self._flows[id] = str(deployment.flow_name)
        if self._own is not None:
            settle_lost_runs(self._client, self.ids)
        self._client.create_flow_run_from_deployment(self.ids[0])

    def find_flow(self, deployment: UUID | None) -> str | None:
        """The name of the flow that runs of this deployment are of; None where it is none of
        ours.
        """
        return self._flows.get(deployment) if deployment is not None else None

    def is_in_order(self) -> bool:
        """Whether the server answers; it is told of the deployments again where it does not know
        them. Raises OperationError where somebody else serves them now.
        """
        try:
            self._look_at_deployments()
        except Exception as error:
            if not is_server_gone(error) and not is_refused(error):
                raise
            trouble = describe_server_trouble(error, self._api)
            self._tell("server", f"{trouble}: audits wait until it does")
            self._revive()
            return False
        self._tell_over("server", f"the Prefect server at {show_place(self._api)} answers again")
        return True

    def _look_at_deployments(self) -> None:
        for deployment, id in zip(self._deployments, self.ids, strict=True):
            try:
                there = self._client.read_deployment(id)
            except ObjectNotFound:
                self._note(
                    f"the Prefect server at {show_place(self._api)} does not know "
                    f"{deployment.name} any more: registering it again"
                )
                self.register()
                return
            whose = _find_owner(deployment, there)
            if whose is not None:
                raise OperationError(
                    f"{deployment.name} is {whose} now, on the same Prefect server: "
                    "give one of the two another `name`"
                )
            self._tell_of_pause(there)

    def _look_at_namesake(self, deployment: RunnerDeployment) -> None:
        """Raises InputError where the deployment of this name is served by somebody else."""
        name = f"{deployment.flow_name}/{deployment.name}"
        try:
            there = self._client.read_deployment_by_name(name)
        except ObjectNotFound:
            return
        whose = _find_owner(deployment, there)
        if whose is not None:
            taken = f"{deployment.name} is {whose} on this Prefect server: give one of the two"
            if there.work_pool_name:
                raise InputError(
                    f"{taken} another `name`, or remove that one "
                    f"(prefect deployment delete '{name}')"
                )
            if self._is_served(there):
                raise InputError(
                    f"{taken} another `name`; where that one was stopped, try again in two minutes"
                )
            self._note(f"{deployment.name} was {whose}, where nobody serves it any more")
        if there.paused:
            self._note(f"{deployment.name} was paused in Prefect: it goes on from here")
        cancel_late_runs(self._client, there.id, "watching began anew, with an audit at once")

    def _is_served(self, there: DeploymentResponse) -> bool:
        # by the server's own clock: it expects a process that serves to ask every minute
        answer = self._client.request("GET", f"/deployments/{there.id}").json()  # type: ignore[arg-type]
        return bool(answer.get("status") == "READY")

    def _tell_of_pause(self, there: DeploymentResponse) -> None:
        topic = f"paused {there.id}"
        if there.paused or not any(schedule.active for schedule in there.schedules):
            self._tell(
                topic, f"{there.name} is paused in Prefect: nothing runs until it is resumed"
            )
        else:
            self._tell_over(topic, f"{there.name} is resumed in Prefect")

    def _revive(self) -> None:
        if self._own is None:
            return
        try:
            self._own.revive()
        # said, and tried again: a machine that is too busy now may not be in a minute
        except OperationError as error:
            self._tell("start", str(error))
        else:
            self._troubles.discard("start")

    def _tell(self, topic: str, trouble: str) -> None:
        if topic not in self._troubles:
            self._note(trouble)
        self._troubles.add(topic)

    def _tell_over(self, topic: str, words: str) -> None:
        if topic in self._troubles:
            self._note(words)
        self._troubles.discard(topic)


def _find_owner(ours: RunnerDeployment, there: DeploymentResponse) -> str | None:
    """Whose the deployment is, if not ours: in words."""
    if there.work_pool_name:
        return f"deployed to the work pool {there.work_pool_name}"
    config = there.parameters.get("config")
    if config in (None, ours.parameters["config"]):
        return None
    return f"the audit of {config}"
