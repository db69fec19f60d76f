"""Pictures of the scores, for the report and the tracking server."""

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import FuncFormatter, MaxNLocator

from poisonwatch.arrays import Array, RowIndices
from poisonwatch.detection.detection import locate_flags
from poisonwatch.ledger.overview import TrendPoint
from poisonwatch.text.display import excerpt

# Whoever draws a picture of a past audit needs no model.
if TYPE_CHECKING:
    from poisonwatch.detection.detection import Detection

FONT = "DejaVu Sans"  # ships with matplotlib
LONGEST_TITLE = 60  # characters that fit the width
BINS = 60
MOST_MARKERS = 500  # more would cover each other
# robust standard deviations; past it, one huge score would squeeze all others into a single bar
LINEAR_UP_TO = 40.0
# Apart in hue and lightness, for any kind of colour vision.
NEW_COLOUR = "#4c84b8"
TRUSTED_COLOUR = "#30363d"
FLAGGED_COLOUR = "#cf4a00"
# After Okabe and Ito, 2008.
LINE_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
    "#30363d",
    "#8c6d31",
)
MARKERS = "os^Dv<>P"
MOST_TREND_PANELS = len(LINE_COLOURS)  # panels of a trend
MOST_TIMES = 7  # that fit below a trend
MOST_TICKS = 7  # on the axis of a trend's scores
# What a line of a legend holds, and what a line's own mark takes of it, in characters.
LEGEND_CHARACTERS, HANDLE_CHARACTERS = 84, 8
LONGEST_PANEL_LABEL = 24  # characters of a panel's name beside its line


