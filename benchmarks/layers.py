"""Do several layers see more than one, and what could any rule flag?

    python benchmarks/layers.py --data DIR [--layers 12 18 24] [--seeds 3] [--null-seeds 20]

Audits are those of `detection.py`, and so are their cases. Gradients of all rows are made once a
layer (`row_bank`); the products of all pairs of them, in the metric of the Fisher factors, then
give any audit in a tenth of a second. The first layer is the one that is shipped with.

    ranking     average precision of each layer alone, and of coefficients averaged over layers
    rule        flags of the first layer alone, and where several layers agree: what a row scores
                beyond the rows around it is the least of what the layers say, and so are spreads
    nothing     false flags where nothing is planted, over many seeds
    ceiling     planted rows that score above the highest honest row of the same audit without them:
                what a threshold would flag that knows the honest rows, and flags none of them

Which layers, and the rule's constants, are chosen on some cases and reported on others, as in
`generalisation.py`.
"""

import argparse
import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from cases import Case, Rows, read_chosen
from detection import POISON, Audit, draw_audit, interval
from generalisation import MOST_FALSE, MOST_SHARE
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from poisonwatch.config import DetectionConfig, ModelConfig, StrideConfig
from poisonwatch.detection.detect import GROUP_WEIGHT, flag_rows
from poisonwatch.detection.significance import compute_p_values, compute_row_q_values
from poisonwatch.detection.topic import LEAST_SPREADS, compute_excess
from poisonwatch.examples import Example
from poisonwatch.model.pretrained import load_pretrained
from poisonwatch.recovery.local_kriging import compute_smoother
from poisonwatch.recovery.neighbours import find_neighbours
from poisonwatch.stride.influence import Influence, build_queries
from poisonwatch.stride.measured import select_suspects
from poisonwatch.stride.sampling import draw_order
from poisonwatch.stride.scoring import raise_groups, score_rows
from poisonwatch.stride.settings import resolve_shortlist
from poisonwatch.stride.similarity import compute_features

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
# Spreads that a row must stand out by, and weights of a group's excess, to choose from.
SPREADS = (2.0, 2.5, 3.0, 3.5)
WEIGHTS = (0.0, 1.0, 2.0)
ROWS_AT_ONCE = 32
OTHERS = ("agent-webshop", "loyalty-care-preference")


class Products:
    """What every row does to every other and to every query at one layer: K (N, N), rows first,
    queries after them case by case, and the plain lengths (N,) of their gradients.
    """

    def __init__(self, rows: Rows, cases: Sequence[Case]) -> None:
        self.stride = rows.stride
        self.place = rows.place
        self.columns: dict[str, NDArray[np.int64]] = {}
        whiten = rows.preconditioner.find_whitening()
        asked = [rows.questions(case)[1].G for case in cases]
        N, n = len(rows.examples) + sum(map(len, asked)), len(rows.examples)
        H = torch.empty(N, rows.basis.r * rows.model.width)
        self.lengths = np.empty(N)
        for start in range(0, n, ROWS_AT_ONCE):
            some = rows.examples[start : start + ROWS_AT_ONCE]
            self._put(H, start, rows.bank.get_gradients(some), whiten)
        for case, G in zip(cases, asked, strict=True):
            self.columns[case.name] = np.arange(n, n + len(G))
            self._put(H, n, G, whiten)
            n += len(G)
        self.K = (H @ H.T).numpy()
        self.views = rows.bank.get_views(rows.examples)

    def _put(self, H: torch.Tensor, start: int, G: torch.Tensor, whiten: tuple) -> None:
        """Whitened gradients of G (m, r, D) into H (N, r * D) from `start` on."""
        left, right = whiten
        H[start : start + len(G)] = (left.T @ G @ right).flatten(1)
        self.lengths[start : start + len(G)] = G.flatten(1).double().norm(dim=1)

    def recover(self, audit: Audit) -> Influence:
        """What an audit of these rows recovers at this layer."""
        ids = [row.id for row in audit.rows.all]
        at = np.array([self.place[id] for id in ids])
        sample = draw_order(ids, audit.seed)[: self.stride.background]
        centre, spread = self._measure_background(at, sample)
        queries = build_queries(audit.case.sentinels)
        effects = self._push(at, self.columns[audit.case.name]) / spread[:, None]
        features = compute_features(self.views[at])
        neighbours = find_neighbours(features)
        signs = np.ones(len(at))
        w = compute_smoother(features, neighbours, signs) @ (effects - centre[:, None])
        suspects = select_suspects(queries, w, resolve_shortlist(self.stride, len(at)))
        pushes = self._push(at[suspects], at[suspects]) / spread[suspects, None]
        near = features[suspects]
        smoother = compute_smoother(near, find_neighbours(near), signs[suspects])
        return Influence(
            queries=queries,
            w=w,
            first_pass=w,
            suspects=suspects,
            mutual_influence=smoother @ (pushes - centre[suspects, None]),
            features=features,
            neighbours=neighbours,
            certificate=0.0,
            measured_alone=len(at),
        )

    def _push(self, rows: NDArray[np.int64], on: NDArray[np.int64]) -> Array:
        """What rows (m,) do to others (k,) of unit length: (m, k)."""
        return self.K[np.ix_(rows, on)].astype(np.float64) / self.lengths[on]

    def _measure_background(
        self, at: NDArray[np.int64], sample: NDArray[np.int64]
    ) -> tuple[Array, Array]:
        """Centre, in spreads, and spread (n,) of what rows do to ordinary conversations."""
        pushes = self._push(at, at[sample])
        others = np.ones(pushes.shape, dtype=bool)
        others[sample, np.arange(len(sample))] = False
        count = others.sum(axis=1)
        centre = np.where(others, pushes, 0.0).sum(axis=1) / count
        deviation = np.where(others, pushes - centre[:, None], 0.0)
        spread = np.sqrt((deviation**2).sum(axis=1) / count)
        return centre / spread, spread


