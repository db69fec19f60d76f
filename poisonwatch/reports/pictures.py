"""The pictures of an audit: drawn once, for the report and for the folder beside it.

A picture that cannot be drawn is missing, and all else of the report is there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from poisonwatch.detection.detection import locate_flags
from poisonwatch.failures import Attempts
from poisonwatch.ledger.overview import TrendPoint
from poisonwatch.reports.plots import draw_panel_scores, draw_trend, render_png
from poisonwatch.text.display import to_plain_name

# Whoever draws a picture of a past audit needs no model.
if TYPE_CHECKING:
    from poisonwatch.detection.detection import Detection


@dataclass(frozen=True, slots=True)
class Pictures:
    """PNG files: each panel's distribution of scores, and the trend. None for one that could not be
    drawn; of a single audit, which is no trend, there is none either.
    """

    panels: tuple[bytes | None, ...]
    trend: bytes | None


def draw_pictures(
    detection: "Detection", points: Sequence[TrendPoint], attempts: Attempts
) -> Pictures:
    """The pictures of an audit and of the audits up to it, oldest first."""
    places = locate_flags(detection.flags, detection.rows.new)
    panels: list[bytes | None] = []
    for j, name in enumerate(detection.panels):
        picture = None
        with attempts.part(f"the picture of panel {name}", "not drawn"):
            picture = render_png(draw_panel_scores(detection, j, places))
        panels.append(picture)
    trend = None
    if len(points) > 1:
        with attempts.part("the picture of the trend", "not drawn"):
            trend = render_png(draw_trend(points))
    return Pictures(tuple(panels), trend)


def write_plots(folder: Path, panels: Sequence[str], pictures: Pictures) -> None:
    """`plots/`: the picture of each of the panels, by their names."""
    plots = folder / "plots"
    plots.mkdir()
    for j, (name, picture) in enumerate(zip(panels, pictures.panels, strict=True)):
        # Numbered: two panels' names may be one once they are plain.
        if picture is not None:
            (plots / f"{j:02d}-{to_plain_name(name)}.png").write_bytes(picture)
