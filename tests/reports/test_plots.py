"""The pictures of the scores."""

from io import BytesIO

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.lines import Line2D
from matplotlib.text import Text

from poisonwatch.detection.detection import Detection, Null
from poisonwatch.examples import AuditRows, Example, Message
from poisonwatch.flags import Flag
from poisonwatch.ledger.overview import TrendPoint
from poisonwatch.reports.plots import (
    BINS,
    MOST_MARKERS,
    MOST_TREND_PANELS,
    draw_coefficients,
    draw_panel_scores,
    draw_trend,
    render_png,
    shorten_names,
)
from poisonwatch.sentinels.sentinel import Sentinel

PNG = b"\x89PNG\r\n\x1a\n"


def build_detection(
    flagged: dict[str, list[int]] | None = None,
    panels: tuple[str, ...] = ("safety", "brand"),
    n: int = 40,
    trusted: int = 30,
    planted: float = 15.0,
) -> Detection:
    """A detection on n rows with normal scores; rows in `flagged` (panel to row numbers) score
    `planted` and more on their panel.
    """
    generator = np.random.default_rng(0)
    examples = tuple(
        Example.from_messages([Message("user", f"question {i}")], "rows", i) for i in range(n)
    )
    sentinels = tuple(
        Sentinel(f"{panel}-1", (Message("user", "?"),), "yes", "no", panel) for panel in panels
    )
    scores = generator.standard_normal((n, len(panels)))
    flags = []
    for panel, rows in (flagged or {}).items():
        j = panels.index(panel)
        for rank, i in enumerate(rows, start=1):
            scores[i, j] = planted + len(rows) - rank
            flags.append(
                Flag(
                    example=examples[i],
                    panel=panel,
                    sentinel=sentinels[j],
                    kind="forbidden",
                    coefficient=0.3,
                    score=float(scores[i, j]),
                    rank=rank,
                    p_value=1e-6,
                    q_value=1e-4,
                    standing="5.0 times the scatter of the rows most like it beyond them",
                    rule="rank",
                )
            )
    ones = np.ones_like(scores)
    reference = generator.standard_normal((trusted, len(panels)))
    nulls = tuple(Null("rank", trusted) for _ in panels)
    return Detection(
        rows=AuditRows(tuple(examples)),
        sentinels=tuple(sentinels),
        panels=tuple(panels),
        scores=scores,
        p=ones,
        q=ones,
        coefficients=0 * ones,
        recovered=0 * ones,
        reference_scores=reference,
        reference_coefficients=0 * reference,
        nulls=nulls,
        unjudged=np.zeros(len(scores), dtype=bool),
        flags=tuple(flags),
        false_discovery_rate=0.05,
    )


def line(figure: Figure, label: str) -> Line2D | None:
    """The one line of the figure whose legend label contains `label`."""
    found = [candidate for candidate in figure.axes[0].lines if label in str(candidate.get_label())]
    assert len(found) <= 1
    return found[0] if found else None


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_every_flagged_row_of_the_panel_has_one_marker() -> None:
    """Filled markers stand at the scores of the panel's flagged rows, of equal scores, too, and at
    no other.
    """
    detection = build_detection({"safety": [3, 8, 21], "brand": [5]})
    for panel, count in ((0, 3), (1, 1)):
        markers = line(draw_panel_scores(detection, panel), "flagged on this panel")
        assert markers is not None
        assert len(markers.get_xdata()) == count
        assert sorted(markers.get_xdata()) == sorted(
            flag.score for flag in detection.flags if flag.panel == detection.panels[panel]
        )


def test_of_very_many_flagged_rows_some_are_drawn_and_all_are_counted() -> None:
    """MOST_MARKERS of them, from the least score to the largest."""
    n = 2 * MOST_MARKERS
    detection = build_detection({"safety": list(range(n))}, n=n)
    markers = line(draw_panel_scores(detection, 0), f"{n:,} flagged on this panel")
    assert markers is not None
    drawn = np.asarray(markers.get_xdata())
    assert len(drawn) == MOST_MARKERS
    assert (drawn.min(), drawn.max()) == (15.0, 15.0 + n - 1)
    assert set(drawn) <= set(detection.scores[:, 0])


def test_rows_flagged_on_another_panel_are_marked_at_their_score_here() -> None:
    """A row that scores high on two panels is flagged on one; on the other it must not look missed."""
    detection = build_detection({"safety": [3, 8], "brand": [5]})
    hollow = line(draw_panel_scores(detection, 1), "flagged otherwise")
    assert hollow is not None
    assert list(hollow.get_xdata()) == [detection.scores[3, 1], detection.scores[8, 1]]


