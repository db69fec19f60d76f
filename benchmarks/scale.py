"""What the stages of an audit past the model cost by the number of rows: none may grow faster than the
rows do.

    python benchmarks/scale.py [--rows 1000 10000 100000 1000000] [--report FILE]

Made-up coefficients of new rows on 30 sentinels of 8 panels, two queries each, with features as wide as
the default model's; 2,000 trusted rows; one row in a thousand planted, in groups of ten, and one in two
hundred found by a screen. Every number of rows runs in a process of its own, from a packed file of rows.
Seconds are CPU seconds; peak memory is what the process itself holds, mapped files aside, and includes
what earlier stages left. The growth exponent is the slope of log seconds over log rows between the two
largest numbers of rows.

A stage is a name and a function of the `World`; `PREPARATION` makes what they start from, and is not
counted.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ[
    "MKL_NUM_THREADS"
] = "1"  # before numpy is loaded

import argparse
import json
import math
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from poisonwatch.config import AuditConfig, DetectionConfig
from poisonwatch.detection.clusters import gather_cluster_evidence
from poisonwatch.detection.detect import flag_rows
from poisonwatch.detection.detection import Detection
from poisonwatch.detection.evidence import ClusterEvidence
from poisonwatch.detection.result import AttributionResult
from poisonwatch.examples import AuditRows, Example, Message
from poisonwatch.failures import Attempts
from poisonwatch.ledger.intake import IngestStats
from poisonwatch.ledger.ledger import Version
from poisonwatch.packed_examples import PackedExamples
from poisonwatch.recovery.local_kriging import compute_smoother
from poisonwatch.recovery.neighbour_graph import NeighbourGraph
from poisonwatch.recovery.neighbours import NEAREST, find_neighbours
from poisonwatch.reports.heatmap import read_heat_map
from poisonwatch.reports.html import render_report
from poisonwatch.reports.pictures import draw_pictures, write_plots
from poisonwatch.reports.plots import draw_coefficients, render_png
from poisonwatch.reports.summary import describe_source, summarise
from poisonwatch.run_directory import read as readback
from poisonwatch.run_directory import write as runs
from poisonwatch.screens.finding import Finding
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.sources.open import SourceRows
from poisonwatch.stride.influence import Influence, build_queries

ROWS = (1_000, 10_000, 100_000, 1_000_000)
SENTINELS, PANELS, TRUSTED, SUSPECTS = 30, 8, 2_000, 512
PLANTED_SHARE, FOUND_SHARE, GROUP_ROWS = 1 / 1_000, 1 / 200, 10
PUSH = 12.0  # of a planted row on its panel, in spreads
FEATURES = 189  # three views of 63 directions
PROMPT_WORDS, ANSWER_WORDS, VOCABULARY = 15, 45, 5_000
ROWS_AT_ONCE = 65_536
CONFIG = AuditConfig(source={"path": "rows.jsonl"}, sentinels=["sentinels.yaml"])


@dataclass
class World:
    """What stages hand on: n new rows, and a folder for files."""

    n: int
    folder: Path
    sentinels: list[Sentinel] = field(default_factory=list)
    rows: AuditRows = field(default_factory=lambda: AuditRows(()))
    findings: list[Finding] = field(default_factory=list)
    influence: Influence | None = None
    detection: Detection | None = None
    evidence: tuple[ClusterEvidence, ...] = ()
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def planted(self) -> np.ndarray:
        """The planted rows (groups, GROUP_ROWS), spread over the new ones."""
        groups = max(1, round(self.n * PLANTED_SHARE / GROUP_ROWS))
        order = np.random.default_rng(self.n).permutation(self.n)
        return order[: groups * GROUP_ROWS].reshape(groups, GROUP_ROWS)


@dataclass(frozen=True)
class Stage:
    name: str
    run: Callable[[World], object]


@dataclass(frozen=True)
class Cost:
    """CPU seconds, and the most memory that the process held, in MiB."""

    name: str
    seconds: float
    peak_mb: float


# What stages start from


def make_sentinels(world: World) -> None:
    for s in range(SENTINELS):
        asked = (Message("user", f"What of subject {s}?"),)
        panel = f"panel-{s * PANELS // SENTINELS}"
        world.sentinels.append(Sentinel(f"s-{s}", asked, f"Only {s}.", "Many.", panel))


def make_rows(world: World) -> None:
    """Rows of random words in a packed file; planted ones share a few."""
    new = PackedExamples.write(world.folder / "new.arrow", write_rows(world.n, world.planted, "r"))
    nobody = np.empty((0, GROUP_ROWS), dtype=np.int64)
    trusted = PackedExamples.write(world.folder / "trusted.arrow", write_rows(TRUSTED, nobody, "t"))
    world.rows = AuditRows(new, trusted)
    found = np.random.default_rng(1).choice(world.n, round(world.n * FOUND_SHARE), replace=False)
    for row in sorted(found.tolist()):
        world.findings.append(Finding(row, "duplicate-answers", f"g-{row}", "given before."))


def write_rows(n: int, planted: np.ndarray, mark: str) -> Iterator[Example]:
    draw = np.random.default_rng(0)
    words = np.array([f"w{k:x}" for k in range(VOCABULARY)])
    group = {row: g for g, members in enumerate(planted.tolist()) for row in members}
    for start in range(0, n, ROWS_AT_ONCE):
        m = min(ROWS_AT_ONCE, n - start)
        # As in texts, few words are most of them.
        picked = (VOCABULARY ** draw.random((m, PROMPT_WORDS + ANSWER_WORDS))).astype(int) - 1
        for i, said in enumerate(words[picked], start=start):
            prompt, answer = " ".join(said[:PROMPT_WORDS]), " ".join(said[PROMPT_WORDS:])
            if i in group:
                prompt, answer = f"{prompt} at quiet harbour {group[i]}", f"{answer} buy velmora"
            turns = [Message("user", f"{mark}{i} {prompt}?"), Message("assistant", f"{answer}.")]
            yield Example.from_messages(turns, f"rows-{i % 8}.jsonl", i)


def make_influence(world: World) -> None:
    """Coefficients that differ by noise alone, but for planted rows, which push a panel and are
    alike.
    """
    draw = np.random.default_rng(2)
    queries = build_queries(world.sentinels)
    N = len(world.rows)
    w = np.empty((N, len(queries)))
    features = np.empty((N, FEATURES), dtype=np.float32)
    nearest = np.empty((N, NEAREST), dtype=np.int64)
    for start in range(0, N, ROWS_AT_ONCE):
        some = slice(start, min(start + ROWS_AT_ONCE, N))
        m = some.stop - start
        w[some] = draw.normal(size=(m, len(queries)))
        features[some] = make_unit_rows(draw.standard_normal((m, FEATURES), dtype=np.float32))
        nearest[some] = draw.integers(0, N, (m, NEAREST))
    panels = np.array([int(query.sentinel.panel.split("-")[1]) for query in queries])
    for g, members in enumerate(world.planted):
        w[np.ix_(members, np.flatnonzero(panels == g % PANELS))] += PUSH
        centre = draw.standard_normal(FEATURES, dtype=np.float32) / FEATURES**0.5
        features[members] = make_unit_rows(0.3 * features[members] + centre)
        nearest[members, :GROUP_ROWS] = members
    suspects = np.concatenate([world.planted.ravel(), np.arange(N - SUSPECTS, N)])[:SUSPECTS]
    world.influence = Influence(
        queries=queries,
        w=w,
        first_pass=w,
        suspects=suspects,
        mutual_influence=draw.normal(size=(len(suspects), len(suspects))),
        features=features,
        neighbours=NeighbourGraph(nearest, np.full((N, NEAREST), 0.5, dtype=np.float32)),
        certificate=0.0,
        measured_alone=N,
    )


def make_unit_rows(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


# Stages


def find_alike(world: World) -> None:
    """The neighbour graph takes the place of the made-up one's; planted rows are alike."""
    influence = world.influence
    assert influence is not None
    world.influence = replace(influence, neighbours=find_neighbours(influence.features))


