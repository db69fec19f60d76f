"""Which rows of a past audit push a new query: from the saved operators alone, without the rows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from poisonwatch.arrays import Array
from poisonwatch.config import StrideConfig
from poisonwatch.examples import Message
from poisonwatch.progress import Progress, silent
from poisonwatch.stride.fitted import Fitted
from poisonwatch.stride.queries import prepare_answers
from poisonwatch.stride.recover import estimate_coefficients
from poisonwatch.stride.scoring import compute_robust_z


@dataclass(frozen=True, slots=True)
class ExplainedRow:
    """One row's part in a query: `coefficient` in spreads, `score` in robust standard deviations
    over all rows; positive makes it likelier.

    `source` and `position` say where a new row of the audit was; None for a trusted row.
    """

    rank: int
    example_id: str
    source: str | None
    position: int | None
    coefficient: float
    score: float


def attribute_conversation(
    fitted: Fitted, prompt: str, response: str, stride: StrideConfig, progress: Progress = silent
) -> Array:
    """Coefficients (n,) of the rows for one conversation. Raises ModelError where the response is
    empty.
    """
    encoded = fitted.encoder.encode((Message("user", prompt), Message("assistant", response)))
    question = prepare_answers(fitted, [encoded], np.eye(1), stride, progress)
    w: Array = estimate_coefficients(
        fitted, question.measure(fitted, fitted.operators, stride, progress), stride
    ).w[:, 0]
    return w


def explain_response(
    run_dir: Path,
    fitted: Fitted,
    prompt: str,
    response: str,
    stride: StrideConfig,
    top: int = 10,
    progress: Progress = silent,
) -> list[ExplainedRow]:
    """The `top` rows of a past audit that make the response likelier, strongest first. Raises
    ModelError where the response is empty.
    """
    w = attribute_conversation(fitted, prompt, response, stride, progress)
    scores = compute_robust_z(w[:, None])[:, 0]
    table = pq.read_table(
        run_dir / "scores.parquet", columns=["example_id", "source", "position"]
    ).to_pydict()
    places = dict(
        zip(table["example_id"], zip(table["source"], table["position"], strict=True), strict=True)
    )
    best = np.argsort(-w, kind="stable")[:top].tolist()
    explained = []
    for rank, i in enumerate(best, start=1):
        source, position = places.get(fitted.ids[i], (None, None))
        explained.append(
            ExplainedRow(rank, fitted.ids[i], source, position, float(w[i]), float(scores[i]))
        )
    return explained