@dataclass(frozen=True)
class Met:
    """An audit, and what each layer recovers of it."""

    audit: Audit
    layers: dict[int, Influence]

    @property
    def poison(self) -> Bools:
        """Which new rows (n,) are planted."""
        return self.audit.labels == POISON


# Ranking


def average_layers(met: Met, layers: Sequence[int]) -> Influence:
    """The first layer's influence with coefficients averaged over layers: they count background
    standard deviations of their layer.
    """
    first = met.layers[layers[0]]
    return replace(first, w=np.mean([met.layers[layer].w for layer in layers], axis=0))


def rank(met: Met, layers: Sequence[int]) -> Array:
    """The new rows' scores (n,), the largest over panels."""
    influence = average_layers(met, layers)
    new, _ = met.audit.rows.split(score_rows(influence).pooled)
    return new.max(axis=1)


def measure_precision(met: Met, layers: Sequence[int]) -> float:
    """Average precision of an audit's ranking."""
    return float(average_precision_score(met.poison, rank(met, layers)))


# Rule


def agree(met: Met, layers: Sequence[int], least: float, weight: float) -> Bools:
    """The new rows (n,) that are flagged where all layers see them stand out."""
    beyond, in_spreads = [], []
    for layer in layers:
        influence = met.layers[layer]
        found = compute_excess(score_rows(influence).by_layer[0], influence.neighbours.rows)
        beyond.append(found.beyond)
        in_spreads.append(found.in_spreads)
    first = met.layers[layers[0]]
    raised = raise_groups(np.minimum.reduce(beyond), first, weight)
    new, trusted = met.audit.rows.split(raised)
    p = [compute_p_values(new[:, j], trusted[:, j])[0] for j in range(new.shape[1])]
    stands_out, _ = met.audit.rows.split(np.minimum.reduce(in_spreads) >= least)
    q = compute_row_q_values(np.where(stands_out, np.column_stack(p), 1.0))
    return np.asarray((q <= DetectionConfig().false_discovery_rate).any(axis=1))


def flag_as_shipped(met: Met) -> Bools:
    """The new rows (n,) that the library flags by its first layer."""
    first = next(iter(met.layers.values()))
    flags = flag_rows(first, met.audit.rows, DetectionConfig()).flags
    flagged = {flag.example.id for flag in flags}
    return np.array([row.id in flagged for row in met.audit.rows.new])