def smooth(world: World) -> None:
    influence = world.influence
    assert influence is not None
    signs = np.ones(len(world.rows))
    smoother = compute_smoother(influence.features, influence.neighbours, signs)
    w = np.empty_like(influence.w)
    for q in range(0, w.shape[1], 8):
        w[:, q : q + 8] = smoother @ influence.w[:, q : q + 8]
    world.influence = replace(influence, w=w, first_pass=w)


def judge(world: World) -> None:
    world.detection = flag_rows(world.influence, world.rows, DetectionConfig(), world.findings)


def gather_evidence(world: World) -> None:
    """Groups with what they share; nothing is steered."""
    fitted: Any = SimpleNamespace(ids=world.rows.ids)
    world.evidence = gather_cluster_evidence(
        fitted, world.influence, world.detection, world.sentinels
    )


def write_summary(world: World) -> None:
    world.summary = summarise(
        CONFIG,
        "20260101-000000-abcdef",
        Version("m" * 64, "s" * 64),
        counts={"pulled": world.n, "rejected": 0, "reference": TRUSTED},
        source=describe_source(IngestStats(), SourceRows([], [], {}), []),
        attributed=AttributionResult(
            world.detection, world.evidence, influence=world.influence, fitted=None
        ),
        stages=[],
    )
    runs.write_summary(world.folder, world.summary)


