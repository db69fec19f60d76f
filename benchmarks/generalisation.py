"""Does detection hold on attacks that its constants were not chosen on?

    python benchmarks/generalisation.py --data DIR [--counts 0 10 20] [--seeds 3]
    [--null-seeds 3] [--only CASE ...]

Audits are those of `detection.py`, and so is their cache. Every constant of ranking and of the rule
is chosen from a few values on some cases, and reported on the others:

    halves       every second case, by name; chosen on one half, reported on the other, both ways
    one out      chosen on all cases but one, reported on that one, for every case

A choice of ranking is the one of the largest mean average precision, the rule's that of the largest
mean recall of the flags, less what its false flags cost: each hundredth of false-discovery share
above MOST_SHARE, and each false flag in 1,000 rows above MOST_FALSE where nothing was planted. What
the library ships stands beside them, and what one threshold a case on its scores could find at
best, where MOST_SHARE of what is above it is honest: a rule that looks at the rows around a row may
find more. Intervals are over cases: a mean over 14 attacks says less of the next one than seeds
make believe.
"""

import argparse
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cases import Case, Rows, read_chosen
from detection import (
    POISON,
    SETTINGS,
    Audit,
    Bools,
    Found,
    Measured,
    draw_audit,
    influence_of,
    interval,
    judged,
    measure,
)
from numpy.typing import NDArray

from poisonwatch.config import DetectionConfig, ModelConfig
from poisonwatch.detection import detect, topic
from poisonwatch.stride import scoring
from poisonwatch.stride.influence import Influence

# A constant's place, and the values to choose from; what the library ships is among them.
RANKING = {
    (scoring, "GROUP_WEIGHT"): (1.0, 2.0, 4.0),
    (scoring, "LESSER_WEIGHT"): (0.25, 0.5, 0.75),
    (scoring, "LEANING_WEIGHT"): (0.0, 0.25, 0.5, 1.0),
    (scoring, "WORDING_WEIGHT"): (0.0, 0.25, 0.5),
}
RULE = {
    (topic, "LOW"): (0.1, 0.2, 0.35),
    (topic, "BETWEEN"): ((0.05, 0.2), (0.1, 0.35)),
    (topic, "LEAST_SPREADS"): (3.0, 4.0, 4.75, 5.5),
    (detect, "LEAST_LEAD"): (1.7, 1.8, 2.0, np.inf),
}
MOST_SHARE = 0.12
MOST_FALSE = 1.0

Constants = Mapping[tuple[object, str], Any]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Figures:
    """Of each case (C,): average precision, recall and false-discovery share of the flags where
    there is poison, and false flags per 1,000 rows where there is none.
    """

    precision: Array
    recall: Array
    share: Array
    false: Array

    def rank(self, cases: Sequence[int]) -> float:
        """How good a ranking is on some of the cases."""
        return float(self.precision[cases].mean())

    def judge(self, cases: Sequence[int]) -> float:
        """How good a rule is on some of the cases."""
        share, false = self.share[cases].mean(), self.false[cases].mean()
        cost = max(share - MOST_SHARE, 0.0) + max(false - MOST_FALSE, 0.0) / 10
        return float(self.recall[cases].mean() - cost)


@contextmanager
def constants(chosen: Constants) -> Iterator[None]:
    """Within the block the library's constants are these."""
    before = {place: getattr(*place) for place in chosen}
    try:
        for (module, name), value in chosen.items():
            setattr(module, name, value)
        yield
    finally:
        for (module, name), value in before.items():
            setattr(module, name, value)


def list_candidates(grid: Mapping[tuple[object, str], Sequence[Any]]) -> list[Constants]:
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


