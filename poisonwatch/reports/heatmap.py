"""Which sentinels each group of flagged rows moves, as a table of colours and numbers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from poisonwatch.arrays import Array
from poisonwatch.run_directory.read import read_cached, read_evidence

if TYPE_CHECKING:  # who draws a picture of a past audit needs no model
    from poisonwatch.detection.clusters import ClusterEvidence
    from poisonwatch.detection.detect import Detection

MOST_HEAT_GROUPS = 12
MOST_HEAT_SENTINELS = 40
HEAT_STEPS = (1.0, 3.0, 10.0)  # spreads; past each, a stronger colour


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Mean coefficients `values` (S, G), in spreads: of `sentinels` (S ids, most moved first) for
    the first G groups.

    `levels` (S, G) are -3 to 3: how many of STEPS the value reaches, with its sign. What did not
    fit is counted.
    """

    sentinels: tuple[str, ...]
    panels: tuple[str, ...]
    values: Array
    levels: NDArray[np.int64]
    sentinels_left_out: int
    groups_left_out: int


def build_heat_map(verdicts: "Detection", evidence: Sequence["ClusterEvidence"]) -> HeatMap | None:
    """How strongly the rows of each group in `evidence` push each sentinel, on average; None
    without groups or sentinels.
    """
    if not evidence or not verdicts.sentinels:
        return None
    means = np.column_stack(
        [verdicts.coefficients[list(group.rows)].mean(axis=0) for group in evidence]
    )
    return arrange_heat_map(
        means, [s.id for s in verdicts.sentinels], [s.panel for s in verdicts.sentinels]
    )


def arrange_heat_map(means: Array, sentinels: Sequence[str], panels: Sequence[str]) -> HeatMap:
    """The heat map of mean coefficients (S, G) of all sentinels, with their panels, and all groups."""
    shown = means[:, :MOST_HEAT_GROUPS]
    order = np.argsort(-np.abs(shown).max(axis=1), kind="stable")[:MOST_HEAT_SENTINELS]
    values = shown[order]
    return HeatMap(
        sentinels=tuple(sentinels[s] for s in order.tolist()),
        panels=tuple(panels[s] for s in order.tolist()),
        values=values,
        levels=compute_levels(values),
        sentinels_left_out=len(means) - len(order),
        groups_left_out=means.shape[1] - shown.shape[1],
    )


def compute_levels(values: Array) -> NDArray[np.int64]:
    """How many of STEPS each value reaches, with its sign."""
    reached = np.searchsorted(HEAT_STEPS, np.abs(values), side="right")
    return np.asarray(np.sign(values) * reached, dtype=np.int64)


def read_heat_map(run_dir: Path) -> HeatMap | None:
    """Which sentinels each group of flagged rows moves; None where nothing was flagged, or it is
    not known.
    """
    return (
        read_cached(
            _compute_heat_map, None, run_dir / "scores.parquet", json.dumps(read_evidence(run_dir))
        )
        if read_evidence(run_dir)
        else None
    )


def _compute_heat_map(path: Path, lines: str) -> HeatMap | None:
    groups = json.loads(lines)
    flagged = sorted({id for group in groups for id in group["example_ids"]})
    columns = ["example_id", "sentinel_id", "panel", "coefficient"]
    frame = pq.read_table(
        path, columns=columns, filters=[("example_id", "in", flagged)]
    ).to_pandas()
    panels = dict(zip(frame["sentinel_id"], frame["panel"], strict=True))
    by_row = frame.pivot_table(index="example_id", columns="sentinel_id", values="coefficient")[
        list(panels)
    ]
    means = np.column_stack(
        [by_row.loc[list(group["example_ids"])].mean().to_numpy() for group in groups]
    )
    return arrange_heat_map(means, list(panels), list(panels.values()))
