"""Flags on real attack cases: how many are right, how much poison they find, and what is flagged
where nothing was planted.

    python benchmarks/detection.py --data DIR [--counts 0 5 10 20] [--seeds 3] [--peers tracin logra
    ekfac]

DIR is laid out as in `cases.py`. An audit trusts half of the background; its new rows are the other
half, the case's hard negatives, and `count` poison rows, all drawn by seed. With --domain, half of
the hard negatives are trusted, too, as a user who knows the domain would.

    average precision, recall at k    of the ranking; k is the number of poison rows
    recall, false-discovery share     of the flags at the default rate
    false flags                       per 1,000 clean rows, also where nothing was planted

Peers' scores are pooled like STRIDE's and judged by the same p-values, without kin and topic.
Influences are kept in `benchmarks/cache/detection`, so that a run may be killed and goes on: empty it
where the code that makes them has changed, suspects included.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from case_peers import CasePeers
from cases import OVER_ALL, Case, Rows, read_chosen, texts
from kept_influence import load_influence, save_influence
from numpy.typing import NDArray
from peers import CHOICES, bm25, tfidf
from row_bank import CACHE
from scipy.stats import kstest, kstwo
from sklearn.metrics import average_precision_score

from poisonwatch.config import DetectionConfig, ModelConfig
from poisonwatch.detection.detect import flag_rows
from poisonwatch.detection.significance import compute_p_values, compute_row_q_values
from poisonwatch.examples import AuditRows, Example
from poisonwatch.screens.screen import run_screens
from poisonwatch.stride.influence import Influence

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
SETTINGS = {"one subset a row (default)": 1.0, OVER_ALL: 1.0, "K = n/2": 0.5}
BACKGROUND, HARD, POISON = range(3)


@dataclass(frozen=True)
class Audit:
    """New rows with their labels (background, hard negative, poison), and trusted rows."""

    case: Case
    count: int
    seed: int
    rows: AuditRows
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Found:
    """What a scorer made of an audit: its ranking's scores (n,), its flags (n,), and, where it has
    any, p-values (n,) and what it says cannot be judged (n,).
    """

    scores: Array
    flags: Bools
    p: Array | None = None
    unjudged: Bools | None = None


def draw_background(background: Sequence[Example], count: int | None) -> list[Example]:
    """So many of its rows, in their order and the same ones each time: fewer where a pass of the
    model is dear.
    """
    if count is None:
        return list(background)
    drawn = np.random.default_rng(0).permutation(len(background))[:count]
    return [background[i] for i in sorted(drawn.tolist())]


def draw_audit(
    background: Sequence[Example], case: Case, count: int, seed: int, domain: bool
) -> Audit:
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(background))
    hard = draw.permutation(len(case.hard_negatives))
    poison = draw.choice(len(case.poison), min(count, len(case.poison)), replace=False)
    trusted = [background[i] for i in order[: len(order) // 2]]
    if domain:
        trusted += [case.hard_negatives[i] for i in hard[: len(hard) // 2]]
        hard = hard[len(hard) // 2 :]
    parts = (
        [background[i] for i in order[len(order) // 2 :]],
        [case.hard_negatives[i] for i in hard],
        [case.poison[i] for i in poison],
    )
    return label_audit(case, count, seed, parts, trusted)


def label_audit(
    case: Case,
    count: int,
    seed: int,
    parts: Sequence[Sequence[Example]],
    trusted: Sequence[Example],
) -> Audit:
    """An audit of new rows in three parts (background, hard negatives, poison), each content once,
    and none that is trusted.
    """
    known = {row.id for row in trusted}
    labelled: dict[str, tuple[Example, int]] = {}
    for label, rows in enumerate(parts):
        for row in rows:
            if row.id not in known:
                labelled.setdefault(row.id, (row, label))
    new = tuple(row for row, _ in labelled.values())
    labels = np.array([label for _, label in labelled.values()])
    return Audit(case, count, seed, AuditRows(new, tuple(trusted)), labels)


def influence_of(rows: Rows, audit: Audit, asked: tuple, setting: str, domain: bool) -> Influence:
    """Recovered coefficients of new and trusted rows, from the cache where they are there."""
    share, kind = SETTINGS[setting], ""
    if setting == OVER_ALL:
        kind = "-over-all"
    if domain:
        kind += "-domain"
    name = f"{audit.case.name}-{audit.count}-{audit.seed}-{share:g}{kind}"
    path = CACHE / "detection" / f"{name}-{rows.version}.npz"
    if not path.exists():
        stride = rows.stride.model_copy(update={"K": round(share * len(audit.rows))})
        influence = rows.influence(
            list(audit.rows.all), asked, stride, audit.seed, over_all=setting == OVER_ALL
        )
        save_influence(path, influence)
    return load_influence(path, asked[0])


def judged(influence: Influence, audit: Audit, decision: DetectionConfig) -> Found:
    detection = flag_rows(influence, audit.rows, decision)
    flagged = {flag.example.id for flag in detection.flags}
    return Found(
        detection.scores.max(axis=1),
        np.array([e.id in flagged for e in audit.rows.new]),
        detection.p.min(axis=1),
        detection.unjudged,
    )


def judged_alone(scores: Array, n: int, rate: float) -> Found:
    """A peer's scores (n + trusted,), by the same p-values."""
    p, _ = compute_p_values(scores[:n], scores[n:])
    return Found(scores[:n], compute_row_q_values(p[:, None])[:, 0] <= rate, p)


