"""What an audit leaves behind."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from report_pages import build, build_flag

from poisonwatch.detection.detection import Detection
from poisonwatch.examples import Message
from poisonwatch.run_directory.write import write_coefficients, write_scores


def judge() -> Detection:
    """Three new rows on one sentinel, which none of them moved twice."""
    _, detection = build([build_flag([Message("user", "x")])], n=3)
    w = np.arange(3.0)[:, None]
    return replace(detection, coefficients=w, recovered=w)


def test_coefficients_have_a_file_of_their_own_where_they_were_measured_twice(
    tmp_path: Path,
) -> None:
    """None where recovery alone gave the same, in one array or in two."""
    once = judge()
    write_coefficients(tmp_path, once)
    write_coefficients(tmp_path, replace(once, recovered=once.coefficients.copy()))
    assert not list(tmp_path.iterdir())
    write_coefficients(tmp_path, replace(once, recovered=2 * once.coefficients))
    both = pd.read_parquet(tmp_path / "coefficients.parquet")
    assert both.columns.tolist() == ["example_id", "sentinel_id", "recovered", "rescored"]
    assert both["recovered"].tolist() == [0.0, 2.0, 4.0]
    assert both["rescored"].tolist() == [0.0, 1.0, 2.0]


def test_a_score_is_that_of_its_sentinel_s_panel(tmp_path: Path) -> None:
    """score, p and q of the panel, beside the sentinel's own coefficient."""
    flags = [build_flag([Message("user", panel)], panel) for panel in ("b", "a", "b2")]
    _, detection = build(flags, n=4, panels=("a", "b", "b2"))
    write_scores(tmp_path, detection)
    scores = pd.read_parquet(tmp_path / "scores.parquet")
    assert scores["panel"].tolist() == ["b", "a", "b2"] * 4
    np.testing.assert_array_equal(scores["score"], detection.scores[:, [1, 0, 2]].ravel())
    np.testing.assert_array_equal(scores["q_value"], np.ones(12))