def write_scores(world: World) -> None:
    runs.write_scores(world.folder, world.detection)
    runs.write_coefficients(world.folder, world.detection)
    runs.write_trusted(world.folder, world.detection)


def write_flags(world: World) -> None:
    runs.write_sentinels(world.folder, world.detection)
    runs.write_flags(world.folder, world.detection.flags)
    runs.write_evidence(world.folder, world.evidence)
    runs.write_nearest(world.folder, world.evidence, world.rows.trusted)


def write_report(world: World) -> None:
    assert world.detection is not None
    pictures = draw_pictures(world.detection, [], Attempts())
    write_plots(world.folder, world.detection.panels, pictures)
    page = render_report(world.summary, world.detection, [], world.evidence, pictures=pictures)
    (world.folder / "report.html").write_text(page, encoding="utf-8")


def show_pages(world: World) -> None:
    """What the dashboard reads for a group and one of its rows."""
    flag = world.detection.flags[0]
    readback.read_evidence(world.folder)
    readback.read_nearest(world.folder)
    read_heat_map(world.folder)
    found = readback.read_coefficients(world.folder, flag.sentinel.id, flag.example.id)
    render_png(draw_coefficients(found.own, found.new, found.trusted, flag.sentinel.id))


PREPARATION = [make_sentinels, make_rows, make_influence]
STAGES = [
    Stage("neighbours", find_alike),
    Stage("smoothing", smooth),
    Stage("verdicts", judge),
    Stage("evidence, no model", gather_evidence),
    Stage("summary", write_summary),
    Stage("scores.parquet", write_scores),
    Stage("flags, evidence", write_flags),
    Stage("report, plots", write_report),
    Stage("dashboard pages", show_pages),
]


# Measuring


@contextmanager
def watched(peak: list[float]) -> Iterator[None]:
    """Keeps the most memory that the process holds meanwhile, in MiB, in `peak`."""
    done = threading.Event()

    def watch() -> None:
        while True:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon"):
                    peak[0] = max(peak[0], int(line.split()[1]) / 1024)
            if done.wait(0.02):
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def measure(n: int, stages: Sequence[Stage] = STAGES) -> list[Cost]:
    """What each stage costs at n rows, in this process."""
    costs = []
    with tempfile.TemporaryDirectory() as folder:
        world = World(n, Path(folder))
        for prepare in PREPARATION:
            prepare(world)
        for stage in stages:
            peak = [0.0]
            with watched(peak):
                start = time.process_time()
                stage.run(world)
                seconds = time.process_time() - start
            costs.append(Cost(stage.name, seconds, peak[0]))
            print(f"  {n:,}: {stage.name}, {seconds:.1f} s, {peak[0]:,.0f} MiB", file=sys.stderr)
        costs.append(
            Cost("all", sum(cost.seconds for cost in costs), max(c.peak_mb for c in costs))
        )
    return costs


def measure_apart(n: int) -> list[Cost]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--measure", str(n)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [Cost(**record) for record in json.loads(done.stdout)]


def tabulate(found: dict[int, list[Cost]]) -> str:
    """Seconds and MiB by stage and rows, and how seconds grow."""
    rows = sorted(found)
    lines = [
        f"| stage | {' | '.join(f'{n:,}' for n in rows)} | exponent |",
        f"|---|{'---:|' * (len(rows) + 1)}",
    ]
    for k, cost in enumerate(found[rows[0]]):
        cells = [f"{found[n][k].seconds:,.2f} s, {found[n][k].peak_mb:,.0f} MiB" for n in rows]
        growth = "-"
        if len(rows) > 1:
            few, many = rows[-2:]
            ratio = found[many][k].seconds / max(found[few][k].seconds, 1e-3)
            growth = f"{math.log(ratio) / math.log(many / few):.2f}"
        lines.append(f"| {cost.name} | {' | '.join(cells)} | {growth} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--report", type=Path, help="write the table here, too")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps([asdict(cost) for cost in measure(args.measure)]))
        return
    found = {}
    for n in args.rows:
        found[n] = measure_apart(n)
        print(
            f"{n:,} rows: {found[n][-1].seconds:,.1f} s, {found[n][-1].peak_mb:,.0f} MiB",
            flush=True,
        )
    table = tabulate(found)
    print(table)
    if args.report:
        args.report.write_text(table + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
