"""Flagged rows in MLflow's review queues: people answer in the UI that they use already, and the
answers go into the chain of decisions.

The only module that knows MLflow's review API, which is experimental. MLflow's own functions work
on the tracking server that is set for the whole process; the client that they use takes an address,
and is used here.
"""

import base64
import json
import re
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from mlflow.entities import AssessmentSource, Feedback, Span, TraceInfo, TraceLocation, TraceState
from mlflow.exceptions import MlflowException
from mlflow.tracing.client import TracingClient

from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError
from poisonwatch.integrations.mlflow.runs import (
    UNAVAILABLE,
    find_or_create_experiment,
    make_mlflow_client,
    make_mlflow_error,
)
from poisonwatch.ledger.decisions import VERDICTS
from poisonwatch.ledger.ledger import Ledger, batched
from poisonwatch.ledger.reviews import (
    ReviewAnswer,
    ReviewCandidate,
    add_review,
    delete_unanswered,
    list_review_candidates,
    record_answer,
)
from poisonwatch.text.display import excerpt, make_visible
from poisonwatch.text.environment import conceal, expand_variables

R = TypeVar("R")
QUESTION, FINDING = "verdict", "poisonwatch"  # names of assessments: the person's, and ours
INSTRUCTION = "Was this row planted to change what the model does? poison keeps it out for good, benign releases it, unsure leaves it in quarantine."
MOST_QUEUED = 200  # rows that are put up in one go; the rest follows with the next audit
LONGEST_REVIEW_NOTE = 2000  # characters
ITEMS_PER_REQUEST = 500
SPANS_PER_REQUEST = 20  # rows whose texts go up in one request
LONGEST_PREVIEW = 1000  # characters that MLflow has room for; its PostgreSQL refuses more
LINE_WIDTH = 72  # characters of a line: the review page does not break them


def use_review_client(config: AuditConfig, work: Callable[[TracingClient, str], R]) -> R:
    if not hasattr(
        TracingClient, "_list_review_queues"
    ):  # an MLflow here that is older than the API
        raise _make_too_old_error(config)
    try:
        experiment_id = find_or_create_experiment(make_mlflow_client(config), config)
        return work(TracingClient(expand_variables(config.tracking, "tracking")), experiment_id)
    except NotImplementedError as error:  # a store that knows no reviews
        raise _make_too_old_error(config) from error
    except UNAVAILABLE as error:
        if (
            isinstance(error, MlflowException)
            and error.error_code == "ENDPOINT_NOT_FOUND"
            and "review" in str(error)
        ):
            raise _make_too_old_error(config) from error
        raise make_mlflow_error(config, "took no reviews", error) from error


def _make_too_old_error(config: AuditConfig) -> OperationError:
    return OperationError(
        f"MLflow at {conceal(config.tracking)} has no review queues: upgrade it to 3.14 or later, or set `review: false`"
    )


def _make_queue_name(config: AuditConfig) -> str:
    return f"poisonwatch: {config.name}".strip()[:250]  # as MLflow keeps it


def _find_queue(client: TracingClient, experiment_id: str, config: AuditConfig) -> str | None:
    """The id of the audit's queue, if there is one."""
    return next(
        (
            queue.queue_id
            for queue in client._list_review_queues(experiment_id)
            if queue.name == _make_queue_name(config)
        ),
        None,
    )


def queue_rows(
    client: TracingClient, experiment_id: str, ledger: Ledger, config: AuditConfig
) -> int:
    """Each row is entered in the ledger last: where that is not reached, all is done again, and is
    the same.

    Where the queue is gone, or MLflow's store is another one now, what nobody has answered on goes
    up again.
    """
    queue_id = _find_queue(client, experiment_id, config)
    if queue_id is None:
        delete_unanswered(ledger, config.name)
    new = list_review_candidates(ledger, config.name, MOST_QUEUED)
    if not new:
        return 0
    if queue_id is None:
        made = client._create_review_queue(
            experiment_id,
            name=_make_queue_name(config),
            queue_type="custom",
            users=[],
            schema_ids=[_find_or_create_question(client, experiment_id)],
        )
        queue_id = made.queue_id
    for some in batched(new, SPANS_PER_REQUEST):
        for row in some:
            client.start_trace(_build_trace(experiment_id, row))
        client.log_spans(experiment_id, [_build_span(row) for row in some])
    client._add_items_to_review_queue(queue_id, item_ids=[row.trace for row in new])
    for row in new:
        add_review(ledger, row)
    return len(new)


def _find_or_create_question(client: TracingClient, experiment_id: str) -> str:
    """The id of the question that the queue asks."""
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