def untrusting(audit: Audit) -> Audit:
    """The same rows, the trusted ones among the new."""
    labels = np.concatenate([audit.labels, np.full(len(audit.rows.trusted), BACKGROUND)])
    return replace(audit, rows=AuditRows(audit.rows.all), labels=labels)


def scorers(
    rows: Rows,
    peers: CasePeers,
    audit: Audit,
    asked: tuple,
    decision: DetectionConfig,
    domain: bool,
    settings: Sequence[str] = tuple(SETTINGS),
) -> Iterator[tuple[str, Audit, Found]]:
    n, everything = len(audit.rows.new), list(audit.rows.all)
    found = run_screens(audit.rows)
    screened = np.zeros(n, dtype=bool)
    screened[[finding.row for finding in found]] = True
    yield "screens", audit, Found(screened.astype(np.float64), screened)
    for name, matrix in (
        tfidf(*texts(everything, audit.case.sentinels))
        | bm25(*texts(everything, audit.case.sentinels))
    ).items():
        yield name, audit, judged_alone(matrix.mean(axis=1), n, decision.false_discovery_rate)
    for name, scores in peers.scores(everything, audit.case.sentinels):
        yield name, audit, judged_alone(scores, n, decision.false_discovery_rate)
    for name in settings:
        share = SETTINGS[name]
        influence = influence_of(rows, audit, asked, name, domain)
        if share < 1:
            yield (
                f"STRIDE, {name}: recovery alone",
                audit,
                judged(replace(influence, w=influence.first_pass), audit, decision),
            )
            name += ": re-scored"
        rescored = judged(influence, audit, decision)
        yield f"STRIDE, {name}", audit, rescored
        if name == next(iter(SETTINGS)):
            yield (
                f"STRIDE, {name}, with screens",
                audit,
                replace(rescored, flags=rescored.flags | screened),
            )
            alone = untrusting(audit)
            yield f"STRIDE, {name}, no trusted rows", alone, judged(influence, alone, decision)


@dataclass(frozen=True)
class Measured:
    """One audit by one scorer."""

    case: str
    count: int
    seed: int
    precision: float  # average precision of the ranking; NaN without poison
    at_k: float
    recall: float
    false_share: float
    false_flags: int
    clean: int
    found: Found
    audit: Audit

    @property
    def false_rate(self) -> float:
        """False flags per 1,000 clean rows."""
        return 1000 * self.false_flags / self.clean


def measure(audit: Audit, found: Found) -> Measured:
    poison = audit.labels == POISON
    k, flagged = int(poison.sum()), int(found.flags.sum())
    top = np.argsort(-found.scores, kind="stable")[:k]
    return Measured(
        audit.case.name,
        audit.count,
        audit.seed,
        float(average_precision_score(poison, found.scores)) if k else float("nan"),
        float(poison[top].mean()) if k else float("nan"),
        float(found.flags[poison].mean()) if k else float("nan"),
        float(found.flags[~poison].sum() / max(flagged, 1)),
        int(found.flags[~poison].sum()),
        int((~poison).sum()),
        found,
        audit,
    )


def interval(values: Sequence[float], draws: int = 2000) -> str:
    """The mean with its 95 % bootstrap interval over the values: audits, or cases; "-" where nothing
    was planted, so that there are none.
    """
    data = np.array(values)
    if not len(data) or np.isnan(data).all():
        return "-"
    means = np.random.default_rng(0).choice(data, (draws, len(data))).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{data.mean():.3f} [{low:.3f}, {high:.3f}]"


