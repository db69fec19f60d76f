"""A flagged row as an MLflow trace: what a person sees of it on the review page.

Row text is hostile, and MLflow renders Markdown, of previews too on the review page: texts go up
as code blocks. Lists show previews as they are, on one line: there a block is made by its indent,
which nobody sees, and follows words of ours, since an indent at the start may be trimmed away.
"""

import base64
import json
import re
import textwrap
import time
from typing import Any

from mlflow.entities import AssessmentSource, Feedback, Span, TraceInfo, TraceLocation, TraceState

from poisonwatch.flags import LOWERED, label_turn, read_flagged_example
from poisonwatch.ledger.reviews import ReviewCandidate
from poisonwatch.text.display import make_visible, to_plain_name

FINDING = "poisonwatch"  # the name of the assessment that says why a row is flagged
FACTS_SHOWN = (
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
LONGEST_PREVIEW = 1000  # characters that MLflow has room for; its PostgreSQL refuses more
LONGEST_PANEL = 80  # characters
INDENT = " " * 4  # makes a code block of lines
LINE_WIDTH = 72  # characters of a line: the review page does not break them


def build_trace(
    experiment_id: str, row: ReviewCandidate, at_ms: int, page: str | None
) -> TraceInfo:
    """A flagged row as a trace of a time (milliseconds since 1970): what the review page shows of
    it at once, and our finding. `page` is that of its group in the dashboard, if it is known.
    """
    question, answer, reasons = _split_texts(row)
    # The reasons have a third of the room: a long answer cannot push them out of sight.
    explained = "\n\n" + _format_preview("Why it is flagged:", reasons, LONGEST_PREVIEW // 3)
    if page is not None:
        explained += f"\n\n[Its group in the dashboard]({page})"
    answered = _format_preview("Answer:", answer, LONGEST_PREVIEW - len(explained))
    metadata = {"mlflow.trace_schema.version": "3"}
    if row.run_id:
        metadata["mlflow.sourceRun"] = row.run_id
    return TraceInfo(
        trace_id=row.trace,
        trace_location=TraceLocation.from_experiment_id(experiment_id),
        request_time=at_ms,
        state=TraceState.OK,
        execution_duration=0,
        request_preview=_format_preview(_describe_flag(row), question, LONGEST_PREVIEW),
        response_preview=answered + explained,
        tags={
            "mlflow.traceName": "flagged row",
            "poisonwatch.audit_id": row.audit_id,
            "poisonwatch.example_id": row.record["example_id"],
            "poisonwatch.panel": row.record["panel"],
            "poisonwatch.severity": row.record["severity"],
        },
        trace_metadata=metadata,
        assessments=[_build_finding(row, reasons)],
    )


def build_span(row: ReviewCandidate) -> Span:
    """The only span of a row's trace: the whole row."""
    # Its ids are the trace's own: logged again after a crash, it is the same span.
    digits, now = bytes.fromhex(row.trace.removeprefix("tr-")), time.time_ns()
    attributes = _build_attributes(row)
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


def format_code_block(text: str) -> str:
    """Text as a code block: MLflow's pages render Markdown, and would follow a row's links, and
    load its pictures.
    """
    # A fence ends at the first run of backticks as long as itself.
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, 1 + longest)
    return "\n".join([fence, *_wrap_lines(text), fence])


def _wrap_lines(text: str) -> list[str]:
    """The lines of a text as they are shown."""
    lines = []
    for line in make_visible(text).split("\n"):
        # An empty line wraps to no line at all.
        lines += textwrap.wrap(line, LINE_WIDTH, drop_whitespace=False) or [""]
    return lines


def _build_finding(row: ReviewCandidate, reasons: str) -> Feedback:
    finding = Feedback(
        name=FINDING,
        value="flagged",
        rationale=format_code_block(reasons),
        source=AssessmentSource(source_type="CODE", source_id=FINDING),
        trace_id=row.trace,
    )
    # Logged again, it is the same finding.
    finding.assessment_id = f"a-{row.trace.removeprefix('tr-')}"
    return finding


def _build_attributes(row: ReviewCandidate) -> dict[str, Any]:
    """The row's texts in full, and the numbers that it was flagged for."""
    question, answer, reasons = _split_texts(row)
    why = _format_reason(format_code_block(reasons))
    name = "answer"
    if row.record.get("lowered"):
        name = f"answer, {LOWERED}"
    answers = {name: format_code_block(answer) + why}
    if row.record.get("rejected"):
        rejected = row.record["rejected"][-1]["content"]
        answers["rejected answer"] = format_code_block(rejected)
    attributes: dict[str, Any] = {
        "mlflow.traceRequestId": row.trace,
        "mlflow.spanType": "UNKNOWN",
        "mlflow.spanInputs": {"conversation": format_code_block(question)},
        "mlflow.spanOutputs": answers,
    }
    for name in FACTS_SHOWN:
        attributes[name] = row.record[name]
    return attributes


def _split_texts(row: ReviewCandidate) -> tuple[str, str, str]:
    """What is asked, what is answered, and why the row is flagged."""
    *before, last = read_flagged_example(row.record).messages
    lowered = row.record.get("lowered", False)
    question = "\n\n".join(f"{label_turn(turn, lowered)}: {turn.content}" for turn in before)
    return question, last.content, "\n".join(row.record["reasons"])


def _format_reason(block: str) -> str:
    return f"\n\nWhy it is flagged:\n\n{block}"


def _describe_flag(row: ReviewCandidate) -> str:
    """What a list shows of a row first: its severity, score and panel, in plain words."""
    record = row.record
    panel = to_plain_name(record["panel"])[:LONGEST_PANEL]
    return f"{record['severity']}, {record['score']:.1f} on {panel}:"


def _format_preview(words: str, text: str, room: int) -> str:
    """Words of ours, and below them as much of a text as fits into `room` characters with them, as
    a code block; the rest is a click away.
    """
    length, preview = len(text), f"{words}\n\n{_indent_block(text)}"
    # What a character takes up is known once it is formatted only: hidden characters are spelled
    # out, lines are broken and indented.
    while len(preview) > room:
        length = min(room, length * 3 // 4)
        preview = f"{words}\n\n{_indent_block(f'{text[:length]} ...')}"
    return preview


def _indent_block(text: str) -> str:
    """Text as a code block of Markdown that has no fence: every line is indented, and so none ends
    it.
    """
    return "\n".join(INDENT + line for line in _wrap_lines(text))
