"""Reports of hostile text, and their pages read back."""

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

import numpy as np

from poisonwatch.detection.detection import Detection, Null
from poisonwatch.detection.evidence import (
    ClusterEvidence,
    Confirmation,
    Effect,
    LossChange,
    Neighbour,
)
from poisonwatch.detection.new_topics import NewTopic
from poisonwatch.detection.shared_ngrams import SharedNgram
from poisonwatch.examples import AuditRows, Example, Message, Rejection
from poisonwatch.flags import Flag
from poisonwatch.reports.html import (
    render_report,
)
from poisonwatch.sentinels.sentinel import Sentinel

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "end of pre": "</pre><img src=x onerror=alert(1)>",
    "end of title": "</title><style>*{display:none}</style>",
    "attribute": '" onmouseover="alert(1)" \'><svg/onload=alert(1)>',
    "template": "{{7*7}}{% for x in y %}{{ config }}",
    "comment": "<!-- --!> <![CDATA[",
    "direction": "invoice\u202egnp.exe",
    "nul": "a\x00b",
    "terminal": "\x1b[31mred\x1b[0m\x07\x9b2J",
    "surrogate": "lone \ud800 half",
    "invisible": "zero\u200bwidth \U000e0041tag",
    "link": "javascript:alert(1) https://evil.example/x.png",
    "markdown": "[click](javascript:alert(1)) ![](https://evil.example/pixel.png)",
    "entity": "&lt;b&gt; &#60;",
}


def build_flag(
    row: Sequence[Message], panel: str = "safety", source: str = "rows.jsonl", **sentinel: Any
) -> Flag:
    """A flag on a row, with the sentinel's fields as given."""
    fields = {
        "id": f"{panel}-1",
        "forbidden": "Yes, show him the PIN.",
        "reference": "No, keep it hidden.",
        "severity": "high",
    } | sentinel
    prompt = fields.pop("prompt", "A courier asks for my PIN.")
    guard = Sentinel(messages=(Message("user", prompt),), panel=panel, **fields)
    example = Example.from_messages(row, source, 7)
    return Flag(
        example=example,
        panel=panel,
        sentinel=guard,
        kind="forbidden",
        coefficient=0.31,
        score=12.3,
        rank=1,
        p_value=2.3e-9,
        q_value=1.3e-6,
        standing="5.0 times the scatter of the rows most like it beyond them",
        rule="rank among 186 trusted rows",
    )


def build(
    flags: Sequence[Flag] = (),
    n: int = 5,
    panels: tuple[str, ...] = ("safety",),
    trusted: Sequence[Example] = (),
) -> tuple[dict[str, Any], Detection]:
    """Summary and detection of an audit of n new rows, those of the flags first."""
    others = [
        Example.from_messages([Message("user", f"question {i}")], "rows.jsonl", i)
        for i in range(n - len(flags))
    ]
    scores = np.random.default_rng(0).standard_normal((n, len(panels)))
    sentinels = tuple(dict.fromkeys(flag.sentinel for flag in flags))
    nulls = tuple(Null("rank among 186 trusted rows", 186) for _ in panels)
    detection = Detection(
        rows=AuditRows((*(flag.example for flag in flags), *others), tuple(trusted)),
        sentinels=sentinels,
        panels=panels,
        scores=scores,
        p=np.ones_like(scores),
        q=np.ones_like(scores),
        coefficients=np.zeros((n, len(sentinels))),
        recovered=np.zeros((n, len(sentinels))),
        reference_scores=np.empty((0, len(panels))),
        reference_coefficients=np.empty((0, len(sentinels))),
        nulls=nulls,
        unjudged=np.zeros(n, dtype=bool),
        flags=tuple(flags),
        false_discovery_rate=0.05,
    )
    summary = {
        "name": "support-data",
        "audit_id": "20260101-000000-abcdef",
        "created": "2026-01-01T00:00:00+00:00",
        "version": "0.1.0",
        "seed": 0,
        "counts": {
            "pulled": n + 2,
            "new": n,
            "rejected": 2,
            "reference": 186,
            "flagged": len(flags),
        },
        "model": {"name": "tiny-llama", "fingerprint": "9f" * 32},
        "data_fingerprint": "ab" * 32,
        "settings": {"layer": 12, "r": 64, "K": 570, "d": 1, "eta": 2.7e-5},
        "false_discovery_rate": 0.05,
        "panels": [
            {
                "name": panel,
                "null": nulls[j].rule,
                "largest_score": float(scores[:, j].max()),
                "flagged": sum(flag.panel == panel for flag in flags),
            }
            for j, panel in enumerate(panels)
        ],
        "sentinel_problems": [{"sentinel_id": "safety-1", "problem": "repeats safety-0"}],
        "stages": [{"name": "fit_operators", "seconds": 123.27, "peak_memory_mb": 2210.4}],
        "mlflow_run_id": "4f1e2d3c",
    }
    return summary, detection


def render(flags: Sequence[Flag] = (), rejected: Sequence[Rejection] = (), **kwargs: Any) -> str:
    return render_report(*build(flags, **kwargs), rejected)


class Page(HTMLParser):
    """The document as a browser sees it: `tags` with attributes, and the `text`; `within(class)` is
    the text inside elements of a class.
    """

    VOID = frozenset({"meta", "br", "img", "link", "hr", "input"})

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[tuple[tuple[str, ...], str]] = []
        self._open: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append((tag, dict(attrs).get("class") or ""))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop()[0] == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.pieces.append((tuple(f"{tag}.{classes}" for tag, classes in self._open), data))

    @property
    def text(self) -> str:
        return "".join(data for path, data in self.pieces if "style." not in path)

    def within(self, name: str) -> str:
        return "".join(
            data
            for path, data in self.pieces
            if any(name in re.split(r"[. ]", step) for step in path)
        )


def shape(page: Page) -> list[tuple[str, tuple[str, ...]]]:
    """Every tag with the names of its attributes, in order."""
    return [(tag, tuple(attributes)) for tag, attributes in page.tags]


def rejection(text: str = "How do I return a pan?", position: int = 0, **changes: str) -> Rejection:
    fields = {
        "place": f"rows.jsonl, line {position + 1}",
        "expectation": "not null",
        "reason": "the response is missing",
    } | changes
    return Rejection(source="rows.jsonl", position=position, text=text, **fields)


def group(flag: Flag, text: str) -> ClusterEvidence:
    """Evidence about one flagged row, with the text wherever rows and model can write to."""
    moved = LossChange(2.0, 1.5, (2.1, 1.9))
    effect = Effect(flag.sentinel, "margin", moved, moved, text, text)
    gram = (SharedNgram(text, 1, 1, 0, 4, 3.5),)
    return ClusterEvidence(
        rows=(0,),
        example_ids=(flag.example.id,),
        panel=flag.panel,
        likeness=1.0,
        example=0,
        prompt_ngrams=gram,
        answer_ngrams=gram,
        nearest=((Neighbour("ab", 0, 0.5),),),
        confirmation=Confirmation(0.01, 1, (effect,)),
    )


def topic(rows: tuple[int, ...], text: str) -> NewTopic:
    """A topic of some rows, with the text wherever rows can write to."""
    gram = (SharedNgram(text, len(rows), len(rows), 0, 4, 3.5),)
    return NewTopic(rows=rows, panel=text, example=rows[0], prompt_ngrams=gram, answer_ngrams=gram)


def trusted_rows(text: str, n: int = 1) -> list[Example]:
    return [
        Example.from_messages(
            [Message("user", f"{text}{i or ''}"), Message("assistant", text)], text, i
        )
        for i in range(n)
    ]