def test_the_line_stands_at_the_smallest_flagged_score() -> None:
    """It is labelled with that score, and is missing where nothing of the panel is flagged."""
    figure = draw_panel_scores(build_detection({"safety": [3, 8, 21]}), 0)
    threshold = line(figure, "smallest flagged score: 15.0")
    assert threshold is not None
    assert set(threshold.get_xdata()) == {15.0}
    assert not any("flagged" in text for text in legend(draw_panel_scores(build_detection(), 0)))


def test_axes_name_their_units_and_the_title_names_the_panel() -> None:
    """Scores are in robust standard deviations."""
    figure = draw_panel_scores(build_detection(), 1)
    axes = figure.axes[0]
    assert axes.get_xlabel() == "score, robust standard deviations"
    assert axes.get_ylabel().startswith("rows")
    assert axes.get_title(loc="left") == "brand"
    assert legend(figure) == ["40 new rows", "30 trusted rows"]


@pytest.mark.parametrize("name", ["cost $5 or $10", "$x^2$", r"$\frac{$", r"\$100", "a_b^c & 50%"])
def test_panel_names_are_never_typeset_as_mathematics(name: str) -> None:
    """Dollar signs are drawn as dollar signs, also where they would be broken mathematics."""
    figure = draw_panel_scores(build_detection(panels=(name,)), 0)
    titles = [
        child
        for child in figure.axes[0].get_children()
        if isinstance(child, Text) and child.get_text()
    ]
    assert [title.get_text() for title in titles] == [name]
    assert not titles[0].get_parse_math()
    assert render_png(figure).startswith(PNG)


@pytest.mark.parametrize(
    "name", ["\x00nul", "rtl\u202egnp", "line\nbreak", "\u8d26\u53f7\u5b89\u5168", "x" * 500, ""]
)
def test_any_panel_name_can_be_drawn(name: str) -> None:
    """Control characters, characters that the font lacks and endless names draw without a warning."""
    assert render_png(draw_panel_scores(build_detection(panels=(name,)), 0)).startswith(PNG)


def test_no_reference_rows_are_needed() -> None:
    """Without trusted rows, only the new ones are drawn."""
    figure = draw_panel_scores(build_detection({"safety": [3]}, trusted=0), 0)
    assert not any("trusted" in text for text in legend(figure))
    assert render_png(figure).startswith(PNG)


@pytest.mark.parametrize("planted", [15.0, 45.0, 3e4])
def test_every_row_is_inside_a_bar(planted: float) -> None:
    """The bars' heights add up to the number of rows, however far the largest score lies out."""
    axes = draw_panel_scores(
        build_detection({"safety": [3, 4]}, planted=planted, trusted=0), 0
    ).axes[0]
    (bars,) = axes.patches
    # a polygon: from the left, two of its points are the top of each bar
    heights = bars.get_xy()[1 : 2 * BINS : 2, 1]
    assert (len(heights), heights.sum()) == (BINS, 40)


@pytest.mark.parametrize("trusted", [0, 30])
def test_equal_scores_can_be_drawn(trusted: int) -> None:
    """A panel that no row moves has the score 0 everywhere."""
    detection = build_detection(trusted=trusted)
    detection.scores[:] = 0.0
    detection.reference_scores[:] = 0.0
    assert render_png(draw_panel_scores(detection, 0)).startswith(PNG)


def test_a_single_row_can_be_drawn() -> None:
    """One row is a distribution, too."""
    figure = draw_panel_scores(build_detection(n=1, trusted=0), 0)
    assert legend(figure) == ["1 new row"]
    assert render_png(figure).startswith(PNG)


def test_png_is_a_picture_and_the_same_each_time() -> None:
    """The bytes decode to pixels, and equal detections give equal bytes."""
    first, second = (
        render_png(draw_panel_scores(build_detection({"safety": [3]}), 0)) for _ in range(2)
    )
    assert first == second
    height, width, _ = imread(BytesIO(first), format="png").shape
    assert (width, height) == (1088, 624)


def test_drawing_leaves_global_state_alone() -> None:
    """Neither the settings of matplotlib change nor does a figure stay registered with pyplot."""
    before = dict(matplotlib.rcParams)
    render_png(draw_panel_scores(build_detection({"safety": [3]}), 0))
    assert dict(matplotlib.rcParams) == before
    assert not matplotlib._pylab_helpers.Gcf.get_all_fig_managers()


