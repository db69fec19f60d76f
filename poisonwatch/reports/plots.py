"""Pictures of the scores, for the report and the tracking server."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import FuncFormatter, MaxNLocator

from poisonwatch.arrays import Array
from poisonwatch.detection.detect import Detection
from poisonwatch.ledger.overview import TrendPoint
from poisonwatch.text.display import excerpt, to_plain_name

if TYPE_CHECKING:  # who draws a picture of a past audit needs no model
    from poisonwatch.detection.detect import Detection

FONT = "DejaVu Sans"  # ships with matplotlib
LONGEST_TITLE = 60  # characters that fit the width
BINS = 60
# robust standard deviations; past it, one huge score would squeeze all others into a single bar
LINEAR_UP_TO = 40.0
NEW_COLOUR, TRUSTED_COLOUR, FLAGGED_COLOUR = (
    "#4c84b8",
    "#30363d",
    "#cf4a00",
)  # apart in hue and lightness, for any kind of colour vision
LINE_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
    "#30363d",
    "#8c6d31",
)  # after Okabe and Ito, 2008
MARKERS = "os^Dv<>P"
MOST_TREND_PANELS = len(LINE_COLOURS)  # panels of a trend
MOST_TIMES = 7  # that fit below a trend
LONGEST_PANEL_LABEL = 24  # characters of a panel's name beside its line


def draw_panel_scores(verdicts: "Detection", panel: int) -> Figure:
    """The distribution of a panel's scores: new rows filled, trusted rows (if any) outlined, each
    flagged row with its own marker.

    `panel` is an index into `verdicts.panels`. Rows flagged on another panel or by a screen have
    hollow markers: they may score high here, too, and would look missed. Counts are on a
    logarithmic axis, so that single rows can be seen beside hundreds. Belongs to no pyplot state:
    nothing needs to be closed.
    """
    new, trusted = verdicts.scores[:, panel], verdicts.reference_scores[:, panel]
    row_of = {
        (example.source, example.position, example.id): i
        for i, example in enumerate(verdicts.examples)
    }
    here = [flag.by_attribution and flag.panel == verdicts.panels[panel] for flag in verdicts.flags]
    flagged = [flag.score for flag, on_panel in zip(verdicts.flags, here, strict=True) if on_panel]
    others = [
        flag.example for flag, on_panel in zip(verdicts.flags, here, strict=True) if not on_panel
    ]
    elsewhere = [
        float(new[row_of[example.source, example.position, example.id]]) for example in others
    ]
    figure, axes, edges = _draw_distribution(new, trusted)
    above = (
        axes.get_xaxis_transform()
    )  # height as a share of the axes: clear of the bars, whatever they count
    markers: dict[str, Any] = {
        "marker": "v",
        "linestyle": "none",
        "color": FLAGGED_COLOUR,
        "markersize": 7,
        "alpha": 0.75,
        "transform": above,
    }
    if flagged:
        axes.plot(
            flagged,
            [0.94] * len(flagged),
            label=f"{len(flagged):,} flagged on this panel",
            **markers,
        )
    if elsewhere:
        axes.plot(
            elsewhere,
            [0.86] * len(elsewhere),
            label=f"{len(elsewhere):,} flagged otherwise",
            fillstyle="none",
            **markers,
        )
    if flagged:
        least = min(flagged)
        axes.axvline(
            least,
            color=FLAGGED_COLOUR,
            linewidth=1.0,
            linestyle=(0, (4, 3)),
            label=f"smallest flagged score: {least:.1f}",
        )
    _finish_axes(figure, axes, edges, "score, robust standard deviations", verdicts.panels[panel])
    return figure


def draw_coefficients(of_row: float, new: Array, trusted: Array, sentinel: str) -> Figure:
    """Where one row's coefficient on a sentinel lies among those of all new rows (n,) and of the
    trusted rows (n_ref,), in spreads.
    """
    figure, axes, edges = _draw_distribution(new, trusted)
    axes.axvline(of_row, color=FLAGGED_COLOUR, linewidth=1.6, label=f"this row: {of_row:+.1f}")
    _finish_axes(
        figure, axes, edges, "coefficient, spreads; above 0 the answer becomes likelier", sentinel
    )
    return figure


def _draw_distribution(new: Array, trusted: Array) -> tuple[Figure, Axes, list[float]]:
    """A figure of new rows (n,), filled, and trusted rows (n_ref,), outlined, with counts on a
    logarithmic axis; and the bars' edges.
    """
    figure = Figure(figsize=(6.8, 3.9), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    edges = _compute_edges(np.concatenate([new, trusted]))
    axes.hist(new, edges, color=NEW_COLOUR, label=f"{len(new):,} new row{'s' * (len(new) != 1)}")
    if len(trusted):
        label = f"{len(trusted):,} trusted row{'s' * (len(trusted) != 1)}"
        axes.hist(trusted, edges, histtype="step", color=TRUSTED_COLOUR, linewidth=1.3, label=label)
    axes.set_yscale("log")
    axes.set_ylim(
        0.6, axes.get_ylim()[1] * 2.5
    )  # a single row is a bar of visible height; room above for the markers
    return figure, axes, edges


def _finish_axes(
    figure: Figure, axes: Axes, edges: Sequence[float], quantity: str, title: str
) -> None:
    """Scales, labels, and the legend of a distribution."""
    if edges[-1] > LINEAR_UP_TO or edges[0] < -LINEAR_UP_TO:
        axes.set_xscale("asinh", linear_width=LINEAR_UP_TO / 4)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.set_xlabel(quantity, family=FONT)
    axes.set_ylabel("rows (logarithmic)", family=FONT)
    # The name is the user's: without parse_math, $...$ in it would be typeset as mathematics, or
    # fail to parse.
    axes.set_title(
        _escape_missing_glyphs(excerpt(title, LONGEST_TITLE)),
        parse_math=False,
        family=FONT,
        loc="left",
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        loc="outside lower left", ncols=3, frameon=False, fontsize=9
    )  # below the axes, where it hides no bar


def draw_trend(points: Sequence[TrendPoint]) -> Figure:
    """What audits came to, oldest first: rows audited, flag rate, and each panel's largest score,
    one below the other.

    Audits stand at equal distances, whatever time lies between them. Of more than MOST_LINES
    panels, those with the largest scores are drawn. An audit without new rows leaves gaps in the
    flag rate and the scores.
    """
    places = range(len(points))
    figure = Figure(figsize=(6.8, 5.4), layout="constrained", facecolor="white")
    rows, rate, scores = figure.subplots(3, 1, sharex=True, height_ratios=(2, 2, 3))
    rows.bar(places, [point.new for point in points], width=0.6, color=NEW_COLOUR)
    rows.set_ylabel("new rows", family=FONT)
    rate.plot(
        places,
        [np.nan if point.flag_rate is None else 100 * point.flag_rate for point in points],
        clip_on=False,
        **_style_line(0, FLAGGED_COLOUR),
    )
    rate.set_ylabel("flagged, %", family=FONT)
    rate.set_ylim(0, max(1.0, rate.get_ylim()[1]))
    names = list(dict.fromkeys(name for point in reversed(points) for name in point.largest))
    names.sort(key=lambda name: -max(point.largest.get(name, -np.inf) for point in points))
    for k, name in enumerate(names[:MOST_TREND_PANELS]):
        scores.plot(
            places,
            [point.largest.get(name, np.nan) for point in points],
            **_style_line(k, LINE_COLOURS[k]),
        )
    scores.set_ylabel("largest score", family=FONT)
    top = max((point.largest_score or 0.0 for point in points), default=0.0)
    if top > LINEAR_UP_TO:
        scores.set_yscale("asinh", linear_width=LINEAR_UP_TO / 4)
        ticks = [
            0.0,
            *(
                step * 10.0**k
                for k in range(1, int(np.log10(top)) + 1)
                for step in (1, 3)
                if step * 10.0**k <= top
            ),
        ]
        scores.set_yticks(ticks[:: 1 + len(ticks) // 7])
    for axes in (rows, rate, scores):
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#dfe3e8", linewidth=0.6)
        axes.set_axisbelow(True)
    rows.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    shown = sorted(
        {round(k) for k in np.linspace(0, len(points) - 1, min(len(points), MOST_TIMES))}
    )
    scores.set_xticks(
        shown,
        [_format_time(points[k].created) for k in shown],
        parse_math=False,
        family=FONT,
        fontsize=8,
    )
    scores.set_xlim(-0.6, len(points) - 0.4)
    # Names come after the legend was built: matplotlib leaves labels that start with _ out, and
    # would typeset $...$.
    legend = figure.legend(
        scores.lines,
        ["panel"] * len(scores.lines),
        loc="outside lower left",
        ncols=4,
        frameon=False,
        fontsize=9,
    )
    for text, name in zip(legend.get_texts(), names, strict=False):
        text.set_parse_math(False)
        text.set_text(_escape_missing_glyphs(excerpt(name, LONGEST_PANEL_LABEL)))
    return figure


def _style_line(k: int, colour: str) -> dict[str, Any]:
    return {"color": colour, "marker": MARKERS[k], "markersize": 4, "linewidth": 1.4}


def _format_time(created: str) -> str:
    """An ISO time as two short lines, day and time."""
    return "\n".join(
        _escape_missing_glyphs(excerpt(part, 10)) for part in (created[:10], created[11:16])
    )


def render_png(figure: Figure) -> bytes:
    """The figure as a PNG file at 160 dots an inch; equal figures give equal bytes."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    return buffer.getvalue()


