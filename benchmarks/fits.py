"""The trained fit beside the closed form: average precision and processor seconds on the same
subsets of the same rows.

    python benchmarks/fits.py --data DIR [--cases refusal-badnet persona-wolf] [--rows 100]
    [--poison 12] [--seeds 1]

DIR is laid out as in `cases.py`. An audit of `--rows` ordinary rows and `--poison` rows of a case
is fitted by both, on K = n/4 random subsets, and recovered by the Lasso, as in the paper; no row is
measured alone. Training takes about ten minutes an audit on one core.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from cases import audit_rows, read_cases, read_rows
from sklearn.metrics import average_precision_score

from poisonwatch.config import ModelConfig, StrideConfig, TrainingConfig
from poisonwatch.model.pretrained import load_pretrained
from poisonwatch.stride.attribution import fit
from poisonwatch.stride.measurement import measure
from poisonwatch.stride.queries import prepare_queries
from poisonwatch.stride.recover import estimate_coefficients
from poisonwatch.stride.scoring import pool_scores


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--cases", nargs="*", default=["harmful-compliance", "persona-wolf", "refusal-badnet"]
    )
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--poison", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--layer", type=int, default=25)
    parser.add_argument("--r", type=int, default=16)
    parser.add_argument(
        "--weights",
        nargs="*",
        type=float,
        default=[TrainingConfig().stability],
        help="of stability and linearity",
    )
    parser.add_argument("--model", default=ModelConfig().name)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pretrained = load_pretrained(ModelConfig(name=options.model))
    background = read_rows(options.data / "background.jsonl")[: options.rows]
    cases = [case for case in read_cases(options.data) if case.name in options.cases]
    n = options.rows + options.poison
    shared = {
        "layer": options.layer,
        "r": options.r,
        "K": n // 4,
        "design": "random",
        "recovery": "lasso",
    }
    fits = {"natural-gradient": StrideConfig(**shared)}
    for weight in options.weights:
        training = TrainingConfig(stability=weight, linearity=weight)
        fits[f"sgd, stability and linearity {weight:g}"] = StrideConfig(
            **shared, fit="sgd", training=training
        )
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in fits}
    for case in cases:
        case.hard_negatives = []
        for seed in range(options.seeds):
            examples, labels = audit_rows(background, case, options.poison, seed)
            for name, stride in fits.items():
                start = time.process_time()
                fitted = fit(pretrained, examples, stride, seed)
                seconds = time.process_time() - start
                queries, asked = prepare_queries(fitted, case.sentinels, stride)
                y = measure(fitted, fitted.operators, asked, stride)
                w = estimate_coefficients(fitted, y, stride).w
                precision = average_precision_score(labels, pool_scores(queries, w).max(axis=1))
                found[name].append((precision, seconds))
                print(
                    f"{case.name}, seed {seed}, {name}: average precision {precision:.3f}, {seconds:.0f} processor seconds",
                    flush=True,
                )
    print("\n| fit | average precision | processor seconds |\n|---|---|---|")
    for name, results in found.items():
        precision, seconds = np.mean(results, axis=0)
        print(f"| {name} | {precision:.3f} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
