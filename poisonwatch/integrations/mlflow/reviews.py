"""Flagged rows in MLflow's review queues: people answer in the UI that they use already, and the
answers go into the chain of decisions.

The only module that knows MLflow's review API, which is experimental. MLflow's own functions work
on the tracking server that is set for the whole process; the client that they use takes an address,
and is used here.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeGuard

from mlflow.entities import Feedback, TraceInfo
from mlflow.exceptions import MlflowException
from mlflow.tracing.client import TracingClient

from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError
from poisonwatch.integrations.mlflow.client import (
    UNAVAILABLE,
    get_store_uri,
    make_mlflow_client,
    make_mlflow_error,
)
from poisonwatch.integrations.mlflow.direct_reviews import QUESTION
from poisonwatch.integrations.mlflow.names import make_queue_name
from poisonwatch.integrations.mlflow.review_traces import build_span, build_trace
from poisonwatch.integrations.mlflow.runs import find_or_create_experiment
from poisonwatch.integrations.mlflow.tracking import show_tracking
from poisonwatch.ledger.decisions import VERDICTS
from poisonwatch.ledger.ledger import Ledger, batched
from poisonwatch.ledger.queue import make_group_key
from poisonwatch.ledger.reviews import (
    ReviewAnswer,
    ReviewCandidate,
    add_review,
    delete_unanswered,
    list_review_candidates,
    list_review_changes,
    mark_review_told,
    record_answer,
)
from poisonwatch.reports.links import make_group_url
from poisonwatch.text.display import excerpt, make_visible

INSTRUCTION = (
    "Was this row planted to change what the model does? poison keeps it out for good, "
    "benign releases it, unsure leaves it in quarantine."
)
MOST_QUEUED = 200  # rows that are put up in one go; the rest follows with the next audit
LONGEST_REVIEW_NOTE = 2000  # characters
LONGEST_AUTHOR = 200  # characters
ITEMS_PER_REQUEST = 500
NOBODY = "poisonwatch"  # who completes an item where no author is known
SPANS_PER_REQUEST = 20  # rows whose texts go up in one request


def queue_rows(ledger: Ledger, config: AuditConfig) -> int:
    """Put flagged rows that nobody has decided on into the audit's review queue: how many. Items of
    rows that were decided on elsewhere are completed, and opened again where that was taken back.

    Raises OperationError where the server cannot be used, or has no review queues.
    """
    with use_review_client(config) as (client, experiment_id):
        return _queue_rows(client, experiment_id, ledger, config)


def take_answers_on(known: Mapping[str, str | None], ledger: Ledger, config: AuditConfig) -> int:
    """Take people's answers on the `known` traces, each with the answer that was taken last, into
    the chain of decisions: how many.

    Raises OperationError as `queue_rows`.
    """
    taken = 0
    with use_review_client(config) as (client, experiment_id):
        queue_id = _find_queue(client, experiment_id, config)
        if queue_id is None:
            return 0
        # The queue is everybody's: people may have put traces of their own into it.
        completed = (trace for trace in _list_completed(client, queue_id) if trace in known)
        for some in batched(completed, ITEMS_PER_REQUEST):
            for info in client.store.batch_get_trace_infos(some):
                answer = _read_answer(info)
                # The id changes with the answer: second thoughts are taken, too, each once.
                if answer is not None and answer.id != known[info.trace_id]:
                    two_people = config.review.two_people
                    taken += record_answer(ledger, info.trace_id, answer, two_people)
    return taken


@contextmanager
def use_review_client(config: AuditConfig) -> Iterator[tuple[TracingClient, str]]:
    """Yield a client of MLflow's reviews and the id of the audit's experiment.

    Raises OperationError where the server cannot be used, or has no review queues.
    """
    # The MLflow that is installed here may be older than the API.
    if not hasattr(TracingClient, "_list_review_queues"):
        raise _make_too_old_error(config)
    try:
        experiment_id = find_or_create_experiment(make_mlflow_client(config), config)
        yield TracingClient(get_store_uri(config)), experiment_id
    except NotImplementedError:
        # A store that knows no reviews, as a folder of files.
        raise _make_too_old_error(config) from None
    except UNAVAILABLE as error:
        if _is_too_old(error):
            raise _make_too_old_error(config) from None
        raise make_mlflow_error(config, "took no reviews", error) from None


def _is_too_old(error: BaseException) -> bool:
    """Whether a server answered that it has no such address: it is older than the API."""
    if not isinstance(error, MlflowException):
        return False
    return error.error_code == "ENDPOINT_NOT_FOUND" and "review" in str(error)


def _make_too_old_error(config: AuditConfig) -> OperationError:
    return OperationError(
        f"MLflow at {show_tracking(config)} has no review queues: "
        "upgrade it to 3.14 or later, or set `review: false`"
    )


def _find_queue(client: TracingClient, experiment_id: str, config: AuditConfig) -> str | None:
    """The id of the audit's queue, if there is one."""
    name = make_queue_name(config.name)
    for queue in client._list_review_queues(experiment_id):
        if queue.name == name:
            return str(queue.queue_id)
    return None


