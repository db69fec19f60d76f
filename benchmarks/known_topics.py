"""What it helps to trust rows on the topic of an attack.

    python benchmarks/known_topics.py --data DIR [--counts 0 10 20] [--seeds 3] [--only CASE ...]

Audits are those of `detection.py`, and so is their cache: once with all of a case's hard negatives
among the new rows, once with half of them trusted. Cases that have none are left out. Constants are
those that are shipped, chosen with these cases in view.

    seen    the share of planted rows that are flagged, or said to be unjudged: the others pass
"""

import argparse
import itertools
from collections import defaultdict
from pathlib import Path

import numpy as np
from cases import Rows, read_chosen
from detection import POISON, SETTINGS, Audit, draw_audit, influence_of, interval, judged, measure

from poisonwatch.config import DetectionConfig, ModelConfig
from poisonwatch.stride.influence import Influence

TRUSTED = {"all unknown": False, "half of them trusted": True}


class Figures:
    """Of one case: the values of each figure, one an audit."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = defaultdict(list)

    def add(self, audit: Audit, influence: Influence) -> None:
        """What an audit comes to."""
        found = measure(audit, judged(influence, audit, DetectionConfig()))
        if not audit.count:
            self.values["false"].append(found.false_rate)
            return
        self.values["precision"].append(found.precision)
        self.values["recall"].append(found.recall)
        self.values[f"recall of {audit.count}"].append(found.recall)
        self.values["share"].append(found.false_share)
        seen = found.found.flags | found.found.unjudged
        self.values["seen"].append(float(seen[audit.labels == POISON].mean()))

    def average(self) -> dict[str, float]:
        return {name: float(np.mean(values)) for name, values in self.values.items()}


def print_table(label: str, cases: dict[str, dict[str, float]]) -> None:
    """Each figure's mean over cases, with its interval over them; then the cases."""
    names = list(next(iter(cases.values())))
    print(
        f"\nHard negatives: {label}\n\n| case | {' | '.join(names)} |\n|---|{'---|' * len(names)}"
    )
    for case, figures in cases.items():
        print(f"| {case} | " + " | ".join(f"{figures[name]:.2f}" for name in names) + " |")
    cells = [interval([figures[name] for figures in cases.values()]) for name in names]
    print("| mean | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--counts", type=int, nargs="*", default=[0, 10, 20])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="cases; all by default")
    parser.add_argument("--model", default=ModelConfig().name)
    options = parser.parse_args()
    background, cases = read_chosen(options.data, options.only)
    rows = Rows.of_cases(options.model, background, cases)
    setting = next(iter(SETTINGS))
    for label, domain in TRUSTED.items():
        averages = {}
        for case in cases:
            if not case.hard_negatives:
                continue
            asked, figures = rows.questions(case), Figures()
            for seed, count in itertools.product(range(options.seeds), options.counts):
                audit = draw_audit(background, case, count, seed, domain)
                figures.add(audit, influence_of(rows, audit, asked, setting, domain))
            averages[case.name] = figures.average()
        print_table(label, averages)


if __name__ == "__main__":
    main()
