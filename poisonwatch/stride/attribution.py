"""STRIDE from rows to operators: a choice of the fit, and a call.

    y_k(q) = Loss(o_q) - Loss(o~_{q,k}) ,    w(q) from y(q) = M w(q) + noise

Positive means: training on this row makes the answer likelier. `recover` takes the operators from
here to coefficients.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from poisonwatch.arrays import RowIndices
from poisonwatch.checkpoints.store import CheckpointStore
from poisonwatch.config import StrideConfig
from poisonwatch.examples import Example
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.progress import Progress, silent
from poisonwatch.stride.fitted import FitOfRows
from poisonwatch.stride.natural_gradient import fit_natural_gradient
from poisonwatch.stride.problem import FitProblem, prepare_problem
from poisonwatch.stride.sgd import fit_by_training

FITS: dict[str, Callable[[FitProblem], FitOfRows]] = {
    "natural-gradient": fit_natural_gradient,
    "sgd": fit_by_training,
}


def fit(
    pretrained: Pretrained,
    examples: Sequence[Example],
    stride: StrideConfig,
    seed: int = 0,
    progress: Progress = silent,
    checkpoint: Path | None = None,
    ordinary: RowIndices | None = None,
    trusted: RowIndices | None = None,
    store: CheckpointStore | None = None,
) -> FitOfRows:
    """Fit the subsets' operators to the rows. Results do not depend on the order of the rows.

    The background's conversations are drawn from the rows `ordinary`, by default from all; basis
    and Fisher factors come from these, or from the rows `trusted` where they are given, whose
    statistics are then kept for the next fit (`reference_cache`). A training (`fit: sgd`) keeps its
    state in the file `checkpoint` and goes on from it. What an interrupted fit left in `store` is
    not passed over again.
    """
    problem = prepare_problem(
        pretrained,
        examples,
        stride,
        seed=seed,
        progress=progress,
        training_checkpoint=checkpoint,
        ordinary=ordinary,
        trusted=trusted,
        store=store,
    )
    return FITS[stride.fit](problem)
