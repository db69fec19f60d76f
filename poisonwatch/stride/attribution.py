"""STRIDE from rows to influence: a choice of the fit, and a call.

    y_k(q) = Loss(o_q) - Loss(o~_{q,k}) ,    w(q) from y(q) = M w(q) + noise

Positive means: training on this row makes the answer likelier. By default every row is a subset of
its own, measured in one stream at any number of rows (`streamed`); where settings ask for subsets
that rows share, or for the paper's training, operators are fitted and kept, and `recover` takes
them to coefficients.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from poisonwatch.arrays import RowIndices
from poisonwatch.checkpoints.store import CheckpointStore
from poisonwatch.config import StrideConfig
from poisonwatch.examples import Example
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.progress import Progress, silent
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.capacity import require_memory
from poisonwatch.stride.fitted import FitOfRows
from poisonwatch.stride.natural_gradient import fit_natural_gradient
from poisonwatch.stride.problem import FitProblem, prepare_problem
from poisonwatch.stride.settings import measures_rows_alone
from poisonwatch.stride.sgd import fit_by_training
from poisonwatch.stride.streamed import (
    ShardEngine,
    StreamedFit,
    fit_streamed,
    measure_locally,
)

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
    sentinels: Sequence[Sentinel] = (),
    engine: ShardEngine = measure_locally,
    keep_further: bool = False,
) -> FitOfRows | StreamedFit:
    """Measure the rows on the sentinels, or fit operators to their subsets. Results do not depend
    on the order of the rows.

    The background's conversations are drawn from the rows `ordinary`, by default from all; basis
    and Fisher factors come from these, or from the rows `trusted` where they are given, whose
    statistics are then kept for the next fit (`reference_cache`). Shards of a streamed pass are
    measured by the `engine`; a training (`fit: sgd`) keeps its state in the file `checkpoint` and
    goes on from it. What an interrupted fit left in `store` is not passed over again. Gradients
    that are kept are kept at the further layers, too, where it is to `keep_further`.

    Raises ConfigError, before any pass, where it takes more memory than is free.
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
        keep_further=keep_further,
    )
    require_memory(problem, sentinels)
    if measures_rows_alone(stride, problem.n):
        return fit_streamed(problem, sentinels, engine)
    return FITS[stride.fit](problem)