def _compute_edges(scores: Array) -> list[float]:
    """The BINS + 1 edges of bars of equal drawn width around all scores (n,)."""
    low, high = float(scores.min()), float(scores.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    if high <= LINEAR_UP_TO and low >= -LINEAR_UP_TO:
        return list(np.linspace(low, high, BINS + 1))
    width = LINEAR_UP_TO / 4
    inner = width * np.sinh(
        np.linspace(np.arcsinh(low / width), np.arcsinh(high / width), BINS + 1)[1:-1]
    )
    return [
        low,
        *inner,
        high,
    ]  # exact at both ends: rounding must not leave the extreme rows outside


def _escape_missing_glyphs(text: str) -> str:
    """The text with characters that the font lacks written as \\u{...}: matplotlib would warn and
    draw empty boxes.
    """
    font = get_font(findfont(FONT))
    return "".join(c if font.get_char_index(ord(c)) else f"\\u{{{ord(c):x}}}" for c in text)


def write_plots(folder: Path, verdicts: Detection) -> None:
    """`plots/`: the distribution of each panel's scores."""
    (folder / "plots").mkdir()
    for j, panel in enumerate(verdicts.panels):
        (folder / "plots" / f"{j:02d}-{to_plain_name(panel)}.png").write_bytes(
            render_png(draw_panel_scores(verdicts, j))
        )
