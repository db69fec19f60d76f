"""Attribution methods against retraining: linear datamodeling scores, seconds and memory of STRIDE
and its peers in one run.

    python benchmarks/attribution.py toy
    python benchmarks/attribution.py lora --data DIR [--only stride logra]

The truth comes from `benchmarks/retrain.py`, as far as it was computed. A score is the Spearman
correlation over retrainings on half of the rows between the summed scores of the rows kept and
minus the query's loss, averaged over queries; intervals are bootstrapped over both. Differences are
against the best EK-FAC variant, on the same draws. Every scorer runs in a process of its own, on
one thread, and is kept in `benchmarks/cache`, which does not know of changed code: empty it to
measure anew.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import peers
import torch
from fidelity import Bools, bootstrap_interval
from numpy.typing import NDArray
from peer_ekfac import with_linear_layers
from retrain import CACHE, deletion_curve, load_truth, trained_model
from retraining_tasks import Task, lora_task, toy_task

from poisonwatch.config import StrideConfig
from poisonwatch.examples import Example
from poisonwatch.model.encoding import Encoded
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.progress import silent
from poisonwatch.stride.attribution import fit
from poisonwatch.stride.fitted import FittedOperators
from poisonwatch.stride.measurement import measure
from poisonwatch.stride.operators import compute_gradients
from poisonwatch.stride.queries import prepare_answers
from poisonwatch.stride.recover import estimate_coefficients

Array = NDArray[np.float64]


def stride(
    pretrained: Pretrained,
    examples: Sequence[Example],
    queries: Sequence[Encoded],
    config: StrideConfig,
    label: str,
) -> dict[str, Array]:
    """Coefficients (n, Q) as recovered; with one subset a row, also every row's own effect before
    kriging.
    """
    fitted = fit(pretrained, examples, config)
    question = prepare_answers(fitted, queries, np.eye(len(queries)), config)
    y = measure(fitted, fitted.operators, question, config)
    found = {f"STRIDE, {label}": estimate_coefficients(fitted, y, config).w}
    if len(examples) == fitted.settings.K and config.fit == "natural-gradient":
        own = fitted.M.T @ y
        found = {f"STRIDE, {label}": own, f"STRIDE, {label}, kriged": found[f"STRIDE, {label}"]}
        found[f"STRIDE, {label}, rows as long as they are"] = (
            own * np.where(np.isfinite(fitted.spread), fitted.spread, 0.0)[:, None]
        )
        found[f"STRIDE, {label}, unit-norm rows"] = own * _norm_over_spread(fitted, examples)
    return found


def _norm_over_spread(fitted: FittedOperators, examples: Sequence[Example]) -> Array:
    """(n, 1): what turns c_i = 1 / spread_i into c_i = 1 / ||G_i||."""
    encoded = [fitted.encoder.encode_example(example) for example in examples]
    norms = []
    for start in range(0, len(encoded), 64):  # gradients of all rows at once would not fit
        G = compute_gradients(
            fitted.model, fitted.operators.basis, encoded[start : start + 64], 2048, "rows", silent
        )
        norms.append(G.flatten(1).norm(dim=1).numpy())
    ratio: Array = (fitted.spread / np.maximum(np.concatenate(norms), np.finfo(np.float32).tiny))[
        :, None
    ]
    return ratio


def kept(name: str, run: Callable[[], dict[str, Array]]) -> peers.Measured:
    """What a run gave and cost, from the cache where it was measured before: on real models it
    takes minutes.
    """
    path = (
        CACHE
        / "attribution"
        / f"{''.join(c if c.isalnum() or c in '.-' else '_' for c in name)}.pt"
    )
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(peers.measured(run), path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
    cost: peers.Measured = torch.load(path, weights_only=False)  # written above
    return cost


def print_table(
    task: str,
    scores: dict[str, Array],
    costs: dict[str, peers.Measured],
    subsets: Bools,
    losses: Array,
    chosen: list[int],
) -> None:
    """Scores over the `chosen` queries, with their differences to the best EK-FAC variant and what
    they cost.
    """
    truth = losses[:, chosen]
    ekfac = [name for name in scores if name.startswith("EK-FAC")]
    best = max(
        ekfac,
        key=lambda name: bootstrap_interval(scores[name][:, chosen], subsets, truth, draws=1).mean,
        default=None,
    )
    print(f"\n{task}: {len(subsets)} retrainings, {len(chosen)} queries, {subsets.shape[1]} rows\n")
    print(
        "| scorer | score | minus best EK-FAC | processor seconds | peak memory, MiB |\n|---|---|---|---|---|"
    )
    for name, matrix in scores.items():
        own = bootstrap_interval(matrix[:, chosen], subsets, truth)
        difference = ""
        if best not in (None, name):
            ahead = bootstrap_interval(matrix[:, chosen], subsets, truth, scores[best][:, chosen])
            difference = f"{ahead.mean:+.3f} [{ahead.low:+.3f}, {ahead.high:+.3f}]"
        cost = f"{costs[name].processor_seconds:.1f} | {costs[name].peak_memory_mb:.0f}"
        print(
            f"| {name} | {own.mean:.3f} [{own.low:.3f}, {own.high:.3f}] | {difference} | {cost} |",
            flush=True,
        )


def print_deletion(task: Task, name: str, scores: Array, queries: int) -> None:
    """How far the first queries' losses rise without the rows that the scores (n, Q) name, beside
    any rows; nats a token.
    """
    print(
        f"\nloss after dropping rows by {name}, minus that with all rows\n\n| query | k | top k | random k |\n|---|---|---|---|"
    )
    for query in range(queries):
        curve = deletion_curve(task, query, scores[:, query])
        for k, top, random in zip(curve.ks, curve.top, curve.random, strict=True):
            print(f"| {query} | {k} | {top:+.2f} | {random.mean():+.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=["toy", "lora"])
    parser.add_argument("--data", type=Path, help="folder of real cases, for lora")
    parser.add_argument(
        "--only",
        nargs="*",
        default=["stride", "lexical", "hidden_states", "tracin", "logra", "ekfac"],
    )
    parser.add_argument(
        "--without",
        type=int,
        nargs="*",
        metavar="Q",
        help="a second table leaves out these queries (counted from 0)",
    )
    parser.add_argument(
        "--deletion",
        type=int,
        default=0,
        metavar="Q",
        help="also deletion curves of the first Q queries",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = toy_task() if options.task == "toy" else lora_task(options.data)
    subsets, losses = load_truth(options.task, task.rows)
    pretrained = trained_model(task)
    plain = replace(pretrained, model=with_linear_layers(pretrained.model))
    encoder = pretrained.make_encoder()
    rows, queries = (
        [encoder.encode_example(e) for e in part] for part in (task.rows, task.queries)
    )
    n, depth = len(rows), int(pretrained.model.config.num_hidden_layers)
    late = depth - 2 if depth > 2 else depth - 1
    runs: list[tuple[str, Callable[[], dict[str, Array]]]] = []

    def add(layer: int, label: str, **changes: object) -> None:
        config = StrideConfig(layer=layer, **changes)
        runs.append((label, partial(stride, pretrained, task.rows, queries, config, label)))

    if "stride" in options.only:
        for layer in sorted({depth * 2 // 5, late}):
            for damping in (0.1, 0.01):
                add(layer, f"layer {layer}, damping {damping:g}", damping=damping)
        add(late, f"layer {late}, K = n/2, alike, kriged", K=n // 2)
        add(
            late,
            f"layer {late}, K = n/2, random, Lasso",
            K=n // 2,
            design="random",
            recovery="lasso",
        )
        add(late, f"layer {late}, K = n/2, random, kriged", K=n // 2, design="random")
    if "sgd" in options.only:  # both fits on the same subsets
        for fit_by in ("natural-gradient", "sgd"):
            label = f"layer {late}, {fit_by}, K = n/4, random, Lasso"
            add(late, label, K=n // 4, design="random", recovery="lasso", fit=fit_by)
    if "lexical" in options.only:
        row_texts, query_texts = (
            [f"{e.prompt} {e.response}" for e in part] for part in (task.rows, task.queries)
        )
        runs += [
            (name, partial(peers.PEERS[name], row_texts, query_texts)) for name in ("tfidf", "bm25")
        ]
    runs += [
        (name, partial(peers.PEERS[name], plain, rows, queries))
        for name in options.only
        if name in peers.PEERS
    ]
    scores: dict[str, Array] = {}
    costs: dict[str, peers.Measured] = {}
    for label, run in runs:
        cost = kept(f"{options.task}-{pretrained.fingerprint[:12]}-{label}", run)
        for name, matrix in cost.scores.items():
            scores[name], costs[name] = matrix, cost
            print(f"{name}: {cost.seconds:.1f} s", flush=True)
    print_table(options.task, scores, costs, subsets, losses, list(range(len(queries))))
    if options.without:
        print_table(
            options.task,
            scores,
            costs,
            subsets,
            losses,
            [q for q in range(len(queries)) if q not in options.without],
        )
    if options.deletion:
        ours = next(
            name for name in scores if f"layer {late}" in name and name.endswith("unit-norm rows")
        )
        print_deletion(task, ours, scores[ours], options.deletion)


if __name__ == "__main__":
    main()