def render_png(figure: Figure) -> bytes:
    """The figure as a PNG file at 160 dots an inch; equal figures give equal bytes."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    return buffer.getvalue()


def draw_panel_scores(
    detection: "Detection", panel: int, places: RowIndices | None = None
) -> Figure:
    """The distribution of a panel's scores: new rows filled, trusted rows (if any) outlined, each
    flagged row with its own marker (of very many, some).

    `panel` is an index into `detection.panels`, `places` are those of the flagged rows, where they
    are known (`locate_flags`). Rows flagged on another panel or by a screen have hollow markers:
    they may score high here, too, and would look missed. Counts are on a logarithmic axis, so that
    single rows can be seen beside hundreds. Belongs to no pyplot state: nothing needs to be closed.
    """
    new, trusted = detection.scores[:, panel], detection.reference_scores[:, panel]
    if places is None:
        places = locate_flags(detection.flags, detection.rows.new)
    flagged, elsewhere = _find_flagged_scores(detection, panel, places)
    figure, axes, edges = _draw_distribution(new, trusted)
    _draw_markers(axes, 0.94, flagged, "flagged on this panel")
    _draw_markers(axes, 0.86, elsewhere, "flagged otherwise", fillstyle="none")
    if flagged:
        least = min(flagged)
        axes.axvline(
            least,
            color=FLAGGED_COLOUR,
            linewidth=1.0,
            linestyle=(0, (4, 3)),
            label=f"smallest flagged score: {least:.1f}",
        )
    quantity = "score, robust standard deviations"
    _finish_axes(figure, axes, edges, quantity=quantity, title=detection.panels[panel])
    return figure


def draw_coefficients(of_row: float, new: Array, trusted: Array, sentinel: str) -> Figure:
    """Where one row's coefficient on a sentinel lies among those of all new rows (n,) and of the
    trusted rows (n_ref,), in spreads.
    """
    figure, axes, edges = _draw_distribution(new, trusted)
    axes.axvline(of_row, color=FLAGGED_COLOUR, linewidth=1.6, label=f"this row: {of_row:+.1f}")
    quantity = "coefficient, spreads; above 0 the answer becomes likelier"
    _finish_axes(figure, axes, edges, quantity=quantity, title=sentinel)
    return figure


def _find_flagged_scores(
    detection: "Detection", panel: int, places: RowIndices
) -> tuple[list[float], list[float]]:
    """The panel's scores of the rows that it flagged, and of those flagged on another panel or by a
    screen; `places` are those of the flags.
    """
    name = detection.panels[panel]
    here: list[float] = []
    elsewhere: list[float] = []
    for flag, score in zip(detection.flags, detection.scores[places, panel].tolist(), strict=True):
        if flag.by_attribution and flag.panel == name:
            here.append(flag.score)
        else:
            elsewhere.append(score)
    return here, elsewhere


def _thin_out(scores: Sequence[float]) -> Sequence[float]:
    """The scores, or MOST_MARKERS of them: the least, the largest, and as many between in steps of
    rank.
    """
    if len(scores) <= MOST_MARKERS:
        return scores
    spaced = np.linspace(0, len(scores) - 1, MOST_MARKERS).round().astype(np.int64)
    thinned: list[float] = np.sort(scores)[spaced].tolist()
    return thinned


def _draw_markers(
    axes: Axes, height: float, scores: Sequence[float], label: str, **style: Any
) -> None:
    """One marker for each score, at a height that is a share of the axes."""
    if not scores:
        return
    drawn = _thin_out(scores)
    axes.plot(
        drawn,
        [height] * len(drawn),
        label=f"{len(scores):,} {label}",
        marker="v",
        linestyle="none",
        color=FLAGGED_COLOUR,
        markersize=7,
        alpha=0.75,
        # Height as a share of the axes: clear of the bars, whatever they count.
        transform=axes.get_xaxis_transform(),
        **style,
    )


def count_rows(count: int, kind: str) -> str:
    """ "1 new row", "1,369 new rows"."""
    if count == 1:
        return f"1 {kind} row"
    return f"{count:,} {kind} rows"


def _draw_distribution(new: Array, trusted: Array) -> tuple[Figure, Axes, list[float]]:
    """A figure of new rows (n,), filled, and trusted rows (n_ref,), outlined, with counts on a
    logarithmic axis; and the bars' edges.
    """
    figure = Figure(figsize=(6.8, 3.9), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    edges = _compute_edges(np.concatenate([new, trusted]))
    # One polygon, not a rectangle a bar: a fifth of the time that a picture takes.
    label = count_rows(len(new), "new")
    axes.hist(new, edges, histtype="stepfilled", color=NEW_COLOUR, label=label)
    if len(trusted):
        label = count_rows(len(trusted), "trusted")
        axes.hist(trusted, edges, histtype="step", color=TRUSTED_COLOUR, linewidth=1.3, label=label)
    axes.set_yscale("log")
    # A single row is a bar of visible height, and above there is room for the markers.
    axes.set_ylim(0.6, axes.get_ylim()[1] * 2.5)
    return figure, axes, edges


def _finish_axes(
    figure: Figure, axes: Axes, edges: Sequence[float], *, quantity: str, title: str
) -> None:
    """Scales, labels, and the legend of a distribution."""
    if edges[-1] > LINEAR_UP_TO or edges[0] < -LINEAR_UP_TO:
        axes.set_xscale("asinh", linear_width=LINEAR_UP_TO / 4)
    axes.xaxis.set_major_formatter(FuncFormatter(_format_number))
    axes.yaxis.set_major_formatter(FuncFormatter(_format_number))
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
    # Below the axes, where it hides no bar.
    figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=9)


def draw_trend(points: Sequence[TrendPoint]) -> Figure:
    """What audits came to, oldest first: rows audited, flag rate, and each panel's largest score,
    one below the other.

    Audits stand at equal distances, whatever time lies between them. Of more than MOST_TREND_PANELS
    panels, those with the largest scores are drawn. An audit without new rows leaves gaps in the
    flag rate and the scores.
    """
    figure = Figure(figsize=(6.8, 5.4), layout="constrained", facecolor="white")
    rows, rate, scores = figure.subplots(3, 1, sharex=True, height_ratios=(2, 2, 3))
    _draw_new_rows(rows, points)
    _draw_flag_rate(rate, points)
    names = _rank_panels(points)
    _draw_largest_scores(scores, points, names)
    for axes in (rows, rate, scores):
        axes.yaxis.set_major_formatter(FuncFormatter(_format_number))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#dfe3e8", linewidth=0.6)
        axes.set_axisbelow(True)
    rows.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    _label_times(scores, points)
    _add_panel_legend(figure, scores, names)
    return figure


def _draw_new_rows(axes: Axes, points: Sequence[TrendPoint]) -> None:
    heights = [point.new for point in points]
    axes.bar(range(len(points)), heights, width=0.6, color=NEW_COLOUR)
    axes.set_ylabel("new rows", family=FONT)


def _draw_flag_rate(axes: Axes, points: Sequence[TrendPoint]) -> None:
    percentages = []
    # matplotlib leaves a gap at NaN: without new rows there is no rate, which is not a rate of 0.
    for point in points:
        percentages.append(np.nan if point.flag_rate is None else 100 * point.flag_rate)
    # Not clipped: a rate of 0 lies on the edge, and half of its marker would be cut off.
    style = _style_line(0, FLAGGED_COLOUR)
    axes.plot(range(len(points)), percentages, clip_on=False, **style)
    axes.set_ylabel("flagged, %", family=FONT)
    axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))


def _rank_panels(points: Sequence[TrendPoint]) -> list[str]:
    """The names of all panels, that of the largest score first; of equals, the newest."""
    largest: dict[str, float] = {}
    for point in reversed(points):
        for name, score in point.largest.items():
            largest[name] = max(score, largest.get(name, -np.inf))
    return sorted(largest, key=lambda name: -largest[name])


def _draw_largest_scores(axes: Axes, points: Sequence[TrendPoint], names: Sequence[str]) -> None:
    for k, name in enumerate(names[:MOST_TREND_PANELS]):
        heights = [point.largest.get(name, np.nan) for point in points]
        axes.plot(range(len(points)), heights, **_style_line(k, LINE_COLOURS[k]))
    axes.set_ylabel("largest score", family=FONT)
    top = max((point.largest_score or 0.0 for point in points), default=0.0)
    if top > LINEAR_UP_TO:
        axes.set_yscale("asinh", linear_width=LINEAR_UP_TO / 4)
        axes.set_yticks(_choose_ticks(top))


def _choose_ticks(top: float) -> list[float]:
    """0, and 1 and 3 times the powers of ten up to `top`, thinned out to MOST_TICKS or so."""
    ticks = [0.0]
    for k in range(1, int(np.log10(top)) + 1):
        for step in (1, 3):
            if step * 10.0**k <= top:
                ticks.append(step * 10.0**k)
    return ticks[:: 1 + len(ticks) // MOST_TICKS]


def _label_times(axes: Axes, points: Sequence[TrendPoint]) -> None:
    """Times below as many of the audits as there is room for, the first and the last among them."""
    spaced = np.linspace(0, len(points) - 1, min(len(points), MOST_TIMES))
    shown = sorted(set(map(round, spaced.tolist())))
    labels = [_format_time(points[k].created) for k in shown]
    axes.set_xticks(shown, labels, parse_math=False, family=FONT, fontsize=8)
    axes.set_xlim(-0.6, len(points) - 0.4)


def _add_panel_legend(figure: Figure, axes: Axes, names: Sequence[str]) -> None:
    # Names come after the legend was built: matplotlib leaves labels that start with _ out, and
    # would typeset $...$.
    labels = shorten_names(names[: len(axes.lines)], LONGEST_PANEL_LABEL)
    widest = max(map(len, labels), default=0)
    legend = figure.legend(
        axes.lines,
        ["panel"] * len(axes.lines),
        loc="outside lower left",
        ncols=max(1, min(4, LEGEND_CHARACTERS // (widest + HANDLE_CHARACTERS))),
        frameon=False,
        fontsize=9,
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_parse_math(False)
        text.set_text(_escape_missing_glyphs(label))


def shorten_names(names: Sequence[str], length: int) -> list[str]:
    """Each name in at most `length` characters, and no two alike: what is cut is the middle, and
    where that leaves equal ones they are numbered.
    """
    shortened: list[str] = []
    for name in names:
        line = excerpt(name, max(length, len(name)) * 8)
        if len(line) > length:
            start = (length - 1) // 2
            line = f"{line[:start]}…{line[start + 1 - length :]}"
        label, number = line, 1
        while label in shortened:
            number += 1
            label = f"{line[: length - 4]} ({number})"
        shortened.append(label)
    return shortened


def _format_number(value: float, _: int) -> str:
    """A tick's label; ten digits hide what rounding left behind the last one."""
    return f"{value:,.10g}"