def build_points(
    n: int = 5, names: tuple[str, ...] = ("safety", "brand"), largest: float = 8.0
) -> list[TrendPoint]:
    """n audits a day apart, the first panel's largest score growing to `largest`."""
    scores = [
        {name: largest * (i + 1) / n / (k + 1) for k, name in enumerate(names)} for i in range(n)
    ]
    return [
        TrendPoint(
            f"audit-{i}",
            f"2026-01-{i + 1:02d}T07:30:00+00:00",
            100 * i,
            2 * i,
            scores[i] if i else {},
            3.0,
        )
        for i in range(n)
    ]


def test_a_trend_has_rows_rate_and_a_line_for_each_panel() -> None:
    """One place an audit; an audit without new rows has a bar of height 0, and gaps in the lines."""
    rows, rate, scores = draw_trend(build_points()).axes
    assert [bar.get_height() for bar in rows.patches] == [0, 100, 200, 300, 400]
    assert np.array_equal(rate.lines[0].get_ydata(), [np.nan, 2.0, 2.0, 2.0, 2.0], equal_nan=True)
    assert len(scores.lines) == 2
    assert np.isnan(scores.lines[0].get_ydata()[0])
    assert scores.lines[0].get_ydata()[-1] == 8.0


def test_a_trend_names_its_panels_by_their_largest_score() -> None:
    """The names are in the order of the lines; of many panels, those with the largest scores are
    drawn.
    """
    assert legend(draw_trend(build_points())) == ["safety", "brand"]
    many = tuple(f"panel {k}" for k in range(MOST_TREND_PANELS + 4))
    assert legend(draw_trend(build_points(names=many))) == list(many[:MOST_TREND_PANELS])


@pytest.mark.parametrize(
    "name",
    ["$x^2$", r"$\\frac{$", "_hidden", "\x00nul", "rtl\u202egnp", "\u8d26\u53f7", "x" * 500, ""],
)
def test_any_panel_name_can_stand_in_a_trend(name: str) -> None:
    """Dollar signs are no mathematics, and a leading _ hides nothing."""
    figure = draw_trend(build_points(names=(name, "brand")))
    assert len(legend(figure)) == 2
    assert not any(text.get_parse_math() for text in figure.legends[0].get_texts())
    assert render_png(figure).startswith(PNG)


def test_names_in_a_legend_are_distinct_and_whole() -> None:
    """Long ones lose their middle, and are numbered where that leaves them equal; all of it is in
    the picture.
    """
    long = [f"brand-promotion-of-kitchen-{k}" for k in range(4)]
    same = [f"brand-promotio{'x' * k}n-kitchenware" for k in range(20, 22)]
    found = shorten_names([*long, *same, "shop"], 24)
    assert len(set(found)) == 7
    assert all(len(label) <= 24 for label in found)
    assert (found[0], found[-1]) == ("brand-promo…of-kitchen-0", "shop")
    figure = draw_trend(build_points(names=(*long, *same)))
    render_png(figure)
    box = figure.legends[0].get_window_extent()
    assert (box.x0 >= 0, box.x1 <= figure.bbox.width) == (True, True)


@pytest.mark.parametrize(("n", "largest"), [(2, 8.0), (30, 41.0), (30, 3e6)])
def test_trends_of_any_length_and_height_can_be_drawn(n: int, largest: float) -> None:
    """Few times are written, however many audits; a few heights, however large the scores."""
    figure = draw_trend(build_points(n, largest=largest))
    assert render_png(figure).startswith(PNG)
    assert 2 <= len(figure.axes[2].get_xticklabels()) <= 7
    assert 2 <= len(figure.axes[2].get_yticks()) <= 12


def test_audits_without_any_row_can_be_drawn() -> None:
    """A source that never grows."""
    empty = [TrendPoint(f"audit-{i}", "$not$ a time", 0, 0, {}, 1.0) for i in range(3)]
    assert render_png(draw_trend(empty)).startswith(PNG)


@pytest.mark.parametrize("name", ["shop-1", "$x^2$", r"$\\frac{$", "\x00nul", "x" * 500, ""])
@pytest.mark.parametrize("trusted", [0, 30])
def test_a_coefficient_is_drawn_among_all_others(name: str, trusted: int) -> None:
    """Whatever the sentinel is called, with and without trusted rows; the row's own value is said."""
    draw = np.random.default_rng(0)
    figure = draw_coefficients(
        12.5, np.append(draw.standard_normal(40), 12.5), draw.standard_normal(trusted), name
    )
    assert render_png(figure).startswith(PNG)
    assert "this row: +12.5" in legend(figure)
    assert len(legend(figure)) == 2 + bool(trusted)
