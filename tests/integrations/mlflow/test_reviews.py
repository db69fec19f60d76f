"""Review in MLflow, on a real store: rows go up, answers come back."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from audits import benign, write_rows
from ledgers import NAME, append, cover, pull, sqlite_ledger
from reviewing import Reviewer, configured
from servers import mlflow_server, mlflow_store
from sqlalchemy import update

from poisonwatch.config import AuditConfig
from poisonwatch.flows.audit import audit_inline
from poisonwatch.integrations.mlflow.owed import queue_undecided, take_answers
from poisonwatch.integrations.mlflow.reviews import MOST_QUEUED
from poisonwatch.ledger.decisions import read_decisions, record_decision
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.reviews import list_review_traces
from poisonwatch.ledger.tables import flags

MARKUP = "<img src=x onerror=alert(1)> [click](javascript:alert(1)) {{7*7}}"


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


def decided(config: AuditConfig) -> list[tuple[str, str, str]]:
    with Ledger.at(config.state) as ledger:
        return [(made.verdict, made.note, made.author) for made in read_decisions(ledger)]


@contextmanager
def queued(folder: Path) -> Iterator[tuple[Ledger, AuditConfig, Reviewer]]:
    """Three rows, flagged without a model, of which the one about bread scores highest, and the one
    about tea lowest; they wait in the queue.
    """
    rows = benign(3)
    write_rows(folder / "rows.jsonl", rows)
    config = AuditConfig(
        name=NAME,
        source={"path": "x"},
        sentinels=["s"],
        tracking=mlflow_store(folder / "tracking"),
    )
    with sqlite_ledger(folder) as ledger:
        pull(ledger, folder)
        cover(ledger, folder / "run", flagged=[row["prompt"] for row in rows])
        with ledger.write() as connection:
            for score, word in ((5.0, "tea"), (9.0, "bread"), (7.0, "rivers")):
                about = flags.c.record.contains(f"about {word}")
                connection.execute(update(flags).where(about).values(score=score))
        assert queue_undecided(ledger, config) == len(rows)
        yield ledger, config, Reviewer(config)


def list_items(reviewer: Reviewer) -> list[tuple[str, str, str | None]]:
    """The items as the review page orders them, newest trace first: what each is about, its status,
    who completed it.
    """
    shown = []
    for item in reviewer.client._list_review_queue_items(reviewer.queues()[0]):
        trace = reviewer.client.get_trace_info(item.item_id)
        word = trace.request_preview.strip().removesuffix(".").rpartition(" ")[2]
        shown.append((trace.request_time, (word, str(item.status), item.completed_by)))
    return [about for _, about in sorted(shown, reverse=True)]


def test_the_strongest_row_stands_on_top(tmp_path: Path) -> None:
    """The review page shows the newest trace first."""
    with queued(tmp_path) as (_, _, reviewer):
        assert [word for word, _, _ in list_items(reviewer)] == ["bread", "rivers", "tea"]


def test_what_was_decided_elsewhere_is_completed(tmp_path: Path) -> None:
    """By whoever decided; opened again when that is taken back. An item that somebody took out of
    the queue keeps nothing from it.
    """
    with queued(tmp_path) as (ledger, config, reviewer):
        traces = [reviewer.client.get_trace_info(item) for item in reviewer.items()]
        traces.sort(key=lambda trace: -trace.request_time)
        ids = {trace.trace_id: trace.tags["poisonwatch.example_id"] for trace in traces}
        first, _, last = ids
        reviewer.client._remove_items_from_review_queue(reviewer.queues()[0], item_ids=[last])
        record_decision(ledger, ids[last], "poison", author="bob")
        record_decision(ledger, ids[first], "poison", author="Bob")
        assert queue_undecided(ledger, config) == 0
        assert list_items(reviewer) == [("bread", "complete", "bob"), ("rivers", "pending", None)]
        assert take_answers(ledger, config) == 0
        record_decision(ledger, ids[first], "unsure", author="bob")
        assert queue_undecided(ledger, config) == 0
        assert list_items(reviewer)[0] == ("bread", "pending", None)
        reviewer.say(first, "benign")
        assert take_answers(ledger, config) == 1


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
    assert len(reviewer.items()) == len(outcome.detection.flags)
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
        assert take_answers(ledger, config) == 0
        reviewer.say(first, "benign", "on second thoughts")
        assert take_answers(ledger, config) == 1
    assert [made[0] for made in decided(config)] == ["poison", "benign"]
    assert len(reviewer.queues()) == 1


def test_what_a_crash_left_is_done_again_and_is_the_same(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that were logged and queued but not entered give no second trace, item, queue or
    finding.
    """
    config = configured(tmp_path, tiny_folder, review=False)
    outcome = audit_inline(config, tmp_path / "run")
    flagged = len(outcome.detection.flags)
    config = config.model_copy(update={"review": True})

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with Ledger.at(config.state) as ledger:
        with monkeypatch.context() as patched:
            patched.setattr("poisonwatch.integrations.mlflow.reviews.add_review", die)
            with pytest.raises(KeyboardInterrupt):
                queue_undecided(ledger, config)
        assert list_review_traces(ledger, "tiny") == {}
        assert queue_undecided(ledger, config) == flagged
        assert queue_undecided(ledger, config) == 0
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
    assert audit_inline(quiet, tmp_path / "a").detection.flags == ()
    assert Reviewer(quiet).queues() == []
    off = configured(tmp_path / "off", tiny_folder, review=False)
    assert audit_inline(off, tmp_path / "b").detection.flags
    assert Reviewer(off).queues() == []


def test_a_server_that_knows_no_queues_is_said_to_be_too_old(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """In one line, with what to do."""
    with mlflow_server(tmp_path / "server") as url, older(url) as old:
        config = configured(tmp_path, tiny_folder, tracking=old)
        outcome = audit_inline(config, tmp_path / "run")
    assert outcome.detection.flags
    (trouble,) = outcome.warnings
    assert (
        trouble
        == f"MLflow at {old} has no review queues: upgrade it to 3.14 or later, or set `review: false`"
    )
