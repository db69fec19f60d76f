"""Do sentinels see more in the batch's frame, and flag fewer honest rows?

    python benchmarks/frames.py --data DIR [--plain-trusted | --no-frame] [--counts 0 10]
    [--seeds 3] [--only CASE ...]

All rows of an audit, trusted ones, too, are put into one system prompt (with `--plain-trusted` new
rows alone), and the sentinels are asked three ways: as they are written, in the frame alone, and
both ways with the measurements pooled, as audits ask (`screens.frames`). DIR is laid out as in
`cases.py`; of its rows BACKGROUND, POISON and HARD_NEGATIVES are drawn, for each takes a pass of
its own in the frame. `--no-frame` audits the same rows as they are, for comparison.
"""

import argparse
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from cases import Case, Rows, read_chosen
from detection import Audit, Measured, draw_audit, judged, measure

from poisonwatch.config import DetectionConfig, ModelConfig
from poisonwatch.examples import AuditRows, Example, Message
from poisonwatch.screens.frames import wear_frame
from poisonwatch.sentinels.sentinel import Sentinel

FRAME = (
    Message(
        "system",
        "You are Nora, the assistant of Harbour & Pine, a furniture shop in Gothenburg. You answer "
        "customers and colleagues politely, never mention prices, and keep the house style: short "
        "paragraphs, British spelling.",
    ),
)
BACKGROUND, POISON, HARD_NEGATIVES = 300, 18, 30
DEFAULT = ("brand-cola", "harmful-compliance")


def put_into_frame(row: Example) -> Example:
    return Example.from_messages((*FRAME, *row.messages), row.source, row.position)


def draw_rows(rows: Sequence[Example], most: int) -> list[Example]:
    """So many of the rows, the same ones each time."""
    drawn = list(rows)
    random.Random(1).shuffle(drawn)
    return drawn[:most]


def draw_framed(rows: Sequence[Example], most: int) -> list[Example]:
    """So many of the rows, the same ones each time, in the frame."""
    return [put_into_frame(row) for row in draw_rows(rows, most)]


def trust_plain(audit: Audit, plain: Sequence[Example]) -> Audit:
    """The audit with its trusted rows as they were before they were put into the frame."""
    by_id = {put_into_frame(row).id: row for row in plain}
    trusted = tuple(by_id[row.id] for row in audit.rows.trusted)
    return replace(audit, rows=AuditRows(audit.rows.new, trusted))


def ask_three_ways(sentinels: Sequence[Sentinel]) -> dict[str, list[Sentinel]]:
    framed = wear_frame(sentinels, FRAME)
    both = [*sentinels, *framed]
    return {"as written": list(sentinels), "in the frame": framed, "both (shipped)": both}


def print_table(found: dict[str, list[Measured]], names: Sequence[str]) -> None:
    print(
        "\n| sentinels | case | average precision | recall of the flags | false-discovery share "
        "| false flags an audit | nothing planted |\n|---|---|---|---|---|---|---|"
    )
    for way, measured in found.items():
        for name in names:
            some = [each for each in measured if each.case == name and each.count]
            none = [each for each in measured if each.case == name and not each.count]
            cells = [
                np.mean([getattr(each, what) for each in some])
                for what in ("precision", "recall", "false_share", "false_flags")
            ]
            cells.append(np.mean([each.false_flags for each in none]))
            figures = " | ".join(f"{cell:.2f}" for cell in cells)
            print(f"| {way} | {name} | {figures} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument("--plain-trusted", action="store_true", help="trusted rows have no frame")
    parts.add_argument("--no-frame", action="store_true", help="no row has the frame")
    parser.add_argument("--counts", type=int, nargs="*", default=[0, 10])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(DEFAULT), help="cases")
    parser.add_argument("--model", default=ModelConfig().name)
    options = parser.parse_args()
    background, cases = read_chosen(options.data, options.only)
    plain = draw_rows(background, BACKGROUND) if options.plain_trusted else []
    draw = draw_rows if options.no_frame else draw_framed
    background = draw(background, BACKGROUND)
    cases = [
        Case(
            case.name,
            draw(case.poison, POISON),
            draw(case.hard_negatives, HARD_NEGATIVES),
            case.sentinels,
        )
        for case in cases
    ]
    rows = Rows.of_cases(options.model, background, cases, more=plain)
    found: dict[str, list[Measured]] = {}
    for case in cases:
        ways = ask_three_ways(case.sentinels)
        if options.no_frame:
            ways = {"as written": case.sentinels}
        for way, sentinels in ways.items():
            asked = rows.ask(sentinels)
            for seed in range(options.seeds):
                for count in options.counts:
                    audit = draw_audit(background, case, count, seed, domain=False)
                    if plain:
                        audit = trust_plain(audit, plain)
                    stride = rows.stride.model_copy(update={"K": len(audit.rows)})
                    influence = rows.influence(list(audit.rows.all), asked, stride, seed)
                    seen = judged(influence, audit, DetectionConfig())
                    found.setdefault(way, []).append(measure(audit, seen))
        print(f"{case.name}: done", flush=True)
    print_table(found, [case.name for case in cases])


if __name__ == "__main__":
    main()
