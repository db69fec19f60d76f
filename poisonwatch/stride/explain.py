"""Which rows of a past audit push a new query: from what it saved alone, without the rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from poisonwatch.config import StrideConfig
from poisonwatch.examples import Message
from poisonwatch.progress import Progress, silent
from poisonwatch.recovery.robust import compute_robust_z
from poisonwatch.stride.fitted import FittedOperators
from poisonwatch.stride.measurement import measure
from poisonwatch.stride.queries import prepare_answers
from poisonwatch.stride.recover import estimate_coefficients
from poisonwatch.stride.saved_rows import Attribution, RowReader, SavedRows, read_nothing
from poisonwatch.text.words import plural


@dataclass(frozen=True, slots=True)
class ExplainedRow:
    """One row's part in a query: `coefficient` in background standard deviations, `score` in robust
    standard deviations over all rows; positive makes it likelier.

    `source` and `position` say where a new row of the audit was; None for a trusted row. Where
    gradients took too much room to be kept, a row that was not measured again is not `exact`: its
    numbers are as far as sketches tell.
    """

    rank: int
    example_id: str
    source: str | None
    position: int | None
    coefficient: float
    score: float
    exact: bool = True


def attribute_conversation(
    fitted: FittedOperators | SavedRows,
    prompt: str,
    response: str,
    stride: StrideConfig,
    *,
    first: int = 10,
    read_rows: RowReader = read_nothing,
    progress: Progress = silent,
) -> Attribution:
    """Coefficients (n,) of the rows for one conversation; where gradients were not kept, exact for
    the `first` rows as far as `read_rows` can read them. Raises ModelError where the response is
    empty.
    """
    encoded = fitted.encoder.encode((Message("user", prompt), Message("assistant", response)))
    query = prepare_answers(fitted, [encoded], np.eye(1), stride, progress=progress)
    if isinstance(fitted, SavedRows):
        return fitted.attribute_first(query, first, read_rows, stride.token_budget, progress)
    y = measure(fitted, fitted.operators, query, stride, progress)
    w = estimate_coefficients(fitted, y, stride).w[:, 0]
    return Attribution(w, np.ones(len(w), dtype=bool))


def explain_response(
    run_dir: Path,
    fitted: FittedOperators | SavedRows,
    prompt: str,
    response: str,
    stride: StrideConfig,
    top: int = 10,
    progress: Progress = silent,
    read_rows: RowReader = read_nothing,
) -> list[ExplainedRow]:
    """The `top` rows of a past audit that make the response likelier, strongest first. Raises
    ModelError where the response is empty.
    """
    found = attribute_conversation(
        fitted, prompt, response, stride, first=top, read_rows=read_rows, progress=progress
    )
    w = found.w
    # As audits score, but for panels and neighbours: one conversation has neither.
    scores = compute_robust_z(w[:, None])[:, 0]
    strongest = np.argsort(-w, kind="stable")[:top].tolist()
    places = _read_places(run_dir, [fitted.ids[i] for i in strongest])
    explained = []
    for rank, i in enumerate(strongest, start=1):
        # Trusted rows stand in no table of scores.
        source, position = places.get(fitted.ids[i], (None, None))
        row = ExplainedRow(
            rank=rank,
            example_id=fitted.ids[i],
            source=source,
            position=position,
            coefficient=float(w[i]),
            score=float(scores[i]),
            exact=bool(found.exact[i]),
        )
        explained.append(row)
    return explained


def describe_exactness(rows: Sequence[ExplainedRow]) -> str:
    """One line on which numbers are exact; empty where all are."""
    exact = [row.exact for row in rows]
    if all(exact):
        return ""
    if not any(exact):
        return "by sketch alone: these rows, or those most like them, could not be read again"
    leading = exact.index(False)
    if any(exact[leading:]):
        return f"exact for {sum(exact)} of {plural(len(rows), 'row')}; others by sketch"
    return f"exact for the first {leading}; others by sketch"


def _read_places(run_dir: Path, ids: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Source and position of those of some rows that were new, by id."""
    # A line for every row and sentinel: of a million rows only those asked for are kept.
    table = pq.read_table(
        run_dir / "scores.parquet",
        columns=["example_id", "source", "position"],
        filters=[("example_id", "in", ids)],
    ).to_pydict()
    at = zip(table["source"], table["position"], strict=True)
    return dict(zip(table["example_id"], at, strict=True))