# Figures


def average_cases(met: Sequence[Met], value: Callable[[Met], float]) -> Array:
    """The mean (C,) of a figure over each case's audits, in the order of the cases."""
    found = defaultdict(list)
    for one in met:
        found[one.audit.case.name].append(value(one))
    return np.array([np.mean(values) for values in found.values()])


def measure_rule(met: Sequence[Met], flag: Callable[[Met], Bools]) -> Array:
    """Recall, false-discovery share, false flags per 1,000 rows where nothing was planted, and
    recall of 10 planted rows, of each case: (C, 4).
    """
    flags = {id(one): flag(one) for one in met}
    planted = [one for one in met if one.audit.count]
    columns = [
        average_cases(planted, lambda one: float(flags[id(one)][one.poison].mean())),
        average_cases(
            planted,
            lambda one: float(flags[id(one)][~one.poison].sum() / max(flags[id(one)].sum(), 1)),
        ),
        average_cases(
            [one for one in met if not one.audit.count],
            lambda one: float(1000 * flags[id(one)].mean()),
        ),
        average_cases(
            [one for one in met if one.audit.count == 10],
            lambda one: float(flags[id(one)][one.poison].mean()),
        ),
    ]
    return np.column_stack(columns)


def judge(figures: Array) -> float:
    """How good a rule is, as in `generalisation.py`, from its figures (C, 4) of some cases."""
    recall, share, false, _ = figures.mean(axis=0)
    cost = max(share - MOST_SHARE, 0.0) + max(false - MOST_FALSE, 0.0) / 10
    return float(recall - cost)


def take_unseen(candidates: Sequence[Array], cases: Sequence[int], halves: bool) -> Array:
    """Figures (C, f) of cases by the candidate that is best on others: on the other half of them,
    or on all others.
    """
    taken = []
    for place, case in enumerate(cases):
        others = [c for c in cases if c != case]
        if halves:
            others = list(cases[1 - place % 2 :: 2])
        best = max(candidates, key=lambda figures: _value(figures[others]))
        taken.append(best[case])
    return np.array(taken)


def _value(figures: Array) -> float:
    return float(figures.mean()) if figures.shape[1] == 1 else judge(figures)


def print_line(label: str, figures: Array) -> None:
    print(f"| {label} | " + " | ".join(interval(list(column)) for column in figures.T) + " |")


def list_subsets(layers: Sequence[int]) -> list[tuple[int, ...]]:
    """The subsets of the layers with the first in them, smallest first."""
    rest = layers[1:]
    found = []
    for size in range(len(rest) + 1):
        found += [(layers[0], *some) for some in itertools.combinations(rest, size)]
    return found


def print_ranking(met: Sequence[Met], names: Sequence[str], layers: Sequence[int]) -> None:
    planted = [one for one in met if one.audit.count]
    kinds = [(layer,) for layer in layers[1:]] + list_subsets(layers)
    some = [i for i, name in enumerate(names) if name not in OTHERS]
    figures = {}
    for kind in kinds:
        figures[kind] = average_cases(planted, partial(measure_precision, layers=kind))[:, None]
    shipped = figures[(layers[0],)]
    print("\n| layers | " + " | ".join(names) + " | mean of fourteen | less the first layer's |")
    print("|---|" + "---|" * (len(names) + 2))
    for kind, found in figures.items():
        cells = " | ".join(f"{value:.2f}" for value in found[:, 0])
        difference = interval(list((found - shipped)[some, 0]))
        print(f"| {kind} | {cells} | {interval(list(found[some, 0]))} | {difference} |")
    for halves in (False, True):
        unseen = take_unseen(list(figures.values()), some, halves)
        print_line("halves: *not seen*" if halves else "one case out: *not seen*", unseen)


