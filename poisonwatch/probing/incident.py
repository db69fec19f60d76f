"""The rows behind a bad answer of a trained model, by the trained model's own gradients.

`explain` asks what training *would* do to the base, from operators that an audit kept. Here the
model was trained already, on rows that may never have been audited: it is passed over them anew,
and the question is which of them hold the answer in place. A row that the model has learnt has a
small gradient; its effect still points where it did, and is counted in what the row does to
ordinary conversations (`stride.background`), which is as small.
"""

from dataclasses import dataclass

import numpy as np

from poisonwatch.config import StrideConfig
from poisonwatch.detection.trusted import LEAST_TRUSTED
from poisonwatch.errors import InputError
from poisonwatch.examples import AuditRows, Example
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.progress import Progress, silent
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.attribution import fit
from poisonwatch.stride.recover import recover_influence
from poisonwatch.stride.scoring import score_rows
from poisonwatch.stride.streamed import StreamedFit

LEAST_ROWS = 24  # beside which a row can be unusual


@dataclass(frozen=True, slots=True)
class RowBehind:
    """A row behind an answer. `score` is its part in robust standard deviations over all rows,
    alike ones raising each other; positive makes the answer likelier.
    """

    rank: int
    score: float
    example: Example


def find_rows_behind(
    pretrained: Pretrained,
    rows: AuditRows,
    asked: Sentinel,
    stride: StrideConfig,
    *,
    seed: int = 0,
    top: int = 10,
    progress: Progress = silent,
) -> list[RowBehind]:
    """The `top` new rows that a trained model has its answer from, strongest first: the forbidden
    answer of `asked`, beside its reference answer where it has one. Trusted rows are there to be
    compared with.

    Raises InputError where there are too few rows to say what is unusual among them.
    """
    if len(rows) < LEAST_ROWS:
        raise InputError(
            f"{len(rows)} rows are too few to say which of them stand out: give at least "
            f"{LEAST_ROWS}, trusted ones (`reference`) among them"
        )
    trusted = np.array(rows.trusted_places) if len(rows.trusted) >= LEAST_TRUSTED else None
    fitted = fit(
        pretrained,
        rows.all,
        stride,
        seed=seed,
        progress=progress,
        trusted=trusted,
        sentinels=[asked],
    )
    if isinstance(fitted, StreamedFit):
        influence = fitted.recover(progress)
    else:
        influence, _ = recover_influence(fitted, [asked], stride, progress)
    scores = score_rows(influence).pooled[:, 0]
    new = {row.id: row for row in rows.new}
    strongest = np.argsort(-scores, kind="stable").tolist()
    named = [i for i in strongest if fitted.ids[i] in new][:top]
    found = []
    for rank, i in enumerate(named, start=1):
        found.append(RowBehind(rank, float(scores[i]), new[fitted.ids[i]]))
    return found
