"""Which sentinels each group of flagged rows moves, as a table of colours and numbers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from poisonwatch.arrays import Array
from poisonwatch.run_directory.pairs import read_lines
from poisonwatch.run_directory.read import read_cached, read_evidence

# Whoever draws a picture of a past audit needs no model.
if TYPE_CHECKING:
    from poisonwatch.detection.detection import Detection
    from poisonwatch.detection.evidence import ClusterEvidence

MOST_HEAT_GROUPS = 12
MOST_HEAT_SENTINELS = 40
# Of a picture's strongest step: past each, a stronger colour.
STEP_SHARES = (0.1, 0.3, 1.0)
WEAKEST_SCALE = 1.0  # spreads: what moves no sentinel by more is pale, whatever is beside it


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Mean coefficients `values` (S, G), in spreads: of `sentinels` (S ids) for the first G groups.
    Sentinels of one panel stand together, the most moved panel first, and in it the most moved
    sentinel.

    `levels` (S, G) are -3 to 3: how many of the picture's own `steps` (in spreads) the value
    reaches, with its sign. What did not fit is counted.
    """

    sentinels: tuple[str, ...]
    panels: tuple[str, ...]
    values: Array
    steps: tuple[float, ...]
    levels: NDArray[np.int64]
    sentinels_left_out: int
    groups_left_out: int


def build_heat_map(detection: "Detection", evidence: Sequence["ClusterEvidence"]) -> HeatMap | None:
    """How strongly the rows of each group in `evidence` push each sentinel, on average; None
    without groups or sentinels.
    """
    if not evidence or not detection.sentinels:
        return None
    columns = []
    for group in evidence:
        columns.append(detection.coefficients[list(group.rows)].mean(axis=0))
    sentinels = [sentinel.id for sentinel in detection.sentinels]
    panels = [sentinel.panel for sentinel in detection.sentinels]
    return arrange_heat_map(np.column_stack(columns), sentinels, panels)


def arrange_heat_map(means: Array, sentinels: Sequence[str], panels: Sequence[str]) -> HeatMap:
    """The heat map of mean coefficients (S, G) of all sentinels, with their panels, and all groups.

    Those are shown that have the largest absolute values.
    """
    # Groups come in the order of their size: the first are those to look at.
    shown = means[:, :MOST_HEAT_GROUPS]
    # Stable: sentinels that nothing moves stay in the order of the audit file.
    order = np.argsort(-np.abs(shown).max(axis=1), kind="stable")[:MOST_HEAT_SENTINELS]
    kept = [panels[s] for s in order.tolist()]
    # A panel stands where its most moved sentinel does.
    order = order[np.argsort([kept.index(panel) for panel in kept], kind="stable")]
    values = shown[order]
    steps = choose_steps(values)
    return HeatMap(
        sentinels=tuple(sentinels[s] for s in order.tolist()),
        panels=tuple(panels[s] for s in order.tolist()),
        values=values,
        steps=steps,
        levels=compute_levels(values, steps),
        sentinels_left_out=len(means) - len(order),
        groups_left_out=means.shape[1] - shown.shape[1],
    )


def choose_steps(values: Array) -> tuple[float, ...]:
    """The steps of a picture's colours: the last is the largest of 1, 2, 5, 10, 20, ... that a
    value reaches, at least WEAKEST_SCALE.
    """
    largest = max(float(np.abs(values).max(initial=0.0)), WEAKEST_SCALE)
    power = 10.0 ** np.floor(np.log10(largest))
    strongest = max(k * power for k in (1.0, 2.0, 5.0) if k * power <= largest * (1 + 1e-9))
    return tuple(float(f"{share * strongest:.3g}") for share in STEP_SHARES)


def compute_levels(values: Array, steps: Sequence[float]) -> NDArray[np.int64]:
    """How many of these steps each value reaches, with its sign."""
    reached = np.searchsorted(steps, np.abs(values), side="right")
    return np.asarray(np.sign(values) * reached, dtype=np.int64)


def read_heat_map(run_dir: Path | None) -> HeatMap | None:
    """Which sentinels each group of flagged rows moves; None where nothing was flagged, or it is
    not known.
    """
    evidence = read_evidence(run_dir)
    if not evidence:
        return None
    # What is read is kept by its arguments: the groups go along as text, which can be hashed.
    lines = json.dumps(evidence)
    return read_cached(_compute_heat_map, None, run_dir, "scores.parquet", lines)


def _compute_heat_map(path: Path, lines: str) -> HeatMap | None:
    groups = json.loads(lines)
    flagged: set[str] = set()
    for group in groups:
        flagged.update(group["example_ids"])
    # Flagged rows alone are read: an audit may have scored a million.
    columns = ["example_id", "sentinel_id", "panel", "coefficient"]
    frame = read_lines(path, "example_id", flagged, columns).to_pandas()
    panels = dict(zip(frame["sentinel_id"], frame["panel"], strict=True))
    by_row = frame.pivot_table(index="example_id", columns="sentinel_id", values="coefficient")
    # A pivot sorts its columns; the file has the audit's order.
    by_row = by_row[list(panels)]
    means = []
    for group in groups:
        means.append(by_row.loc[list(group["example_ids"])].mean().to_numpy())
    return arrange_heat_map(np.column_stack(means), list(panels), list(panels.values()))
