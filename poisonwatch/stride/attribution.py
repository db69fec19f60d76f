"""STRIDE from rows to coefficients: fit operators, measure sentinels, recover what each row
contributes.

    y_k(q) = Loss(o_q) - Loss(o~_{q,k}) ,    w(q) from y(q) = M w(q) + noise

Positive means: training on this row makes the answer likelier.

Recovery goes on in adaptive rounds. The rows that score highest are measured alone, as subsets of
one row, which is exact, and all is recovered anew from all subsets together; rows that come up now
are measured next, until no new ones do.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from poisonwatch.arrays import RowIndices
from poisonwatch.checkpoints.store import CheckpointStore
from poisonwatch.config import StrideConfig
from poisonwatch.examples import Example
from poisonwatch.model.encoding import ChatEncoder
from poisonwatch.model.frozen import FrozenModel, find_decoder_blocks
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.progress import Progress, silent
from poisonwatch.stride.designs import draw_by_design
from poisonwatch.stride.fitted import Fitted, LearningCurve
from poisonwatch.stride.natural_gradient import Geometry, load_or_measure_statistics, sum_subsets
from poisonwatch.stride.operators import BASIS_ROWS, Basis, Operators, fit_basis, solve_operators
from poisonwatch.stride.reference_cache import compute_moments_key
from poisonwatch.stride.row_statistics import measure_row_statistics
from poisonwatch.stride.sampling import draw_order
from poisonwatch.stride.settings import resolve_settings
from poisonwatch.stride.sgd import build_training_settings, check_trainable, train_operators
from poisonwatch.stride.similarity import allocate_views, compute_features, survey_views


def fit(
    pretrained: Pretrained,
    examples: Sequence[Example],
    stride: StrideConfig,
    seed: int = 0,
    progress: Progress = silent,
    checkpoint: Path | None = None,
    ordinary: RowIndices | None = None,
    trusted: RowIndices | None = None,
    work: CheckpointStore | None = None,
) -> Fitted:
    """Fit the subsets' operators to the rows. Results do not depend on the order of the rows.

    The yardstick's conversations are drawn from the rows `ordinary`, by default from all; basis and
    Fisher factors come from these, or from the rows `trusted` where they are given, whose
    statistics are then kept for the next fit (`statistics`). A training (`fit: sgd`) keeps its
    state in the file `checkpoint` and goes on from it. What an interrupted fit left in `work` is
    not passed over again.
    """
    work = work or CheckpointStore()
    width = int(pretrained.model.config.get_text_config().hidden_size)
    settings = resolve_settings(
        stride, len(find_decoder_blocks(pretrained.model)), width, len(examples)
    )
    model = FrozenModel(pretrained.model, settings.layer)
    encoder = ChatEncoder(pretrained.tokenizer, stride.max_tokens)
    ids = tuple(example.id for example in examples)
    encoded = tuple(encoder.encode(example.messages, example.rejected) for example in examples)
    order, n = draw_order(ids, seed), len(ids)
    sample = (order if ordinary is None else order[np.isin(order, ordinary)])[: stride.background]
    if stride.fit == "sgd":
        check_trainable(encoded)
        first = [encoded[i] for i in sample[:BASIS_ROWS]]
        basis = work.get_or_compute(
            "basis",
            Basis,
            lambda: fit_basis(model, first, settings.r, stride.token_budget, progress),
        )
        features = compute_features(
            survey_views(model, encoded, basis, stride.token_budget, progress, work)
        )
        membership, dials = (
            draw_by_design(ids, features, settings, stride, seed),
            build_training_settings(stride),
        )
        operators, curve = work.get_or_compute(
            "training",
            tuple[Operators, LearningCurve],
            lambda: train_operators(
                model, encoded, membership, basis, dials, seed, checkpoint, progress
            ),
        )
        M, unmeasured = membership.matrix(), (np.zeros(n), np.ones(n))
        return Fitted(
            settings, model, encoder, ids, operators, M, features, *unmeasured, encoded, None, curve
        )
    known = sample if trusted is None else order[np.isin(order, trusted)]
    key = (
        None
        if trusted is None
        else compute_moments_key(pretrained, stride, settings.layer, [ids[i] for i in known])
    )
    statistics = load_or_measure_statistics(
        model, [encoded[i] for i in known], settings.r, stride, key, progress, work
    )
    basis, rest = statistics.basis, np.setdiff1d(sample, known)
    views = allocate_views(n, basis)
    views[known] = statistics.views
    beside = measure_row_statistics(
        model, [encoded[i] for i in rest], basis, stride.token_budget, "sample", progress, work
    )
    views[rest] = beside.views
    known, G = np.concatenate([known, rest]), torch.cat([statistics.G, beside.G])
    geometry = Geometry.of(basis, statistics.moments, stride.damping, known, G, sample)
    if (
        n != settings.K
        # memberships of like rows need to know all states first; else the pass over the rows sees them
        # anyway
    ):
        left = np.setdiff1d(np.arange(n), known)
        views[left] = survey_views(
            model, [encoded[i] for i in left], basis, stride.token_budget, progress, work
        )
    membership = draw_by_design(ids, compute_features(views), settings, stride, seed)
    on_the_way = views if n == settings.K else None
    sums = sum_subsets(
        model,
        encoded,
        membership,
        geometry,
        stride.token_budget,
        progress,
        views=on_the_way,
        work=work,
    )
    operators = solve_operators(sums.G, geometry.preconditioner, basis, stride.shift)
    return Fitted(
        settings,
        model,
        encoder,
        ids,
        operators,
        membership.matrix(),
        compute_features(views),
        sums.centre,
        sums.spread,
        encoded,
        geometry.preconditioner,
        views=on_the_way,
    )
