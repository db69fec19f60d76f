"""The HTML report: one file that needs nothing else, runs nothing, and shows hostile text as inert text."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from poisonwatch.evidence import ClusterEvidence
from poisonwatch.plots import as_png, panel_figure
from poisonwatch.redaction import visible
from poisonwatch.verdicts import Verdicts

LONGEST_TEXT = 4000  # characters of one message or answer
LONGEST_CELL = 300  # characters of a rejected row
MOST_MESSAGES = 24  # turns of one row
MOST_REJECTED = 200


def render_report(
    summary: Mapping[str, Any],
    verdicts: Verdicts,
    rejected: Sequence[Mapping[str, Any]],
    evidence: Sequence[ClusterEvidence] = (),
) -> str:
    """The report of one audit as an HTML document.

    `summary` is the audit's summary.json, `rejected` has the fields of `Rejection`, `evidence` is about groups of flagged rows. Every value
    that the template prints is made visible and escaped on its way out, so no text of a row, a sentinel, the configuration or the steered
    model can become markup.
    """
    plots = [_data_uri(as_png(panel_figure(verdicts, j))) for j in range(len(verdicts.panels))]
    return template("report.html.j2").render(
        summary=summary,
        verdicts=verdicts,
        panels=list(zip(summary["panels"], plots, strict=True)),
        evidence=evidence,
        rejected=rejected[:MOST_REJECTED],
        rejected_left_out=max(len(rejected) - MOST_REJECTED, 0),
        longest_text=LONGEST_TEXT,
        longest_cell=LONGEST_CELL,
        most_messages=MOST_MESSAGES,
    )


def template(name: str) -> Template:
    """A template of dashboards/: every value that it prints is made visible and escaped, and one that is not there is an error."""
    environment = Environment(
        # Found by folder: poisonwatch/dashboards is a symlink in a checkout and a sub-package in a wheel.
        loader=PackageLoader("poisonwatch", "dashboards"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["ends"] = ends
    return environment.get_template(name)


def ends(whole: Any, longest: int) -> tuple[Any, int, Any]:
    """A text or tuple as (start, how much is left out, end), start and end together at most `longest`.

    The end is kept, too: poison that follows thousands of harmless characters must still be seen.
    """
    if len(whole) <= longest:
        return whole, 0, whole[:0]
    tail = longest // 4
    return whole[: longest - tail], len(whole) - longest, whole[-tail:]


def _shown(value: Any) -> Any:
    """What the template prints for a value; jinja calls it for every expression, before escaping. Macros return finished Markup."""
    return value if isinstance(value, Markup) else visible(str(value))


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{b64encode(png).decode('ascii')}"