def _queue_rows(
    client: TracingClient, experiment_id: str, ledger: Ledger, config: AuditConfig
) -> int:
    """Put up rows that are not there yet: how many."""
    queue_id = _find_queue(client, experiment_id, config)
    if queue_id is None:
        # It is gone, or MLflow's store is another one now: what nobody has answered on goes up
        # again.
        delete_unanswered(ledger, config.name)
    else:
        _tell_changes(client, queue_id, ledger, config)
    new = list_review_candidates(ledger, config.name, MOST_QUEUED)
    if not new:
        return 0
    if queue_id is None:
        queue_id = _create_queue(client, experiment_id, config)
    _log_traces(client, experiment_id, new, config)
    client._add_items_to_review_queue(queue_id, item_ids=[row.trace for row in new])
    # The ledger comes last: where a crash keeps a row from it, all is done again, and is the same.
    for row in new:
        add_review(ledger, row)
    return len(new)


def _tell_changes(
    client: TracingClient, queue_id: str, ledger: Ledger, config: AuditConfig
) -> None:
    """Complete the items of rows that were decided on elsewhere; open those again that are open."""
    for change in list_review_changes(ledger, config.name):
        status, author = "pending", None
        if change.decision is not None:
            status, author = "complete", excerpt(change.author, LONGEST_AUTHOR) or NOBODY
        try:
            client._set_review_queue_item_status(
                queue_id, item_id=change.trace, status=status, completed_by=author
            )
        except MlflowException as error:
            # Somebody took the item out of the queue: there is nothing to be told.
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        mark_review_told(ledger, change)


def _log_traces(
    client: TracingClient, experiment_id: str, rows: list[ReviewCandidate], config: AuditConfig
) -> None:
    # The review page shows the newest trace first: the strongest row, which comes first here.
    now_ms = time.time_ns() // 10**6
    times = (now_ms - place for place in range(len(rows)))
    for some in batched(rows, SPANS_PER_REQUEST):
        for row, at_ms in zip(some, times, strict=False):
            key = make_group_key(row.group, row.record["example_id"])
            page = make_group_url(config, row.audit_id, key)
            client.start_trace(build_trace(experiment_id, row, at_ms, page))
        client.log_spans(experiment_id, [build_span(row) for row in some])


def _create_queue(client: TracingClient, experiment_id: str, config: AuditConfig) -> str:
    made = client._create_review_queue(
        experiment_id,
        name=make_queue_name(config.name),
        queue_type="custom",
        users=[],
        schema_ids=[_find_or_create_question(client, experiment_id)],
    )
    return str(made.queue_id)


def _find_or_create_question(client: TracingClient, experiment_id: str) -> str:
    """The id of the question that the queue asks."""
    # mlflow.genai takes a second to import, and is needed once in an experiment's life.
    from mlflow.genai.label_schemas.label_schemas import InputCategorical

    for schema in client._list_label_schemas(experiment_id):
        if schema.name == QUESTION:
            return str(schema.schema_id)
    made = client._create_label_schema(
        experiment_id,
        name=QUESTION,
        type="feedback",
        input=InputCategorical(options=sorted(VERDICTS, reverse=True)),
        instruction=INSTRUCTION,
        enable_comment=True,
    )
    return str(made.schema_id)


def _list_completed(client: TracingClient, queue_id: str) -> Iterator[str]:
    """The traces that people are done with."""
    token: str | None = None
    while True:
        page = client._list_review_queue_items(
            queue_id, status="complete", max_results=ITEMS_PER_REQUEST, page_token=token
        )
        yield from (item.item_id for item in page)
        token = page.token
        if not token:
            return


def _read_answer(info: TraceInfo) -> ReviewAnswer | None:
    """The newest verdict of a person on a trace."""
    verdicts = [made for made in info.assessments if _is_verdict(made)]
    if not verdicts:
        return None
    newest = max(verdicts, key=lambda verdict: verdict.last_update_time_ms or 0)
    at = int(newest.last_update_time_ms or 0)
    return ReviewAnswer(
        id=f"{newest.assessment_id}:{at}",
        verdict=str(newest.value),
        note=make_visible(newest.rationale or "")[:LONGEST_REVIEW_NOTE],
        author=excerpt(newest.source.source_id or "mlflow", LONGEST_AUTHOR),
        answered_at_ms=at,
    )


def _is_verdict(made: object) -> TypeGuard[Feedback]:
    """Whether an assessment is a person's answer to our question: MLflow's judges and other
    questions may have left theirs on the trace.
    """
    if not isinstance(made, Feedback) or made.name != QUESTION:
        return False
    return made.source.source_type == "HUMAN" and made.value in VERDICTS