class Audits:
    """Every audit of every case, with its influence; measured under any constants."""

    def __init__(self, rows: Rows, background: list, cases: list[Case], options) -> None:
        self.names = [case.name for case in cases]
        self.met = []
        setting = next(iter(SETTINGS))
        for case in cases:
            asked = rows.questions(case)
            for count in options.counts:
                for seed in range(options.seeds if count else options.null_seeds):
                    audit = draw_audit(background, case, count, seed, domain=False)
                    self.met.append((audit, influence_of(rows, audit, asked, setting, False)))
            print(f"{case.name}: done", flush=True)

    def measure(self, chosen: Constants, *, flag: bool = True, count: int | None = None) -> Figures:
        """The figures of every case under these constants, where so many rows are planted, or of
        all audits; of the ranking alone unless rows are to be flagged, which takes longer.
        """
        with constants(chosen):
            found = []
            for audit, influence in self.met:
                if count not in (None, audit.count):
                    continue
                ranked = judged if flag else rank
                found.append(measure(audit, ranked(influence, audit, DetectionConfig())))
        return Figures(*(self._average(found, what) for what in _FIGURES))

    def find_best_recall(self, count: int) -> Array:
        """Of each case (C,): the recall of `count` planted rows by the one threshold on its scores
        that finds most, where MOST_SHARE of what is above it is honest.
        """
        best = []
        for name in self.names:
            audits = [each for each in self.met if each[0].case.name == name]
            some = [each for each in audits if each[0].count == count]
            ranked = [rank(influence, audit, DetectionConfig()) for audit, influence in some]
            planted = [audit.labels == POISON for audit, _ in some]
            best.append(find_best_recall([found.scores for found in ranked], planted))
        return np.array(best)

    def _average(self, found: list[Measured], what: str) -> Array:
        means = []
        for name in self.names:
            of_case = [one for one in found if one.case == name]
            planted = [one for one in of_case if one.count]
            empty = [one for one in of_case if not one.count]
            if what == "false":
                values = [1000 * one.false_flags / one.clean for one in empty]
            else:
                values = [getattr(one, what) for one in planted]
            means.append(np.mean(values) if values else 0.0)
        return np.array(means)


def rank(influence: Influence, audit: Audit, _: DetectionConfig) -> Found:
    """The new rows' scores, and no flags."""
    scores, _ = audit.rows.split(scoring.score_rows(influence).pooled)
    return Found(scores.max(axis=1), np.zeros(len(scores), dtype=bool))


def find_best_recall(scores: Sequence[Array], planted: Sequence[Bools]) -> float:
    """The mean recall over audits by the one threshold that finds most of the `planted` rows (n,)
    by their `scores` (n,), where MOST_SHARE of what is above it is honest, on average.
    """
    best = 0.0
    for least in np.unique(np.concatenate(scores)):
        above = [values >= least for values in scores]
        share = [
            (found & ~of).sum() / max(found.sum(), 1)
            for found, of in zip(above, planted, strict=True)
        ]
        if np.mean(share) <= MOST_SHARE:
            recall = [found[of].mean() for found, of in zip(above, planted, strict=True)]
            best = max(best, float(np.mean(recall)))
    return best


_FIGURES = ("precision", "recall", "false_share", "false")


def choose(
    ranking: list[tuple[Constants, Figures]],
    rules: list[tuple[Constants, Figures]],
    cases: Sequence[int],
) -> tuple[int, int]:
    """The places of the best ranking and of the best rule on some cases."""
    best = max(range(len(ranking)), key=lambda i: ranking[i][1].rank(cases))
    rule = max(range(len(rules)), key=lambda i: rules[i][1].judge(cases))
    return best, rule


def name(chosen: Constants) -> str:
    return ", ".join(
        f"{module.__name__.rpartition('.')[2]}.{of} {value}"
        for (module, of), value in chosen.items()
    )


def take(
    ranking: Sequence[tuple[Constants, Figures]],
    rules: Sequence[tuple[Constants, Figures]],
    picks: Sequence[tuple[int, int, int]],
) -> dict[str, list[float]]:
    """The figures of cases, each by the ranking and the rule picked for it: (case, ranking, rule)."""
    return {
        "precision": [ranking[r][1].precision[c] for c, r, _ in picks],
        "recall": [rules[j][1].recall[c] for c, _, j in picks],
        "share": [rules[j][1].share[c] for c, _, j in picks],
        "false": [rules[j][1].false[c] for c, _, j in picks],
    }