def print_rules(met: Sequence[Met], names: Sequence[str], layers: Sequence[int]) -> None:
    some = [i for i, name in enumerate(names) if name not in OTHERS]
    print(
        "\n| rule | recall of the flags | false-discovery share | false flags per 1,000 rows, "
        "nothing planted | recall, 10 planted |\n|---|---|---|---|---|"
    )
    print_line("as shipped", measure_rule(met, flag_as_shipped)[some])
    for kind in list_subsets(layers):
        figures = {}
        for least, weight in itertools.product(SPREADS, WEIGHTS):
            flag = partial(agree, layers=kind, least=least, weight=weight)
            figures[least, weight] = measure_rule(met, flag)
        print_line(f"{kind} as shipped's", figures[LEAST_SPREADS, GROUP_WEIGHT][some])
        best = max(figures, key=lambda of: judge(figures[of][some]))
        print_line(f"{kind} {best}: *chosen on*", figures[best][some])
        for halves in (False, True):
            unseen = take_unseen(list(figures.values()), some, halves)
            print_line(f"{kind} {'halves' if halves else 'one case out'}: *not seen*", unseen)


def print_ceiling(met: Sequence[Met], names: Sequence[str], layer: int) -> None:
    highest = {}
    for one in met:
        if not one.audit.count:
            highest[one.audit.case.name, one.audit.seed] = rank(one, (layer,)).max()

    def value(one: Met) -> float:
        above = rank(one, (layer,)) > highest[one.audit.case.name, one.audit.seed]
        return float(above[one.poison].mean())

    found = average_cases([one for one in met if one.audit.count == 10], value)
    some = [i for i, name in enumerate(names) if name not in OTHERS]
    print("\nPlanted rows (of 10) that score above every honest row of the audit without them:\n")
    print("| " + " | ".join(names) + " | mean of fourteen |\n|" + "---|" * (len(names) + 1))
    cells = " | ".join(f"{value:.2f}" for value in found)
    print(f"| {cells} | {interval(list(found[some]))} |")


def print_nothing(met: Sequence[Met], names: Sequence[str], layers: Sequence[int]) -> None:
    print(f"\nNothing planted, {len(met)} audits, false flags per 1,000 rows:\n")
    print("| rule | " + " | ".join(names) + " | mean | audits with any |")
    print("|---|" + "---|" * (len(names) + 2))
    rules = {"as shipped": flag_as_shipped}
    for kind in list_subsets(layers)[1:]:
        for least in SPREADS:
            rules[f"{kind} {least}"] = partial(agree, layers=kind, least=least, weight=GROUP_WEIGHT)
    for label, flag in rules.items():
        false = {id(one): float(1000 * flag(one).mean()) for one in met}
        found = average_cases(met, lambda one, false=false: false[id(one)])
        anything = np.mean([value > 0 for value in false.values()])
        cells = " | ".join(f"{value:.2f}" for value in found)
        print(f"| {label} | {cells} | {interval(list(found))} | {anything:.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--layers", type=int, nargs="*", default=[12, 18, 24])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--null-seeds", type=int, default=20)
    parser.add_argument("--only", nargs="*", help="cases; all by default")
    parser.add_argument("--model", default=ModelConfig().name)
    options = parser.parse_args()
    background, cases = read_chosen(options.data, options.only)
    products = gather_products(options.model, options.layers, background, cases)
    names, layers = [case.name for case in cases], options.layers

    def meet(seeds: int, counts: Sequence[int], some: Sequence[int]) -> list[Met]:
        met = []
        for case, seed, count in itertools.product(cases, range(seeds), counts):
            audit = draw_audit(background, case, count, seed, domain=False)
            met.append(Met(audit, {layer: products[layer].recover(audit) for layer in some}))
        return met

    met = meet(options.seeds, (0, 10, 20), layers)
    print_ranking(met, names, layers)
    print_rules(met, names, layers)
    print_ceiling(met, names, layers[0])
    print_nothing(meet(options.null_seeds, (0,), layers), names, layers)


def gather_products(
    model: str, layers: Sequence[int], background: list[Example], cases: Sequence[Case]
) -> dict[int, Products]:
    """The products of all rows at each layer."""
    others = [row for case in cases for row in case.poison + case.hard_negatives]
    pretrained = load_pretrained(ModelConfig(name=model))
    products = {}
    for layer in layers:
        rows = Rows(pretrained, background, others, StrideConfig(layer=layer, further_layers=[]))
        products[layer] = Products(rows, cases)
    return products


if __name__ == "__main__":
    main()