def _build_trace(experiment_id: str, row: ReviewCandidate) -> TraceInfo:
    """A flagged row as a trace: what the review page shows of it at once, and our finding."""
    record, (asked, answer, why) = row.record, _split_texts(row)
    tags = {
        "mlflow.traceName": "flagged row",
        "poisonwatch.audit_id": row.audit_id,
        "poisonwatch.example_id": record["example_id"],
    }
    source = AssessmentSource(source_type="CODE", source_id=FINDING)
    finding = Feedback(
        name=FINDING,
        value="flagged",
        rationale=format_code_block(why),
        source=source,
        trace_id=row.trace,
    )
    finding.assessment_id = f"a-{row.trace.removeprefix('tr-')}"  # logged again, it is the same
    explained = _format_reason(_clip_code_block(why, LONGEST_PREVIEW // 3))
    return TraceInfo(
        trace_id=row.trace,
        trace_location=TraceLocation.from_experiment_id(experiment_id),
        request_time=time.time_ns() // 10**6,
        state=TraceState.OK,
        execution_duration=0,
        request_preview=_clip_code_block(asked, LONGEST_PREVIEW),
        response_preview=_clip_code_block(answer, LONGEST_PREVIEW - len(explained)) + explained,
        tags={
            **tags,
            "poisonwatch.panel": record["panel"],
            "poisonwatch.severity": record["severity"],
        },
        trace_metadata={
            "mlflow.trace_schema.version": "3",
            **({"mlflow.sourceRun": row.run_id} if row.run_id else {}),
        },
        assessments=[finding],
    )


def _split_texts(row: ReviewCandidate) -> tuple[str, str, str]:
    """What is asked, what is answered, and why the row is flagged."""
    *before, last = row.record["messages"]
    asked = "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in before)
    return asked, last["content"], "\n".join(row.record["reasons"])


def _format_reason(why: str) -> str:
    return f"\n\nWhy it is flagged:\n\n{why}"


def _clip_code_block(text: str, room: int) -> str:
    """As much of a text as fits into a code block of `room` characters: the rest is a click away."""
    length, block = len(text), format_code_block(text)
    while len(block) > room:
        length = min(room, length * 3 // 4)
        block = format_code_block(f"{text[:length]} ...")
    return block


def format_code_block(text: str) -> str:
    """Text as a code block: MLflow's pages render Markdown, and would follow a row's links, and
    load its pictures.
    """
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    lines = (
        part
        for line in make_visible(text).split("\n")
        for part in textwrap.wrap(line, LINE_WIDTH, drop_whitespace=False) or [""]
    )
    return "\n".join((fence, *lines, fence))


def _build_span(row: ReviewCandidate) -> Span:
    """The only span of a row's trace: the whole row. Its ids are the trace's own."""
    record, (asked, answer, why) = row.record, _split_texts(row)
    answers = {"answer": format_code_block(answer) + _format_reason(format_code_block(why))}
    if record.get("rejected"):
        answers["rejected answer"] = format_code_block(record["rejected"][-1]["content"])
    facts = {
        name: record[name]
        for name in (
            "source",
            "position",
            "panel",
            "sentinel_id",
            "severity",
            "score",
            "rank",
            "p_value",
            "q_value",
        )
    }
    shown = {
        "mlflow.spanInputs": {"conversation": format_code_block(asked)},
        "mlflow.spanOutputs": answers,
    }
    attributes = {
        "mlflow.traceRequestId": row.trace,
        "mlflow.spanType": "UNKNOWN",
        **shown,
        **facts,
    }
    digits, now = bytes.fromhex(row.trace.removeprefix("tr-")), time.time_ns()
    return Span.from_dict(
        {
            "trace_id": base64.b64encode(digits).decode(),
            "span_id": base64.b64encode(digits[:8]).decode(),
            "parent_span_id": None,
            "name": "flagged row",
            "start_time_unix_nano": now,
            "end_time_unix_nano": now,
            "events": [],
            "status": {"code": "STATUS_CODE_OK", "message": ""},
            "attributes": {name: json.dumps(value) for name, value in attributes.items()},
        }
    )


def take_answers(
    client: TracingClient,
    experiment_id: str,
    ledger: Ledger,
    config: AuditConfig,
    known: dict[str, str | None],
) -> int:
    queue_id = _find_queue(client, experiment_id, config)
    if queue_id is None:
        return 0
    taken = 0
    for some in batched(
        (trace for trace in _list_completed(client, queue_id) if trace in known), ITEMS_PER_REQUEST
    ):
        for info in client.store.batch_get_trace_infos(some):
            answer = _read_answer(info)
            if answer is not None and answer.id != known[info.trace_id]:
                taken += record_answer(ledger, info.trace_id, answer)
    return taken


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
    given = [
        said
        for said in info.assessments
        if isinstance(said, Feedback)
        and said.name == QUESTION
        and said.source.source_type == "HUMAN"
        and said.value in VERDICTS
    ]
    if not given:
        return None
    said = max(given, key=lambda feedback: feedback.last_update_time_ms or 0)
    at = int(said.last_update_time_ms or 0)
    author = excerpt(said.source.source_id or "mlflow", 200)
    return ReviewAnswer(
        f"{said.assessment_id}:{at}",
        str(said.value),
        make_visible(said.rationale or "")[:LONGEST_REVIEW_NOTE],
        author,
        at,
    )
