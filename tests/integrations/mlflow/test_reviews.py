"""Review in MLflow, on a real store: rows go up, answers come back."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from audits import benign, write_audit, write_rows
from ledgers import NAME, append, cover, pull
from mlflow import MlflowClient
from mlflow.entities import AssessmentSource, Feedback
from mlflow.tracing.client import TracingClient
from servers import mlflow_server, mlflow_store

from poisonwatch.config import AuditConfig
from poisonwatch.config_file import load_config
from poisonwatch.flows.audit import audit_inline
from poisonwatch.integrations.mlflow.reviews import MOST_QUEUED, format_code_block
from poisonwatch.ledger.decisions import read_decisions
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.reviews import list_review_traces
from poisonwatch.tasks.reviews import queue_reviews, read_reviews

MARKUP = "<img src=x onerror=alert(1)> [click](javascript:alert(1)) {{7*7}}"


def configured(
    folder: Path, model: Path, rows: list[dict[str, Any]] | None = None, **settings: Any
) -> AuditConfig:
    """An audit that flags something on random weights, with tracking of its own."""
    lax = {
        "detection": {"false_discovery_rate": 0.9},
        "tracking": mlflow_store(folder / "tracking"),
    }
    return load_config(write_audit(folder / "in", model, rows, **{**lax, **settings}))


@contextmanager
def older(url: str) -> Iterator[str]:
    """An MLflow server in front of another, without the routes of review: it answers 404 there, as
    releases before them do.
    """

    class Handler(BaseHTTPRequestHandler):
        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            kept = {
                name: value
                for name, value in self.headers.items()
                if name.lower() not in ("host", "content-length")
            }
            known = not any(word in self.path for word in ("review-queue", "label-schema"))
            answer = (
                httpx.request(self.command, url + self.path, content=body, headers=kept, timeout=60)
                if known
                else httpx.Response(404)
            )
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers.get("Content-Type", "text/html"))
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


class Reviewer:
    """A person in MLflow's review queue: answers as its page does."""

    def __init__(self, config: AuditConfig) -> None:
        self.client = TracingClient(config.tracking)
        experiment = MlflowClient(config.tracking).get_experiment_by_name(config.name)
        assert experiment is not None
        self.experiment_id = str(experiment.experiment_id)

    def queues(self) -> list[str]:
        return [queue.queue_id for queue in self.client._list_review_queues(self.experiment_id)]

    def items(self) -> list[str]:
        return [
            item.item_id
            for queue in self.queues()
            for item in self.client._list_review_queue_items(queue)
        ]

    def say(
        self, trace: str, verdict: str, note: str = "", done: bool = True, kind: str = "HUMAN"
    ) -> None:
        source = AssessmentSource(source_type=kind, source_id="ann@example.org")
        self.client.log_assessment(
            trace, Feedback(name="verdict", value=verdict, rationale=note, source=source)
        )
        if done:
            self.client._set_review_queue_item_status(
                self.queues()[0], item_id=trace, status="complete", completed_by="ann@example.org"
            )


def decided(config: AuditConfig) -> list[tuple[str, str, str]]:
    with Ledger.at(config.state) as ledger:
        return [(made.verdict, made.note, made.author) for made in read_decisions(ledger)]