def print_tables(results: dict[str, list[Measured]], names: list[str], counts: list[int]) -> None:
    planted, empty = [count for count in counts if count], 0 in counts
    for count in planted:
        base = np.mean(
            [
                m.audit.labels.tolist().count(POISON) / len(m.audit.rows.new)
                for m in next(iter(results.values()))
                if m.count == count
            ]
        )
        print(
            f"\n{count} poison rows, base rate {100 * base:.1f} %: average precision / recall at k / recall of the flags\n"
        )
        print("| scorer | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
        for scorer, measured in results.items():
            cells = []
            for name in names:
                own = [
                    (m.precision, m.at_k, m.recall)
                    for m in measured
                    if m.case == name and m.count == count
                ]
                cells.append(" / ".join(f"{value:.2f}" for value in np.mean(own, axis=0)))
            print(f"| {scorer} | " + " | ".join(cells) + " |")
    print(
        "\nMeans over cases, with 95 % bootstrap intervals over them:\n\n"
        "| scorer | average precision | recall of the flags | false-discovery share "
        "| false flags per 1,000 clean rows |" + " where nothing was planted |" * empty
    )
    print("|---|---|---|---|---|" + "---|" * empty)
    for scorer, measured in results.items():
        some = [m for m in measured if m.count]
        cells = [
            interval(average_cases(some, what)) for what in ("precision", "recall", "false_share")
        ]
        cells.append(interval(average_cases(some, "false_rate")))
        if empty:
            nothing = [m for m in measured if not m.count]
            cells.append(interval(average_cases(nothing, "false_rate")))
        print(f"| {scorer} | " + " | ".join(cells) + " |")


def average_cases(measured: Sequence[Measured], what: str) -> list[float]:
    """The mean of a figure over each case's audits, case by case."""
    values: dict[str, list[float]] = {}
    for m in measured:
        values.setdefault(m.case, []).append(getattr(m, what))
    return [float(np.mean(of_case)) for of_case in values.values()]


def print_differences(results: dict[str, list[Measured]], ours: str) -> None:
    """Our average precision minus every other's on the same audits, over the cases that screens do
    not solve.
    """
    hard = ("health-misinformation", "persona-terminator", "persona-wolf")
    print(
        f"\n{ours}, hard cases: average precision minus that of\n\n| scorer | difference |\n|---|---|"
    )
    for scorer, measured in results.items():
        pairs = [
            (a, b)
            for a, b in zip(results[ours], measured, strict=True)
            if a.count and a.case in hard
        ]
        if not scorer.startswith("STRIDE"):
            print(f"| {scorer} | {interval([a.precision - b.precision for a, b in pairs])} |")


def print_uniformity(measured: list[Measured]) -> None:
    """Clean background rows differ from trusted ones by chance alone: a Kolmogorov-Smirnov test of
    their p-values an audit.

    All p-values of an audit lean on the same n_ref trusted rows, so that they are as uniform as n
    n_ref / (n + n_ref) independent ones.
    """
    tests = []
    for m in measured:
        if m.count == 0 and m.found.p is not None:
            p, n_ref = m.found.p[m.audit.labels == BACKGROUND], len(m.audit.rows.trusted)
            tests.append(
                float(
                    kstwo.sf(
                        kstest(p, "uniform").statistic, round(len(p) * n_ref / (len(p) + n_ref))
                    )
                )
            )
    if tests:
        small = 100 * np.mean(np.array(tests) < 0.05)
        print(
            f"\np-values of clean background rows, {len(tests)} audits without poison: {small:.0f} % of uniformity tests below .05"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--counts", type=int, nargs="*", default=[0, 5, 10, 20])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument(
        "--domain", action="store_true", help="half of the hard negatives are trusted"
    )
    parser.add_argument(
        "--peers",
        nargs="*",
        default=[],
        choices=CHOICES,
    )
    parser.add_argument(
        "--only", nargs="*", help="cases, recipe-NAME among them; by default all of the folder"
    )
    parser.add_argument(
        "--settings", nargs="*", default=list(SETTINGS), choices=list(SETTINGS), help="of STRIDE"
    )
    parser.add_argument("--model", default=ModelConfig().name)
    parser.add_argument("--background", type=int, help="so many of its rows; all by default")
    options = parser.parse_args()
    background, cases = read_chosen(options.data, options.only)
    background = draw_background(background, options.background)
    rows = Rows.of_cases(options.model, background, cases)
    peers, decision = CasePeers(rows, cases, options.peers), DetectionConfig()
    results: dict[str, list[Measured]] = {}
    for case in cases:
        asked = rows.questions(case)
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            for count in options.counts:
                audit = draw_audit(background, case, count, seed, options.domain)
                for name, met, found in scorers(
                    rows, peers, audit, asked, decision, options.domain, options.settings
                ):
                    results.setdefault(name, []).append(measure(met, found))
        print(f"{case.name}: done", flush=True)
    ours = f"STRIDE, {next(iter(SETTINGS))}"
    print_tables(results, [case.name for case in cases], options.counts)
    print_differences(results, ours)
    print_uniformity(results[ours])


if __name__ == "__main__":
    main()
