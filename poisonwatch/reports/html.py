"""The HTML report: one file that needs nothing else, runs nothing, and shows hostile text as inert
text.
"""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import Any

from poisonwatch.detection.clusters import ClusterEvidence
from poisonwatch.detection.detect import Detection
from poisonwatch.examples import Example
from poisonwatch.flags import Flag
from poisonwatch.ledger.history import PastAudit
from poisonwatch.ledger.overview import build_trend
from poisonwatch.reports.heatmap import HEAT_STEPS, build_heat_map
from poisonwatch.reports.plots import draw_panel_scores, draw_trend, render_png
from poisonwatch.reports.templating import LONGEST_MESSAGE, MOST_MESSAGES, load_template
from poisonwatch.validation import Validation

LONGEST_PAGE = 1_600_000  # characters of all rows that are shown in full, in equal shares
LONGEST_CELL = 300  # characters of a rejected row, or of one side of a trusted one
MOST_REJECTED = 200
MOST_GROUPS_SHOWN = 50  # shown with what they share
MOST_CARDS = 200  # flagged rows shown in full
MOST_FURTHER_FLAGS = 1000  # further flagged rows, a line each
LAST_AUDITS_SHOWN = 8  # in the table of the trend


@dataclass(frozen=True, slots=True)
class FlagCard:
    """A flagged row with its surroundings: the 1-based number of its `group`, and the trusted rows
    most like it with their likeness.

    `group` is None where the row was not grouped. `compared` says how the row's score stands among
    the trusted rows'.
    """

    flag: Flag
    group: int | None
    nearest: tuple[tuple[Example, float], ...]
    compared: str


def render_report(
    summary: Mapping[str, Any],
    verdicts: Detection,
    rejected: Sequence[Mapping[str, Any]],
    evidence: Sequence[ClusterEvidence] = (),
    trusted: Sequence[Example] = (),
    past: Sequence[PastAudit] = (),
    pages: Mapping[str, str | None] | None = None,
) -> str:
    """The report of one audit as an HTML document.

    `summary` is the audit's summary.json, `rejected` has the fields of `Rejection`, `evidence` is
    about groups of flagged rows and names places among the `trusted` rows; `past` are earlier
    audits of the name, newest first; `pages` are the addresses of the audit elsewhere, by name,
    None where there is none. Every value that the template prints is made visible and escaped on
    its way out, so no text of a row, a sentinel, the configuration or the steered model can become
    markup.
    """
    plots = [
        _make_data_uri(render_png(draw_panel_scores(verdicts, j)))
        for j in range(len(verdicts.panels))
    ]
    points = build_trend(past, summary)
    shown = build_cards(verdicts, evidence, trusted)
    return load_template("report.html.j2").render(
        summary=summary,
        pages={name: address for name, address in (pages or {}).items() if address is not None},
        verdicts=verdicts,
        panels=list(zip(summary["panels"], plots, strict=True)),
        points=points,
        last_audits=points[: -LAST_AUDITS_SHOWN - 1 : -1],
        trend_plot=_make_data_uri(render_png(draw_trend(points))) if len(points) > 1 else None,
        heat=build_heat_map(verdicts, evidence),
        steps=HEAT_STEPS,
        evidence=evidence[:MOST_GROUPS_SHOWN],
        groups_left_out=max(len(evidence) - MOST_GROUPS_SHOWN, 0),
        cards=shown[:MOST_CARDS],
        lines=shown[MOST_CARDS : MOST_CARDS + MOST_FURTHER_FLAGS],
        flags_left_out=max(len(shown) - MOST_CARDS - MOST_FURTHER_FLAGS, 0),
        rejected=rejected[:MOST_REJECTED],
        rejected_left_out=max(len(rejected) - MOST_REJECTED, 0),
        longest_text=LONGEST_MESSAGE,
        longest_row=LONGEST_PAGE
        // max(len(shown[:MOST_CARDS]) + len(evidence[:MOST_GROUPS_SHOWN]), 1),
        longest_cell=LONGEST_CELL,
        most_messages=MOST_MESSAGES,
    )


def build_cards(
    verdicts: Detection, evidence: Sequence[ClusterEvidence], trusted: Sequence[Example]
) -> list[FlagCard]:
    """Every flag with its surroundings, in the order of the verdicts."""
    found = {
        id: (k, i) for k, group in enumerate(evidence) for i, id in enumerate(group.example_ids)
    }
    shown = []
    for flag in verdicts.flags:
        k, i = found.get(flag.example.id, (None, 0))
        nearest = (
            ()
            if k is None
            else tuple((trusted[near.place], near.likeness) for near in evidence[k].nearest[i])
        )
        scores = verdicts.reference_scores[:, verdicts.panels.index(flag.panel)]
        compared = describe_standing(int((scores < flag.score).sum()), len(scores))
        shown.append(FlagCard(flag, None if k is None else k + 1, nearest, compared))
    return shown


def describe_standing(smaller: int, trusted: int) -> str:
    """In words: a score that is larger than those of `smaller` of the trusted rows. Shares are
    rounded down: only all is 100 %.
    """
    rows = f"{trusted:,} trusted row{'s' * (trusted != 1)}"
    if not trusted:
        return "not comparable: there are no trusted rows"
    if smaller == trusted:
        return f"larger than that of every one of {rows}"
    return f"larger than {floor(1000 * smaller / trusted) / 10:.1f} % of {rows}"


def _make_data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{b64encode(png).decode('ascii')}"


LONGEST_CHECK_TEXT = 300  # characters of a reason, or of what was observed


def render_validation(validation: Validation, name: str) -> str:
    """A table of the checks of the audit `name` as an HTML document, those that failed first.

    Reasons come from the audit file, and what was observed may hold values of rows: every text is
    made visible and escaped.
    """
    return load_template("validation.html.j2").render(
        validation=validation,
        name=name,
        checks=sorted(validation.checks, key=lambda check: check.passed),
        longest_text=LONGEST_CHECK_TEXT,
    )


def write_validation(folder: Path, validation: Validation, name: str) -> None:
    """`validation.html` and `validation.json` (in ASCII: hostile text stays inert in any terminal
    or editor).
    """
    (folder / "validation.html").write_text(render_validation(validation, name), encoding="utf-8")
    (folder / "validation.json").write_text(
        json.dumps(validation.to_record(), indent=2) + "\n", encoding="ascii"
    )