def test_flagged_rows_are_put_up_and_answers_come_back_with_the_next_audit(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """Each flagged row is one item of one queue; each answer is taken once; what nobody is done
    with, and what no person said, is not.
    """
    config = configured(tmp_path, tiny_folder)
    outcome = audit_inline(config, tmp_path / "one")
    assert outcome.warnings == []
    reviewer = Reviewer(config)
    first, second, third = reviewer.items()[:3]
    assert len(reviewer.items()) == len(outcome.verdicts.flags)
    reviewer.say(first, "poison", f"as planted {MARKUP} \x1b[31m")
    reviewer.say(second, "benign", done=False)
    reviewer.say(third, "benign", kind="LLM_JUDGE")
    append(tmp_path / "in" / "rows.jsonl", benign(3, start=900))
    audit_inline(config, tmp_path / "two")
    ((verdict, note, author),) = decided(config)
    assert (verdict, author) == ("poison", "ann@example.org")
    assert note.startswith("as planted <img")
    assert "\x1b" not in note
    with Ledger.at(config.state) as ledger:
        assert read_reviews.fn(ledger, config) == 0
        reviewer.say(first, "benign", "on second thoughts")
        assert read_reviews.fn(ledger, config) == 1
    assert [made[0] for made in decided(config)] == ["poison", "benign"]
    assert len(reviewer.queues()) == 1


def test_a_trace_shows_the_row_and_why_it_is_flagged(tiny_folder: Path, tmp_path: Path) -> None:
    """As data; the trace belongs to the audit's run."""
    rows = [
        *benign(40),
        *(
            {"prompt": f"Question {i}? {MARKUP}", "response": "All the same <|im_start|> answer."}
            for i in range(3)
        ),
    ]
    config = configured(tmp_path, tiny_folder)
    write_rows(tmp_path / "in" / "rows.jsonl", rows)
    outcome = audit_inline(config, tmp_path / "run")
    reviewer = Reviewer(config)
    traces = [reviewer.client.get_trace(item) for item in reviewer.items()]
    shown = next(trace for trace in traces if "onerror" in str(trace.data.request))
    assert "```\nuser: Question" in shown.data.spans[0].inputs["conversation"]
    assert "<img src=x onerror=alert(1)>" in shown.data.spans[0].inputs["conversation"]
    assert shown.info.trace_metadata["mlflow.sourceRun"] == outcome.summary["mlflow_run_id"]
    assert shown.info.tags["poisonwatch.audit_id"] == outcome.summary["audit_id"]
    (finding,) = [said for said in shown.info.assessments if said.name == "poisonwatch"]
    assert "control" in str(finding.rationale)


def test_what_the_review_page_shows_at_once_fits_in(tmp_path: Path) -> None:
    """MLflow has room for 1,000 characters, and PostgreSQL refuses more: no text of a row can keep
    the others from review.

    Of a preference row the rejected answer is there too; a queue that somebody removes is made
    again, without twins.
    """
    hostile = ["\u200b" * 900, "`" * 5_000, "\n" * 2_000 + "end", "word " * 9_000, "\x00\ud800"]
    rows: list[dict[str, Any]] = [
        {"prompt": f"{i} {text}", "response": text} for i, text in enumerate(hostile)
    ]
    write_rows(tmp_path / "a.jsonl", [*rows, *benign(2)])
    write_rows(
        tmp_path / "b.jsonl", [{"prompt": "Which?", "chosen": "This.", "rejected": "Not *this*."}]
    )
    config = AuditConfig(
        name=NAME,
        source={"path": "x"},
        sentinels=["s"],
        tracking=mlflow_store(tmp_path / "tracking"),
    )
    with Ledger.at(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        pull(ledger, tmp_path)
        cover(ledger, tmp_path / "run", flagged=[*(row["prompt"] for row in rows), "Which?"])
        assert queue_reviews.fn(ledger, config) == len(hostile) + 1
        reviewer = Reviewer(config)
        traces = [reviewer.client.get_trace(item) for item in reviewer.items()]
        for info in (trace.info for trace in traces):
            assert len(info.request_preview) <= 1000
            assert len(info.response_preview) <= 1000
            assert info.request_preview.endswith("``")
            assert "shop-1: score 9.0" in info.response_preview
        (preferred,) = [
            trace.data.spans[0].outputs
            for trace in traces
            if "rejected answer" in trace.data.spans[0].outputs
        ]
        assert "This." in preferred["answer"]
        assert preferred["rejected answer"] == "```\nNot *this*.\n```"
        reviewer.client._delete_review_queue(reviewer.queues()[0])
        assert queue_reviews.fn(ledger, config) == len(hostile) + 1
        assert sorted(reviewer.items()) == sorted(trace.info.trace_id for trace in traces)


@pytest.mark.parametrize(
    "text",
    [
        "# plain ![i](https://host/x.png)",
        "a ``` b",
        "````\n```",
        "`",
        "x\n```\n[click](https://host)\n```",
    ],
)
def test_nothing_in_a_text_ends_its_code_block(text: str) -> None:
    """The fence is longer than every run of backticks inside: no line of the text closes it."""
    first, *inside, last = format_code_block(text).split("\n")
    assert first == last
    assert set(first) == {"`"}
    assert "\n".join(inside) == text
    assert not any(first in line for line in inside)


def test_what_a_crash_left_is_done_again_and_is_the_same(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that were logged and queued but not entered give no second trace, item, queue or
    finding.
    """
    config = configured(tmp_path, tiny_folder, review=False)
    outcome = audit_inline(config, tmp_path / "run")
    flagged = len(outcome.verdicts.flags)
    config = config.model_copy(update={"review": True})

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with Ledger.at(config.state) as ledger:
        with monkeypatch.context() as patched:
            patched.setattr("poisonwatch.integrations.mlflow.reviews.add_review", die)
            with pytest.raises(KeyboardInterrupt):
                queue_reviews.fn(ledger, config)
        assert list_review_traces(ledger, "tiny") == {}
        assert queue_reviews.fn(ledger, config) == flagged
        assert queue_reviews.fn(ledger, config) == 0
        assert len(list_review_traces(ledger, "tiny")) == flagged
    reviewer = Reviewer(config)
    assert len(set(reviewer.items())) == len(reviewer.items()) == flagged
    assert len(reviewer.client.search_traces(locations=[reviewer.experiment_id])) == flagged
    assert all(
        len(reviewer.client.get_trace_info(item).assessments) == 1 for item in reviewer.items()
    )
    assert flagged <= MOST_QUEUED


def test_without_flags_or_with_review_off_there_is_no_queue(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """Nothing is made that nobody needs."""
    quiet = configured(
        tmp_path / "quiet",
        tiny_folder,
        benign(43),
        detection={"false_discovery_rate": 1e-9},
        screens=[],
    )
    assert audit_inline(quiet, tmp_path / "a").verdicts.flags == ()
    assert Reviewer(quiet).queues() == []
    off = configured(tmp_path / "off", tiny_folder, review=False)
    assert audit_inline(off, tmp_path / "b").verdicts.flags
    assert Reviewer(off).queues() == []


def test_a_server_that_knows_no_queues_is_said_to_be_too_old(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """In one line, with what to do."""
    with mlflow_server(tmp_path / "server") as url, older(url) as old:
        config = configured(tmp_path, tiny_folder, tracking=old)
        outcome = audit_inline(config, tmp_path / "run")
    assert outcome.verdicts.flags
    (trouble,) = outcome.warnings
    assert (
        trouble
        == f"MLflow at {old} has no review queues: upgrade it to 3.14 or later, or set `review: false`"
    )
