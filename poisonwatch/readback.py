"""What an audit left in its run directory, read back for people who look at it.

A run directory does not change once it is complete, so what was read is kept. It may be gone, or be on another machine: then everything
here is empty.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from poisonwatch.examples import Example, Message
from poisonwatch.flags import flagged_example
from poisonwatch.heatmap import HeatMap, heat_of
from poisonwatch.run_dirs import read_lines
from poisonwatch.sentinels import Sentinel

Array = NDArray[np.float64]
KEPT = 16  # audits


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Coefficients on one sentinel, in spreads: `of_row`'s own, those of all new rows (n,), and of the trusted rows (n_ref,)."""

    of_row: float
    new: Array
    trusted: Array


@lru_cache(KEPT)
def evidence(run_dir: Path) -> tuple[Mapping[str, Any], ...]:
    """The lines of evidence.jsonl: groups of flagged rows, in their order."""
    path = run_dir / "evidence.jsonl"
    return tuple(read_lines(path)) if path.exists() else ()


@lru_cache(KEPT)
def nearest(run_dir: Path) -> Mapping[str, Example]:
    """The trusted rows that the evidence names, by example id."""
    path = run_dir / "nearest.jsonl"
    return {record["example_id"]: flagged_example(record) for record in read_lines(path)} if path.exists() else {}


@lru_cache(KEPT)
def sentinels(run_dir: Path) -> Mapping[str, Sentinel]:
    """The sentinels as the audit asked them, probes among them, by id."""
    path = run_dir / "sentinels.jsonl"
    return {record["id"]: _sentinel(record) for record in read_lines(path)} if path.exists() else {}


def _sentinel(record: Mapping[str, Any]) -> Sentinel:
    messages, tags = tuple(Message(**message) for message in record["messages"]), tuple(record["tags"])
    return Sentinel(**{**record, "messages": messages, "tags": tags})


def nearest_to(run_dir: Path, group: Mapping[str, Any] | None, example_id: str) -> list[tuple[Example, float]]:
    """The trusted rows most like a flagged row of a group, with their likeness in [-1, 1]."""
    if group is None or example_id not in group["example_ids"]:
        return []
    known, named = nearest(run_dir), group["nearest"][group["example_ids"].index(example_id)]
    return [(known[near["example_id"]], near["likeness"]) for near in named if near["example_id"] in known]


def coefficients(run_dir: Path, sentinel_id: str, example_id: str) -> Coefficients | None:
    """The coefficients on a sentinel, seen from one row; None where the audit left none of them."""
    new, trusted = _column(run_dir / "scores.parquet", sentinel_id), _column(run_dir / "trusted.parquet", sentinel_id)
    if new is None or example_id not in new[0]:
        return None
    return Coefficients(float(new[1][new[0].index(example_id)]), new[1], np.zeros(0) if trusted is None else trusted[1])


@lru_cache(4 * KEPT)
def _column(path: Path, sentinel_id: str) -> tuple[Sequence[str], Array] | None:
    """Example ids and coefficients of a sentinel's lines."""
    if not path.exists():
        return None
    table = pq.read_table(path, columns=["example_id", "coefficient"], filters=[("sentinel_id", "=", sentinel_id)])
    return table["example_id"].to_pylist(), table["coefficient"].to_numpy()


@lru_cache(KEPT)
def heat_map(run_dir: Path) -> HeatMap | None:
    """Which sentinels each group of flagged rows moves; None where nothing was flagged, or it is not known."""
    groups, path = evidence(run_dir), run_dir / "scores.parquet"
    if not groups or not path.exists():
        return None
    flagged = sorted({id for group in groups for id in group["example_ids"]})
    columns = ["example_id", "sentinel_id", "panel", "coefficient"]
    frame = pq.read_table(path, columns=columns, filters=[("example_id", "in", flagged)]).to_pandas()
    panels = dict(zip(frame["sentinel_id"], frame["panel"], strict=True))
    by_row = frame.pivot_table(index="example_id", columns="sentinel_id", values="coefficient")[list(panels)]
    means = np.column_stack([by_row.loc[list(group["example_ids"])].mean().to_numpy() for group in groups])
    return heat_of(means, list(panels), list(panels.values()))
