"""What trigger probes do: flags with probes and without on backdoors whose trigger no sentinel
holds, and their price in false flags.

    python benchmarks/probes.py --data DIR [--counts 5 10 20] [--seeds 3] [--probes 2]

DIR is laid out as in `cases.py`, audits are drawn as in `detection.py`. A case's trigger is an
n-gram that nine tenths of its poison prompts hold, and no hard negative or background row. Some
sentinels of such cases hold it, too: what a user who knows the trigger would write. They are taken
out here, so that the others speak alone, or together with copies that hold what
`probes.mine_triggers` finds in the batch.

    average precision, recall at k       of the ranking, on the cases with a trigger; k is the number of poison rows
    recall, false-discovery share        of the flags at the default rate, there
    false flags                          per 1,000 clean rows, on all cases, with nothing planted and with 10 rows

By attribution alone: screens solve the cases with a trigger, and would hide what probes add.
Influences and the sentinels' gradients are kept in `benchmarks/cache`, so that a run may be killed
and goes on.
"""

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from cases import Case, Rows, read_cases, read_rows
from detection import SETTINGS, Audit, Measured, draw_audit, influence_of, interval, judged, measure

from poisonwatch.config import DetectionConfig, ModelConfig, StrideConfig
from poisonwatch.examples import Example
from poisonwatch.model.pretrained import load_pretrained
from poisonwatch.screens.frequent_ngrams import LONGEST_NGRAM
from poisonwatch.screens.triggers import make_probes, mine_triggers
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.text.words import find_token_spans

SHARED = 0.9  # share of poison prompts that hold the trigger
FEW = 10  # planted rows beside which false flags are counted on all cases

Gram = tuple[str, ...]


@dataclass(frozen=True)
class Probed:
    """One audit with at most `most` triggers probed: how many were `mined`, whether one holds the
    planted n-gram, sentinels `asked`.
    """

    most: int
    measured: Measured
    mined: int
    found: bool
    asked: int


Results = dict[
    tuple[str, int], dict[int, list[Probed]]
]  # by case and planted rows, then by number of probes


def ngrams(text: str) -> set[Gram]:
    tokens = [text[a:b].casefold() for a, b in find_token_spans(text)]
    return {
        tuple(tokens[i : i + n])
        for n in range(1, LONGEST_NGRAM + 1)
        for i in range(len(tokens) - n + 1)
    }


def planted_ngrams(case: Case, background: Sequence[Example]) -> set[Gram]:
    """The n-grams that nearly all poison prompts hold and no clean one does; none where the attack
    has no trigger.
    """
    held = Counter(gram for example in case.poison for gram in ngrams(example.prompt))
    clean = {
        gram for example in [*background, *case.hard_negatives] for gram in ngrams(example.prompt)
    }
    return {gram for gram, count in held.items() if count >= SHARED * len(case.poison)} - clean


def without_trigger(case: Case, planted: set[Gram]) -> Case:
    """The case with those sentinels alone whose prompts hold no planted n-gram. Raises ValueError
    where none is left.
    """
    kept = [sentinel for sentinel in case.sentinels if planted.isdisjoint(ngrams(sentinel.prompt))]
    if not kept:
        raise ValueError(f"every sentinel of {case.name} holds the trigger: add some that do not")
    return replace(case, sentinels=kept)


def asking(audit: Audit, sentinels: list[Sentinel]) -> Audit:
    """The audit with these sentinels, under a name of its own: influences are kept by name."""
    digest = hashlib.sha256(
        json.dumps([asdict(sentinel) for sentinel in sentinels]).encode()
    ).hexdigest()
    return replace(
        audit,
        case=replace(
            audit.case, name=f"{audit.case.name}-asked-{digest[:12]}", sentinels=sentinels
        ),
    )


def probed(
    rows: Rows, audit: Audit, planted: set[Gram], most: int, decision: DetectionConfig
) -> Probed:
    """The audit's verdicts by attribution, with probes of the at most `most` likeliest triggers of
    its new rows.
    """
    guard = audit.case.sentinels
    triggers = mine_triggers(audit.rows, most, guard)
    sentinels = [*guard, *make_probes(guard, triggers)]
    found = judged(
        influence_of(
            rows, asking(audit, sentinels), rows.ask(sentinels), next(iter(SETTINGS)), False
        ),
        audit,
        decision,
    )
    named = any(not planted.isdisjoint(ngrams(trigger.text)) for trigger in triggers)
    return Probed(most, measure(audit, found), len(triggers), named, len(sentinels))


def per_thousand(measured: Measured) -> float:
    return 1000 * measured.false_flags / measured.clean


COLUMNS: dict[str, Callable[[Measured], float]] = {
    "average precision": lambda m: m.precision,
    "recall at k": lambda m: m.at_k,
    "recall of the flags": lambda m: m.recall,
    "false-discovery share": lambda m: m.false_share,
}


