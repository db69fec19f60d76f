"""Average precision on real attack cases: recovery alone and after re-scoring, beside peers.

    python benchmarks/ranking.py --data DIR [--poison 10] [--seeds 3] [--only "K = n/2"] [--peers
    tracin logra ekfac]

A case is met as an audit would (`cases`): background, hard negatives and some poison rows drawn by
seed; no trusted rows.

A peer's scores of all rows and all sentinels' answers are computed once, in a process of its own
(EK-FAC: about an hour on one core). They are read in two ways: the mean over forbidden answers, and
pooled like STRIDE's own coefficients (`scoring.pool`). Peers that judge by a whole panel
(`peer_states`) score each audit from vectors of all rows.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from case_peers import CasePeers
from cases import OVER_ALL, Array, Rows, audit_rows, read_cases, read_rows, texts
from peers import CHOICES, bm25, tfidf
from sklearn.metrics import average_precision_score

from poisonwatch.config import ModelConfig, StrideConfig
from poisonwatch.examples import Example
from poisonwatch.model.pretrained import load_pretrained
from poisonwatch.stride.scoring import score_rows

STRIDES = {
    "one subset a row (default)": {},
    OVER_ALL: {},
    "K = n/2": {"K": 0.5},
    "K = n/4": {"K": 0.25},
    "K = n/8": {"K": 0.125},
    "K = n/2, random subsets": {"K": 0.5, "design": "random"},
    "K = n/2, random subsets, Lasso (the paper's)": {
        "K": 0.5,
        "design": "random",
        "recovery": "lasso",
    },
}


def stride_scores(
    rows: Rows, examples: list[Example], seed: int, asked: tuple, only: list[str]
) -> Iterator[tuple[str, Array]]:
    """Scores (n,) of every setting: from recovery alone, and after re-scoring."""
    for name in only:
        changes = STRIDES[name]
        K = round(changes["K"] * len(examples)) if "K" in changes else None
        stride = rows.stride.model_copy(update=changes | {"K": K})
        influence = rows.influence(examples, asked, stride, seed, over_all=name == OVER_ALL)
        if K is not None:
            yield (
                f"STRIDE, {name}: recovery alone",
                score_rows(influence, rescored=False).pooled.max(axis=1),
            )
        yield (
            f"STRIDE, {name}" + (": re-scored" if K is not None else ""),
            score_rows(influence).pooled.max(axis=1),
        )


def print_table(table: dict[str, list[list[float]]], names: list[str]) -> None:
    """One line a scorer: mean average precision a case and over all."""
    print("| scorer | " + " | ".join(names) + " | mean |\n|---|" + "---|" * (len(names) + 1))
    for name, columns in table.items():
        means = [float(np.mean(column)) for column in columns]
        print(
            f"| {name} | "
            + " | ".join(f"{m:.2f}" for m in means)
            + f" | **{np.mean(means):.3f}** |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--poison", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument(
        "--only", nargs="*", default=list(STRIDES), choices=list(STRIDES), help="settings of STRIDE"
    )
    parser.add_argument(
        "--peers",
        nargs="*",
        default=[],
        choices=CHOICES,
    )
    parser.add_argument("--model", default=ModelConfig().name)
    options = parser.parse_args()
    background, cases = read_rows(options.data / "background.jsonl"), read_cases(options.data)
    pretrained = load_pretrained(ModelConfig(name=options.model))
    rows = Rows(
        pretrained,
        background,
        [e for case in cases for e in case.poison + case.hard_negatives],
        StrideConfig(),
    )
    others = CasePeers(rows, cases, options.peers)
    table: dict[str, list[list[float]]] = {}
    for place, case in enumerate(cases):
        asked = rows.questions(case)
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            examples, labels = audit_rows(background, case, options.poison, seed)
            lexical = tfidf(*texts(examples, case.sentinels)) | bm25(
                *texts(examples, case.sentinels)
            )
            scored = [(name, matrix.mean(axis=1)) for name, matrix in lexical.items()]
            peers, ours = (
                others.scores(examples, case.sentinels),
                stride_scores(rows, examples, seed, asked, options.only),
            )
            for name, values in [*scored, *peers, *ours]:
                table.setdefault(name, [[] for _ in cases])[place].append(
                    average_precision_score(labels, values)
                )
    print(
        f"\naverage precision, {options.poison} poison rows, {options.seeds} seeds from {options.first_seed}"
    )
    print_table(table, [case.name for case in cases])


if __name__ == "__main__":
    main()
