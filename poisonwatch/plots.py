"""Pictures of the scores, for the report and the tracking server."""

from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from poisonwatch.redaction import excerpt
from poisonwatch.verdicts import Verdicts

Array = NDArray[np.float64]

FONT = "DejaVu Sans"  # ships with matplotlib
LONGEST_TITLE = 60  # characters that fit the width
BINS = 60
LINEAR_UP_TO = 40.0  # robust standard deviations; past it, one huge score would squeeze all others into a single bar
NEW, TRUSTED, FLAGGED = "#4c84b8", "#30363d", "#cf4a00"  # apart in hue and lightness, for any kind of colour vision


def panel_figure(verdicts: Verdicts, panel: int) -> Figure:
    """The distribution of a panel's scores: new rows filled, trusted rows (if any) outlined, each flagged row with its own marker.

    `panel` is an index into `verdicts.panels`. Rows flagged on another panel or by a screen have hollow markers: they may score high here,
    too, and would look missed. Counts are on a logarithmic axis, so that single rows can be seen beside hundreds. Belongs to no pyplot
    state: nothing needs to be closed.
    """
    new, trusted = verdicts.scores[:, panel], verdicts.reference_scores[:, panel]
    row_of = {(example.source, example.position, example.id): i for i, example in enumerate(verdicts.examples)}
    here = [flag.by_attribution and flag.panel == verdicts.panels[panel] for flag in verdicts.flags]
    flagged = [flag.score for flag, on_panel in zip(verdicts.flags, here, strict=True) if on_panel]
    others = [flag.example for flag, on_panel in zip(verdicts.flags, here, strict=True) if not on_panel]
    elsewhere = [float(new[row_of[example.source, example.position, example.id]]) for example in others]
    figure = Figure(figsize=(6.8, 3.9), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    edges = _edges(np.concatenate([new, trusted]))
    axes.hist(new, edges, color=NEW, label=f"{len(new):,} new row{'s' * (len(new) != 1)}")
    if len(trusted):
        label = f"{len(trusted):,} trusted row{'s' * (len(trusted) != 1)}"
        axes.hist(trusted, edges, histtype="step", color=TRUSTED, linewidth=1.3, label=label)
    axes.set_yscale("log")
    axes.set_ylim(0.6, axes.get_ylim()[1] * 2.5)  # a single row is a bar of visible height; room above for the markers
    above = axes.get_xaxis_transform()  # height as a share of the axes: clear of the bars, whatever they count
    markers: dict[str, Any] = {"marker": "v", "linestyle": "none", "color": FLAGGED, "markersize": 7, "alpha": 0.75, "transform": above}
    if flagged:
        axes.plot(flagged, [0.94] * len(flagged), label=f"{len(flagged):,} flagged on this panel", **markers)
    if elsewhere:
        axes.plot(elsewhere, [0.86] * len(elsewhere), label=f"{len(elsewhere):,} flagged otherwise", fillstyle="none", **markers)
    if flagged:
        least = min(flagged)
        axes.axvline(least, color=FLAGGED, linewidth=1.0, linestyle=(0, (4, 3)), label=f"smallest flagged score: {least:.1f}")
    if edges[-1] > LINEAR_UP_TO or edges[0] < -LINEAR_UP_TO:
        axes.set_xscale("asinh", linear_width=LINEAR_UP_TO / 4)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.set_xlabel("score, robust standard deviations", family=FONT)
    axes.set_ylabel("rows (logarithmic)", family=FONT)
    # The name is the user's: without parse_math, $...$ in it would be typeset as mathematics, or fail to parse.
    axes.set_title(_drawable(excerpt(verdicts.panels[panel], LONGEST_TITLE)), parse_math=False, family=FONT, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=9)  # below the axes, where it hides no bar
    return figure


def as_png(figure: Figure) -> bytes:
    """The figure as a PNG file at 160 dots an inch; equal figures give equal bytes."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    return buffer.getvalue()


def _edges(scores: Array) -> list[float]:
    """The BINS + 1 edges of bars of equal drawn width around all scores (n,)."""
    low, high = float(scores.min()), float(scores.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    if high <= LINEAR_UP_TO and low >= -LINEAR_UP_TO:
        return list(np.linspace(low, high, BINS + 1))
    width = LINEAR_UP_TO / 4
    inner = width * np.sinh(np.linspace(np.arcsinh(low / width), np.arcsinh(high / width), BINS + 1)[1:-1])
    return [low, *inner, high]  # exact at both ends: rounding must not leave the extreme rows outside


def _drawable(text: str) -> str:
    """The text with characters that the font lacks written as \\u{...}: matplotlib would warn and draw empty boxes."""
    font = get_font(findfont(FONT))
    return "".join(c if font.get_char_index(ord(c)) else f"\\u{{{ord(c):x}}}" for c in text)