def _style_line(k: int, colour: str) -> dict[str, Any]:
    return {"color": colour, "marker": MARKERS[k], "markersize": 4, "linewidth": 1.4}


def _format_time(created: str) -> str:
    """An ISO time as two short lines, day and time."""
    # An old ledger's time is text like any other: it may hold anything.
    day, time = excerpt(created[:10], 10), excerpt(created[11:16], 10)
    return f"{_escape_missing_glyphs(day)}\n{_escape_missing_glyphs(time)}"


def _compute_edges(scores: Array) -> list[float]:
    """The BINS + 1 edges of bars of equal drawn width around all scores (n,)."""
    low, high = float(scores.min()), float(scores.max())
    # Bars of no width cannot be drawn.
    if low == high:
        low, high = low - 0.5, high + 0.5
    if high <= LINEAR_UP_TO and low >= -LINEAR_UP_TO:
        return list(np.linspace(low, high, BINS + 1))
    # Equal steps on the asinh axis that such scores are drawn on, linear within `width` of 0.
    width = LINEAR_UP_TO / 4
    steps = np.linspace(np.arcsinh(low / width), np.arcsinh(high / width), BINS + 1)
    inner = width * np.sinh(steps[1:-1])
    # Exact at both ends: rounding must not leave the extreme rows outside.
    return [low, *inner, high]


def _escape_missing_glyphs(text: str) -> str:
    """The text with characters that the font lacks written as \\u{...}: matplotlib would warn and
    draw empty boxes.
    """
    font = get_font(findfont(FONT))
    return "".join(c if font.get_char_index(ord(c)) else f"\\u{{{ord(c):x}}}" for c in text)
