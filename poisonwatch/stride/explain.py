"""Which rows of a past audit push a new query: from what it saved alone, without the rows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from poisonwatch.arrays import Array
from poisonwatch.config import StrideConfig
from poisonwatch.examples import Message
from poisonwatch.progress import Progress, silent
from poisonwatch.stride.fitted import FittedOperators
from poisonwatch.stride.measurement import measure
from poisonwatch.stride.queries import prepare_answers
from poisonwatch.stride.recover import estimate_coefficients
from poisonwatch.stride.saved_rows import SavedRows
from poisonwatch.stride.scoring import compute_robust_z


@dataclass(frozen=True, slots=True)
class ExplainedRow:
    """One row's part in a query: `coefficient` in background standard deviations, `score` in robust
    standard deviations over all rows; positive makes it likelier.

    `source` and `position` say where a new row of the audit was; None for a trusted row.
    """

    rank: int
    example_id: str
    source: str | None
    position: int | None
    coefficient: float
    score: float


def attribute_conversation(
    fitted: FittedOperators | SavedRows,
    prompt: str,
    response: str,
    stride: StrideConfig,
    *,
    progress: Progress = silent,
) -> Array:
    """Coefficients (n,) of the rows for one conversation. Raises ModelError where the response is
    empty.
    """
    encoded = fitted.encoder.encode((Message("user", prompt), Message("assistant", response)))
    query = prepare_answers(fitted, [encoded], np.eye(1), stride, progress=progress)
    if isinstance(fitted, SavedRows):
        return fitted.attribute(query)[:, 0]
    y = measure(fitted, fitted.operators, query, stride, progress)
    w: Array = estimate_coefficients(fitted, y, stride).w[:, 0]
    return w


def explain_response(
    run_dir: Path,
    fitted: FittedOperators | SavedRows,
    prompt: str,
    response: str,
    stride: StrideConfig,
    top: int = 10,
    progress: Progress = silent,
) -> list[ExplainedRow]:
    """The `top` rows of a past audit that make the response likelier, strongest first. Raises
    ModelError where the response is empty.
    """
    w = attribute_conversation(fitted, prompt, response, stride, progress=progress)
    # As audits score, but for panels and neighbours: one conversation has neither.
    scores = compute_robust_z(w[:, None])[:, 0]
    places = _read_places(run_dir)
    explained = []
    for rank, i in enumerate(np.argsort(-w, kind="stable")[:top].tolist(), start=1):
        # Trusted rows stand in no table of scores.
        source, position = places.get(fitted.ids[i], (None, None))
        row = ExplainedRow(
            rank=rank,
            example_id=fitted.ids[i],
            source=source,
            position=position,
            coefficient=float(w[i]),
            score=float(scores[i]),
        )
        explained.append(row)
    return explained


def _read_places(run_dir: Path) -> dict[str, tuple[str, int]]:
    """Source and position of every new row, by its id."""
    columns = ["example_id", "source", "position"]
    table = pq.read_table(run_dir / "scores.parquet", columns=columns).to_pydict()
    at = zip(table["source"], table["position"], strict=True)
    return dict(zip(table["example_id"], at, strict=True))
