"""Whether people answered in a review queue, as MLflow's own client finds it."""

from pathlib import Path

import pytest
from audits import write_audit
from mlflow.entities import TraceInfo, TraceLocation, TraceState
from reviewing import Reviewer
from servers import mlflow_store

from poisonwatch.config import AuditConfig
from poisonwatch.config_file import load_config
from poisonwatch.integrations.mlflow.direct import NotDirectError
from poisonwatch.integrations.mlflow.direct_reviews import read_completed
from poisonwatch.integrations.mlflow.names import make_queue_name
from poisonwatch.integrations.mlflow.reviews import use_review_client


def put_up(config: AuditConfig, traces: int) -> list[str]:
    """A queue with so many traces."""
    with use_review_client(config) as (client, experiment):
        queue = client._create_review_queue(
            experiment,
            name=make_queue_name(config.name),
            queue_type="custom",
            users=[],
            schema_ids=[],
        )
        made = []
        for number in range(traces):
            trace = TraceInfo(
                trace_id=f"tr-{number:032x}",
                trace_location=TraceLocation.from_experiment_id(experiment),
                request_time=1_700_000_000_000,
                state=TraceState.OK,
            )
            made.append(client.start_trace(trace).trace_id)
        client._add_items_to_review_queue(queue.queue_id, item_ids=made)
    return made


def test_the_newest_answer_of_each_item_that_somebody_is_done_with(tmp_path: Path) -> None:
    """None where nobody answered, or none but a judge; no queue is not an empty one."""
    config = load_config(write_audit(tmp_path, tmp_path, tracking=mlflow_store(tmp_path)))
    assert read_completed(config) is None
    first, second, third, _ = put_up(config, 4)
    assert read_completed(config) == {}
    reviewer = Reviewer(config)
    reviewer.say(first, "poison")
    reviewer.say(first, "benign", "on second thoughts")
    reviewer.say(second, "benign", kind="LLM_JUDGE")
    reviewer.say(third, "benign", done=False)
    completed = read_completed(config)
    assert completed is not None
    assert completed.keys() == {first, second}
    assert completed[second] is None
    (info,) = reviewer.client.store.batch_get_trace_infos([first])
    newest = max(info.assessments, key=lambda made: made.last_update_time_ms)
    assert completed[first] == f"{newest.assessment_id}:{newest.last_update_time_ms}"
    assert newest.value == "benign"


@pytest.mark.parametrize("tracking", ["http://127.0.0.1:9", "sqlite:///none.db"])
def test_other_stores_are_left_to_the_client(tmp_path: Path, tracking: str) -> None:
    """A server, and a file that is not there."""
    config = load_config(write_audit(tmp_path, tmp_path, tracking=tracking))
    with pytest.raises(NotDirectError):
        read_completed(config)
