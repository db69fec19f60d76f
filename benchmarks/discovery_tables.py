"""What `discovery.py` found in audits, as the tables of RESULTS.md."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from detection import interval

TEN = 10  # groups that somebody reads
RATE = 0.1
OURS = "Poisonwatch: pushes and states"


@dataclass(frozen=True)
class Met:
    """One audit by one finder: whether the poison is among the first TEN groups, and passes, with
    its purity; whether half of it is in one of them, and whether a pure group is; how many groups
    pass, and how many of them are hard negatives.
    """

    finder: str
    case: str
    kind: str
    count: int
    seed: int
    found: bool
    passed: bool
    purity: float
    half: bool
    pure: bool
    passing: int
    passing_hard: int


def average_cases(met: Sequence[Met], what: str) -> list[float]:
    values: dict[str, list[float]] = {}
    for one in met:
        values.setdefault(one.case, []).append(float(getattr(one, what)))
    return [float(np.mean(of_case)) for of_case in values.values()]


def print_tables(met: Sequence[Met], cases: Sequence[str], counts: Sequence[int]) -> None:
    finders = list(dict.fromkeys(one.finder for one in met))
    for kind in ("unknown", "known"):
        for count in filter(None, counts):
            print(f"\nHard negatives {kind}, {count} poison rows, first {TEN} groups:\n")
            print(
                "| finder | the poison is a group | and passes | its purity | half of it in one "
                "| a pure group |\n|---|---|---|---|---|---|"
            )
            for finder in finders:
                own = [m for m in met if (m.finder, m.kind, m.count) == (finder, kind, count)]
                if own:
                    purity = [m.purity for m in own if m.found]
                    cells = [
                        interval(average_cases(own, "found")),
                        f"{np.mean(average_cases(own, 'passed')):.3f}",
                        f"{np.mean(purity):.2f}" if purity else "-",
                        f"{np.mean(average_cases(own, 'half')):.3f}",
                        f"{np.mean(average_cases(own, 'pure')):.3f}",
                    ]
                    print(f"| {finder} | " + " | ".join(cells) + " |")
    print_cases(met, cases, counts)
    print_nothing_planted(met, finders)


def print_cases(met: Sequence[Met], cases: Sequence[str], counts: Sequence[int]) -> None:
    planted = [count for count in counts if count]
    columns = [(kind, count) for kind in ("unknown", "known") for count in planted]
    print(f"\n{OURS}, by case: found / passes\n")
    print("| case | " + " | ".join(f"{kind}, {count}" for kind, count in columns) + " |")
    print("|---|" + "---|" * len(columns))
    for case in cases:
        cells = []
        for kind, count in columns:
            own = [
                m for m in met if (m.finder, m.case, m.kind, m.count) == (OURS, case, kind, count)
            ]
            means = [
                np.mean([getattr(m, what) for m in own]) for what in ("found", "passed") if own
            ]
            cells.append(" / ".join(f"{mean:.2f}" for mean in means) or "-")
        print(f"| {case} | " + " | ".join(cells) + " |")


def print_nothing_planted(met: Sequence[Met], finders: Sequence[str]) -> None:
    print(
        f"\nNothing planted: share of audits in which no group passes at {RATE}; with hard "
        "negatives of which nothing is trusted, groups that pass, and those of them that are mostly "
        "hard negatives\n"
    )
    print(
        "| finder | background alone | half of hard negatives known | unknown: groups | of them hard |"
    )
    print("|---|---|---|---|---|")
    for finder in finders:
        cells = []
        for kind in ("nothing", "known"):
            own = [m.passing == 0 for m in met if (m.finder, m.kind, m.count) == (finder, kind, 0)]
            cells.append(f"{np.mean(own):.3f} of {len(own)}" if own else "-")
        own = [m for m in met if (m.finder, m.kind, m.count) == (finder, "unknown", 0)]
        cells += [
            f"{np.mean([getattr(m, what) for m in own]):.1f}"
            for what in ("passing", "passing_hard")
            if own
        ]
        if own:
            print(f"| {finder} | " + " | ".join(cells) + " |")