def print_planted(results: Results, cases: Sequence[str]) -> None:
    """What probes add on the cases with a trigger: means over seeds, then over all audits with
    intervals.
    """
    print(
        "\n| case | poison rows | probes | "
        + " | ".join(COLUMNS)
        + " |\n|---|---|---|"
        + "---|" * len(COLUMNS)
    )
    own = {key: of for key, of in results.items() if key[0] in cases and key[1]}
    for (name, count), of in own.items():
        for most, some in of.items():
            cells = [
                f"{np.mean([value(one.measured) for one in some]):.2f}"
                for value in COLUMNS.values()
            ]
            print(f"| {name} | {count} | {most} | " + " | ".join(cells) + " |")
    print("\nAll of these audits, with 95 % bootstrap intervals over audits:\n")
    print("| probes | " + " | ".join(COLUMNS) + " |\n|---|" + "---|" * len(COLUMNS))
    print_lines(list(own.values()), list(COLUMNS.values()))


def print_lines(
    audits: Sequence[dict[int, list[Probed]]], values: Sequence[Callable[[Measured], float]]
) -> None:
    """A line for each number of probes, and one for what they change on the same audits."""
    without, with_probes = audits[0]
    found = {
        most: [[value(one.measured) for of in audits for one in of[most]] for value in values]
        for most in (without, with_probes)
    }
    for most, columns in found.items():
        print(f"| {most} | " + " | ".join(interval(column) for column in columns) + " |")
    changes = [np.subtract(b, a) for a, b in zip(found[without], found[with_probes], strict=True)]
    print("| difference | " + " | ".join(interval(change.tolist()) for change in changes) + " |")


def print_false_flags(results: Results, names: Sequence[str]) -> None:
    """False flags per 1,000 clean rows, by case and over all, where nothing is planted and beside
    FEW rows.
    """
    print(
        "\nFalse flags per 1,000 clean rows:\n\n| planted rows | probes | "
        + " | ".join(names)
        + " |\n|---|---|"
        + "---|" * len(names)
    )
    for count in (0, FEW):
        for most in results[names[0], count]:
            cells = [
                np.mean([per_thousand(one.measured) for one in results[name, count][most]])
                for name in names
            ]
            print(f"| {count} | {most} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |")
    for count in (0, FEW):
        print(
            f"\nAll cases, {count} planted rows:\n\n| probes | false flags per 1,000 clean rows |\n|---|---|"
        )
        print_lines([results[name, count] for name in names], [per_thousand])


def print_mined(results: Results, cases: Sequence[str]) -> None:
    """What was mined and asked, with probes."""
    print(
        "\n| case | planted rows | triggers mined an audit | sentinels and probes asked | audits that mined the planted trigger |"
    )
    print("|---|---|---|---|---|")
    for (name, count), of in results.items():
        some = list(of.values())[-1]
        found = (
            f"{sum(one.found for one in some)} of {len(some)}"
            if name in cases and count
            else "none planted"
        )
        print(
            f"| {name} | {count} | {np.mean([one.mined for one in some]):.1f} | {np.mean([one.asked for one in some]):.1f} | {found} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--counts",
        type=int,
        nargs="+",
        default=[5, 10, 20],
        help="poison rows, on the cases with a trigger",
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--probes", type=int, default=2, help="triggers probed at most")
    parser.add_argument("--model", default=ModelConfig().name)
    options = parser.parse_args()
    if options.probes < 1 or min(options.counts) < 1:
        parser.error(
            "--probes and --counts are at least 1: without either there is nothing to compare"
        )
    background, cases = read_rows(options.data / "background.jsonl"), read_cases(options.data)
    rows = Rows(
        load_pretrained(ModelConfig(name=options.model)),
        background,
        [e for case in cases for e in case.poison + case.hard_negatives],
        StrideConfig(),
    )
    results: Results = {}
    triggered = []
    for case in cases:
        planted = planted_ngrams(case, background)
        guarded = without_trigger(case, planted)
        if planted:
            triggered.append(case.name)
        for count in sorted({0, FEW, *(options.counts if planted else ())}):
            of: dict[int, list[Probed]] = {0: [], options.probes: []}
            for seed in range(options.first_seed, options.first_seed + options.seeds):
                audit = draw_audit(background, guarded, count, seed, False)
                for most, some in of.items():
                    some.append(probed(rows, audit, planted, most, DetectionConfig()))
            results[case.name, count] = of
        left_out = len(case.sentinels) - len(guarded.sentinels)
        print(
            f"{case.name}: done, {left_out} of {len(case.sentinels)} sentinels hold the trigger and were taken out",
            flush=True,
        )
    if triggered:
        print_planted(results, triggered)
    print_false_flags(results, [case.name for case in cases])
    print_mined(results, triggered)


if __name__ == "__main__":
    main()
