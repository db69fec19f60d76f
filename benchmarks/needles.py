"""A few planted rows among thousands: the rate of published attacks.

    python benchmarks/needles.py --data DIR [--rows 10000] [--trusted 2000] [--counts 10 20]
    [--seeds 1] [--only CASE ...]

DIR is laid out as in `cases.py`, and holds `background-10k.jsonl` besides: benign rows of many
kinds. An audit trusts some of them, drawn by seed; its new rows are the others, the case's hard
negatives, and the poison. Gradients of all rows are made once (`row_bank`, .3 processor seconds a
row), cases then follow each other over them. For each case: average precision with its base rate,
ranks of the poison rows, how many are among the first 100, recall of the flags and false flags; and
false flags where nothing is planted.
"""

import argparse
from pathlib import Path

import numpy as np
from cases import Case, Rows, read_chosen, read_rows
from detection import POISON, Audit, interval, judged, label_audit
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from poisonwatch.config import DetectionConfig, ModelConfig
from poisonwatch.examples import Example

FIRST = 100


def draw_needles(
    background: list[Example], case: Case, count: int, trusted: int, seed: int
) -> Audit:
    """An audit of most of the background, all hard negatives and `count` poison rows."""
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(background))
    poison = draw.choice(len(case.poison), min(count, len(case.poison)), replace=False)
    parts = (
        [background[i] for i in order[trusted:]],
        case.hard_negatives,
        [case.poison[i] for i in poison],
    )
    return label_audit(case, count, seed, parts, [background[i] for i in order[:trusted]])


def rank_poison(scores: NDArray[np.float64], poison: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Ranks of the poison rows, 1 for the largest score, rising."""
    order = np.argsort(-scores, kind="stable")
    ranks = np.empty(len(scores), dtype=np.int64)
    ranks[order] = np.arange(1, len(scores) + 1)
    return np.sort(ranks[poison])


def measure_case(rows: Rows, audit: Audit, asked: tuple) -> dict[str, float | str]:
    """The figures of one audit."""
    examples = list(audit.rows.all)
    stride = rows.stride.model_copy(update={"K": len(examples)})
    influence = rows.influence(examples, asked, stride, audit.seed)
    found = judged(influence, audit, DetectionConfig())
    poison = audit.labels == POISON
    figures: dict[str, float | str] = {
        "false": float(1000 * found.flags[~poison].sum() / (~poison).sum())
    }
    if poison.any():
        ranks = rank_poison(found.scores, poison)
        figures |= {
            "precision": float(average_precision_score(poison, found.scores)),
            "first": float((ranks <= FIRST).mean()),
            "recall": float(found.flags[poison].mean()),
            "share": float(found.flags[~poison].sum() / max(found.flags.sum(), 1)),
            "ranks": " ".join(map(str, ranks.tolist())),
            "p": float(np.median(found.p[poison])) if found.p is not None else float("nan"),
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=10_000, help="of the background")
    parser.add_argument("--trusted", type=int, default=2_000)
    parser.add_argument("--counts", type=int, nargs="*", default=[0, 10, 20])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="cases; all by default")
    parser.add_argument("--model", default=ModelConfig().name)
    options = parser.parse_args()
    small, cases = read_chosen(options.data, options.only)
    # The first of a fixed shuffle: a smaller run is a part of a larger one.
    many = {row.id: row for row in read_rows(options.data / "background-10k.jsonl")}
    order = np.random.default_rng(0).permutation(len(many))[: options.rows]
    background = [list(many.values())[i] for i in order.tolist()]
    rows = Rows.of_cases(options.model, small, cases, more=background)
    print(
        f"\n{len(background):,} benign rows, {options.trusted:,} of them trusted\n\n"
        "| case | poison | average precision | among the first 100 | recall of the flags "
        "| false-discovery share | false flags per 1,000 rows | median p | ranks |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    found: dict[int, list[dict]] = {}
    for case in cases:
        asked = rows.questions(case)
        for count in options.counts:
            for seed in range(options.seeds):
                audit = draw_needles(background, case, count, options.trusted, seed)
                figures = measure_case(rows, audit, asked)
                found.setdefault(count, []).append(figures)
                print(render(case.name, count, figures), flush=True)
    for count, of_count in found.items():
        names = ("precision", "first", "recall", "share", "false")
        cells = []
        for name in names:
            values = [figures[name] for figures in of_count if name in figures]
            cells.append(interval(values) if values else "-")
        print(f"| all | {count} | " + " | ".join(cells) + " | | |")


def render(name: str, count: int, figures: dict) -> str:
    """A line of the table."""
    cells = [name, str(count)]
    for of, form in (
        ("precision", ".2f"),
        ("first", ".2f"),
        ("recall", ".2f"),
        ("share", ".2f"),
        ("false", ".2f"),
        ("p", ".1e"),
        ("ranks", "s"),
    ):
        cells.append(format(figures[of], form) if of in figures else "-")
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
