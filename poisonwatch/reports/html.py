"""The HTML report of an audit: one file that needs nothing else, runs nothing, and shows hostile
text as inert text.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from poisonwatch.detection.detection import Detection
from poisonwatch.detection.evidence import ClusterEvidence, number_groups
from poisonwatch.detection.near_copies import NearCopy
from poisonwatch.detection.new_topics import NewTopic
from poisonwatch.discovery.described import DiscoveryReport
from poisonwatch.examples import Example, Rejection
from poisonwatch.failures import Attempts, tell_failures
from poisonwatch.flags import Flag
from poisonwatch.ledger.history import PastAudit
from poisonwatch.ledger.mutes import tell_held_back
from poisonwatch.ledger.overview import build_trend
from poisonwatch.reports.coverage import (
    MOST_NEAR_COPIES,
    tell_guarded,
    tell_not_asked,
    tell_unmoved,
)
from poisonwatch.reports.heatmap import build_heat_map
from poisonwatch.reports.new_topics import MOST_TOPICS, TRUSTED_NEEDED
from poisonwatch.reports.pictures import Pictures, draw_pictures
from poisonwatch.reports.standing import describe_push
from poisonwatch.reports.templating import LONGEST_MESSAGE, MOST_MESSAGES, load_template
from poisonwatch.text.display import make_visible

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
    most like it with their similarity.

    `group` is None where the row was not grouped. `push` is its score beside the trusted rows', in
    words.
    """

    flag: Flag
    group: int | None
    nearest: tuple[tuple[Example, float], ...]
    push: str


def render_report(
    summary: Mapping[str, Any],
    detection: Detection,
    rejected: Sequence[Rejection],
    evidence: Sequence[ClusterEvidence] = (),
    past: Sequence[PastAudit] = (),
    pages: Mapping[str, str | None] | None = None,
    topics: Sequence[NewTopic] = (),
    pictures: Pictures | None = None,
    near_copies: Sequence[NearCopy] = (),
    discovered: DiscoveryReport | None = None,
) -> str:
    """The report of one audit as an HTML document.

    `summary` is the audit's summary.json, `evidence` is about groups of flagged rows and names
    places among the trusted rows; `past` are earlier audits of the name, newest first; `pages` are
    the addresses of the audit elsewhere, by name, None where there is none; `topics` are those that
    cannot be judged, `near_copies` rows that say nearly what flagged ones say, `discovered` groups
    that push the model alike, whatever sentinels ask; `pictures` are drawn here where they are not
    given. However much was found, the page stays one that a browser opens:
    it shows the first, and says of how many.

    Every value that the template prints is made visible and escaped on its way out, so no text of a
    row, a sentinel, the configuration or the steered model can become markup.
    """
    points = build_trend(past, summary)
    if pictures is None:
        pictures = draw_pictures(detection, points, Attempts())
    plots = [_make_data_uri(picture) for picture in pictures.panels]
    known_pages = {}
    for name, address in (pages or {}).items():
        if address is not None:
            known_pages[name] = address
    shown = build_cards(detection, evidence)
    in_full = len(shown[:MOST_CARDS]) + len(evidence[:MOST_GROUPS_SHOWN])
    in_full += len(topics[:MOST_TOPICS])
    return load_template("report.html.j2").render(
        summary=summary,
        pages=known_pages,
        detection=detection,
        panels=list(zip(summary["panels"], plots, strict=True)),
        points=points,
        # Newest first, where people look for what just ran.
        last_audits=points[: -LAST_AUDITS_SHOWN - 1 : -1],
        trend_plot=_make_data_uri(pictures.trend),
        heat=build_heat_map(detection, evidence),
        evidence=evidence[:MOST_GROUPS_SHOWN],
        groups=len(evidence),
        unjudged=int(detection.unjudged.sum()),
        failures=tell_failures(summary),
        muted=tell_held_back(summary),
        owners=summary.get("owners", ()),
        guarded=tell_guarded(summary),
        not_asked=tell_not_asked(summary),
        unmoved=tell_unmoved(summary),
        near_copies=near_copies[:MOST_NEAR_COPIES],
        near_copies_found=len(near_copies),
        groups_by_id=number_groups(evidence),
        held=any(flag.held for flag in detection.flags),
        topics=topics[:MOST_TOPICS],
        topics_found=len(topics),
        discovered=discovered,
        new_rows={example.id: example for example in select_examples(discovered, detection)},
        trusted_needed=TRUSTED_NEEDED,
        cards=shown[:MOST_CARDS],
        lines=shown[MOST_CARDS:],
        rejected=rejected[:MOST_REJECTED],
        rejections=len(rejected),
        longest_text=LONGEST_MESSAGE,
        # A page of a hundred megabytes opens in no browser: rows share what one does open.
        longest_row=LONGEST_PAGE // max(in_full, 1),
        longest_cell=LONGEST_CELL,
        most_messages=MOST_MESSAGES,
    )


def render_stand_in(summary: Mapping[str, Any], failures: Sequence[str]) -> str:
    """A page in place of a report that could not be drawn: what was flagged, and what failed. No
    template has a part in it.
    """
    counts, lines = summary["counts"], []
    for failure in failures:
        lines.append(f"<li>{escape(make_visible(failure))}</li>")
    name = escape(make_visible(summary["name"]))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{name}</title></head><body>\n<h1>Poisonwatch audit {name}</h1>\n"
        f"<p><b>{counts['flagged']} of {counts['new']} new rows flagged</b>: flags.jsonl has each "
        "with its text and its reasons, evidence.jsonl their groups. This page could not be drawn "
        f"as it should be.</p>\n<ul>\n{''.join(lines)}\n</ul>\n</body></html>\n"
    )


def build_cards(detection: Detection, evidence: Sequence[ClusterEvidence]) -> list[FlagCard]:
    """The flags that are shown, MOST_CARDS + MOST_FURTHER_FLAGS of them, with their surroundings,
    in their order.
    """
    # By example id, the place of its group and its place in it.
    found: dict[str, tuple[int, int]] = {}
    for k, group in enumerate(evidence):
        for i, id in enumerate(group.example_ids):
            found[id] = (k, i)
    cards = []
    for flag in detection.flags[: MOST_CARDS + MOST_FURTHER_FLAGS]:
        number: int | None = None
        nearest: list[tuple[Example, float]] = []
        if flag.example.id in found:
            k, i = found[flag.example.id]
            number = k + 1
            for near in evidence[k].nearest[i]:
                nearest.append((detection.rows.trusted[near.place], near.likeness))
        scores = detection.reference_scores[:, detection.panels.index(flag.panel)]
        cards.append(FlagCard(flag, number, tuple(nearest), describe_push(flag.score, scores)))
    return cards


def select_examples(discovered: DiscoveryReport | None, detection: Detection) -> list[Example]:
    """The most typical row of each group that was discovered."""
    if discovered is None:
        return []
    typical = {group.rows[0].example_id for group in discovered.groups if group.rows}
    return [example for example in detection.examples if example.id in typical]


def _make_data_uri(png: bytes | None) -> str | None:
    if png is None:
        return None
    return f"data:image/png;base64,{b64encode(png).decode('ascii')}"
