"""What the review page shows of a row."""

from pathlib import Path
from typing import Any

import pytest
from audits import benign, write_rows
from ledgers import NAME, cover, pull, sqlite_ledger
from markdown_it import MarkdownIt
from reviewing import Reviewer, configured
from servers import mlflow_store

from poisonwatch.config import AuditConfig
from poisonwatch.flows.audit import audit_inline
from poisonwatch.integrations.mlflow.owed import queue_undecided
from poisonwatch.integrations.mlflow.review_traces import format_code_block

MARKUP = "<img src=x onerror=alert(1)> [click](javascript:alert(1)) {{7*7}}"


def list_plain_lines(preview: str) -> set[str]:
    """The lines that a page takes for Markdown: all others are in code blocks."""
    lines: set[str] = set()
    for token in MarkdownIt().parse(preview):
        assert token.type in {"paragraph_open", "inline", "paragraph_close", "code_block"}
        if token.type == "inline":
            lines.add(token.content)
    return lines


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
    hostile = ["\u200b" * 900, "`" * 5_000, "\n" * 2_000 + "end", "word " * 9_000, "\x00\x1b[2J"]
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
        dashboard="https://audits.example.org",
    )
    with sqlite_ledger(tmp_path) as ledger:
        pull(ledger, tmp_path)
        cover(ledger, tmp_path / "run", flagged=[*(row["prompt"] for row in rows), "Which?"])
        assert queue_undecided(ledger, config) == len(hostile) + 1
        reviewer = Reviewer(config)
        traces = [reviewer.client.get_trace(item) for item in reviewer.items()]
        ours: set[str] = set()
        for info in (trace.info for trace in traces):
            assert len(info.request_preview) <= 1000
            assert len(info.response_preview) <= 1000
            assert "shop-1: score 9.0" in info.response_preview
            ours |= list_plain_lines(info.request_preview) | list_plain_lines(info.response_preview)
        links = {line for line in ours if line.startswith("[Its group in the dashboard](")}
        assert all("(https://audits.example.org/triage/run/" in link for link in links)
        assert ours - links == {"medium, 9.0 on shop:", "Answer:", "Why it is flagged:"}
        (preferred,) = [
            trace.data.spans[0].outputs
            for trace in traces
            if "rejected answer" in trace.data.spans[0].outputs
        ]
        assert "This." in preferred["answer"]
        assert preferred["rejected answer"] == "```\nNot *this*.\n```"
        reviewer.client._delete_review_queue(reviewer.queues()[0])
        assert queue_undecided(ledger, config) == len(hostile) + 1
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