def print_line(label: str, figures: Mapping[str, Sequence[float]]) -> None:
    cells = [interval(figures[what]) for what in ("precision", "recall", "share", "false")]
    print(f"| {label} | " + " | ".join(cells) + " |")


def print_protocol(
    names: list[str],
    ranking: list[tuple[Constants, Figures]],
    rules: list[tuple[Constants, Figures]],
) -> None:
    every = list(range(len(names)))
    halves = every[::2], every[1::2]
    print(
        "\n| constants | average precision | recall of the flags | false-discovery share "
        "| false flags per 1,000 rows, nothing planted |\n|---|---|---|---|---|"
    )
    seen, unseen, notes = [], [], []
    for half, other in (halves, halves[::-1]):
        r, j = choose(ranking, rules, half)
        notes.append(f"chosen on {', '.join(names[c] for c in half)}: {name(ranking[r][0])}")
        notes[-1] += f"; {name(rules[j][0])}"
        seen += [(c, r, j) for c in half]
        unseen += [(c, r, j) for c in other]
    print_line("halves: *chosen on*", take(ranking, rules, seen))
    print_line("halves: *not seen*", take(ranking, rules, unseen))
    left_out = []
    for c in every:
        left_out.append((c, *choose(ranking, rules, [other for other in every if other != c])))
    print_line("one case out: *not seen*", take(ranking, rules, left_out))
    best = choose(ranking, rules, every)
    print_line("all cases: *chosen on*", take(ranking, rules, [(c, *best) for c in every]))
    print("\n" + "\n".join(f"- {note}" for note in notes))
    print(f"- chosen on all cases: {name(ranking[best[0]][0])}; {name(rules[best[1]][0])}")


def print_cases(audits: Audits, count: int) -> None:
    """What the library ships comes to, case by case; of the audits with `count` planted rows their
    recall, too, and the best that a threshold could do.
    """
    shipped = audits.measure({})
    columns = [getattr(shipped, what) for what in ("precision", "recall", "share", "false")]
    columns += [audits.measure({}, count=count).recall, audits.find_best_recall(count)]
    print(
        "\nAs shipped:\n\n| case | average precision | recall of the flags "
        "| false-discovery share | false flags per 1,000 rows, nothing planted "
        f"| recall, {count} planted | by the best threshold |\n|---|---|---|---|---|---|---|"
    )
    for c, of in enumerate(audits.names):
        print(f"| {of} | " + " | ".join(f"{column[c]:.2f}" for column in columns) + " |")
    print("| mean | " + " | ".join(interval(list(column)) for column in columns) + " |")


def parse_options(description: str | None) -> argparse.Namespace:
    """Which audits, of which cases, and by which model."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--counts", type=int, nargs="*", default=[0, 10, 20])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--null-seeds", type=int, default=3, help="where nothing is planted")
    parser.add_argument(
        "--only", nargs="*", help="cases, recipe-NAME among them; by default all of the folder"
    )
    parser.add_argument("--model", default=ModelConfig().name)
    return parser.parse_args()


def main() -> None:
    options = parse_options(__doc__)
    planted = [count for count in options.counts if count]
    if not planted:
        raise SystemExit("--counts: nothing is chosen where no row is planted; give one above 0")
    background, cases = read_chosen(options.data, options.only)
    rows = Rows.of_cases(options.model, background, cases)
    audits = Audits(rows, background, cases, options)
    print_cases(audits, min(planted))
    ranking = [(of, audits.measure(of, flag=False)) for of in list_candidates(RANKING)]
    rules = [(chosen, audits.measure(chosen)) for chosen in list_candidates(RULE)]
    print_protocol(audits.names, ranking, rules)


if __name__ == "__main__":
    main()
