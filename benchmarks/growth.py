"""What a year of hourly audits leaves, before and after `poisonwatch prune`.

    python benchmarks/growth.py --folder /tmp/growth [--audits 40] [--flows 12] [--rows-every 4]

Some audits of the tiny model take place for real, the first of them as flow runs on a Prefect
server, all of them with MLflow on SQLite; one in `--rows-every` has twelve new rows. Then `prune`
runs. From what an audit of either kind leaves, a year follows by multiplication, of which one audit
in 24 has new rows; but for the ledger, which is filled by the library with a year of audits, for
its size and for the time that its questions take. Started again on the same folder, it goes on.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent / "tests" / "support"
HOURS, ROWS_EVERY = 8760, 24  # audits of a year, of which one in so many has new rows
KEPT_DAYS, KEPT_OPERATORS = 90, 3  # the defaults of `keep`
NEW_ROWS = 12
CLI = (sys.executable, "-m", "poisonwatch.flows.cli")


def measure(path: Path) -> int:
    """What a file or folder takes, in bytes."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def measure_store(folder: Path) -> dict[str, int]:
    """Bytes by store; databases without what their logs hold yet."""
    prefect = folder / "prefect"
    return {
        "ledger": sum(measure(path) for path in folder.glob("poisonwatch.db*")),
        "run directories": measure(folder / "runs") - measure_operators(folder),
        "operators": measure_operators(folder),
        "MLflow, database": measure(folder / "mlflow.db"),
        "MLflow, files": measure(folder / "mlartifacts"),
        "Prefect, database": sum(measure(path) for path in prefect.glob("prefect.db*")),
    }


def measure_operators(folder: Path) -> int:
    """Bytes of operators in run directories."""
    return sum(path.stat().st_size for path in folder.glob("runs/*/operators.safetensors"))


def write_year(folder: Path) -> Path:
    """The audit file, with a tiny random model, on which nothing is flagged."""
    sys.path.insert(0, str(TESTS))
    from audits import benign, write_audit
    from tiny_models import build_model, build_tokenizer

    model = folder / "model"
    build_model("llama").save_pretrained(model)
    build_tokenizer().save_pretrained(model)
    settings: dict[str, Any] = {"screens": [], "probes": 0}
    settings["detection"] = {"false_discovery_rate": 1e-6}
    settings["keep"] = {"days": 0, "audits": 1, "operators": 1}
    return write_audit(folder, model, rows=benign(NEW_ROWS), **settings)


def run_audits(file: Path, audits: int, flows: int, rows_every: int) -> list[dict[str, Any]]:
    """Audit until there are so many: of each its new rows, seconds, and what it added by store."""
    sys.path.insert(0, str(TESTS))
    os.environ["PREFECT_HOME"] = str(file.parent / "prefect")
    from audits import benign
    from ledgers import append

    from poisonwatch.config_file import load_config
    from poisonwatch.flows.audit import audit, audit_inline
    from poisonwatch.flows.own_server import open_server
    from poisonwatch.flows.reporter import Reporter
    from poisonwatch.run_directory.layout import choose_run_dir

    done_file = file.parent / "done.json"
    done: list[dict[str, Any]] = []
    if done_file.exists():
        done = json.loads(done_file.read_text())

    def go_on(until: int, run: Callable[[], Any], is_flow: bool) -> None:
        while len(done) < until:
            number = len(done)
            if number and number % rows_every == 0:
                append(file.parent / "rows.jsonl", benign(NEW_ROWS, start=1000 + number * NEW_ROWS))
            started = time.monotonic()
            before = measure_store(file.parent)
            outcome = run()
            after = measure_store(file.parent)
            done.append(
                {
                    "new": outcome.summary["counts"]["new"],
                    "flow": is_flow,
                    "seconds": time.monotonic() - started,
                    "added": {name: after[name] - before[name] for name in after},
                }
            )
            done_file.write_text(json.dumps(done))

    if len(done) < flows:
        with open_server(4299, Reporter(quiet=True)):
            go_on(flows, lambda: audit(str(file)), is_flow=True)
    config = load_config(file)
    go_on(
        audits,
        lambda: audit_inline(config, choose_run_dir(file), skip_empty=True),
        is_flow=False,
    )
    return done


def prune(file: Path) -> None:
    subprocess.run([*CLI, "prune", str(file), "--yes"], check=True)
    # What MLflow only marked as deleted.
    store = f"sqlite:///{file.parent / 'mlflow.db'}"
    gc = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", store]
    subprocess.run([*gc, "--tracking-uri", store], check=True, stdout=subprocess.DEVNULL)


def fill_ledger(folder: Path, file: Path) -> Path:
    """A ledger with a year of audits, as the library writes them; each with rows has a summary and
    a record as long as a real one's.
    """
    sys.path.insert(0, str(TESTS))
    from audits import benign
    from ledgers import NAME, ONE, append, cover, pull
    from sqlalchemy import update

    from poisonwatch.config_file import load_config
    from poisonwatch.ledger.audits import record_nothing_new
    from poisonwatch.ledger.history import list_past_audits
    from poisonwatch.ledger.ledger import Ledger, now
    from poisonwatch.ledger.outbox import MLFLOW, PREFECT
    from poisonwatch.ledger.tables import deliveries

    with Ledger.at(load_config(file).state) as real:
        summary = next(past for past in list_past_audits(real) if past.nothing_new).summary
    year = folder / "year"
    data = year / "data"
    data.mkdir(parents=True, exist_ok=True)
    with Ledger.at(f"sqlite:///{year / 'ledger.db'}") as ledger:
        done = len(list_past_audits(ledger))
        for number in range(done, HOURS):
            run_dir = year / "runs" / f"audit-{number}"
            if number % ROWS_EVERY == 0:
                append(data / "rows.jsonl", benign(NEW_ROWS, start=number * NEW_ROWS))
                pull(ledger, data)
                cover(ledger, run_dir)
                shutil.rmtree(run_dir)
                continue
            named = {**summary, "audit_id": run_dir.name, "name": NAME}
            record_nothing_new(ledger, named, ONE, run_dir, [MLFLOW, PREFECT], f"flow-{number}")
        # As if everybody was told of every audit.
        with ledger.write() as connection:
            left = update(deliveries).where(deliveries.c.delivered_at.is_(None))
            connection.execute(left.values(delivered_at=now(), attempts=1))
    return year / "ledger.db"


def take_lock(ledger: Any) -> None:
    """As every audit does first."""
    with ledger.lock("tiny"):
        pass


def time_questions(path: Path) -> dict[str, float]:
    """Milliseconds that a ledger with a year of audits takes to answer, the best of three."""
    from poisonwatch.keep_config import KeepConfig
    from poisonwatch.ledger import overview
    from poisonwatch.ledger.history import find_by_flow_run, list_past_audits, list_pending_audits
    from poisonwatch.ledger.ledger import Ledger
    from poisonwatch.ledger.outbox import MLFLOW
    from poisonwatch.ledger.overview import AuditFilter
    from poisonwatch.pruning.plan import plan_pruning

    everything = AuditFilter()
    with Ledger.at(f"sqlite:///{path}") as ledger:
        questions: dict[str, Callable[[], object]] = {
            "the last 20 audits (history)": lambda: list_past_audits(ledger, "tiny", 20),
            "the overview's first page": lambda: overview.list_audits(ledger, everything),
            "its totals": lambda: overview.count_totals(ledger, everything),
            "audits that owe MLflow": lambda: list_pending_audits(ledger, "tiny", MLFLOW),
            "the audit of a flow run": lambda: find_by_flow_run(ledger, "flow-4000"),
            "lock and recovery": lambda: take_lock(ledger),
            "a plan of pruning": lambda: plan_pruning(ledger, "tiny", KeepConfig()),
        }
        found = {}
        for what, ask in questions.items():
            times = []
            for _ in range(3):
                started = time.perf_counter()
                ask()
                times.append(1000 * (time.perf_counter() - started))
            found[what] = min(times)
    return found


def report(done: list[dict[str, Any]], year: Path) -> None:
    """The table, as Markdown."""
    days = HOURS // ROWS_EVERY
    print(f"| | an audit with {NEW_ROWS} new rows | one without | a year | after pruning |")
    print("|---|---|---|---|---|")
    total = total_kept = 0.0
    for name in done[0]["added"]:
        # The first of each kind makes tables and folders; only flow runs leave Prefect anything.
        counted = [audit for audit in done if audit["flow"] or not name.startswith("Prefect")]
        with_rows = [audit["added"][name] for audit in counted if audit["new"]][1:]
        without = [audit["added"][name] for audit in counted if not audit["new"]][1:]
        each, empty = sum(with_rows) / len(with_rows), sum(without) / len(without)
        whole = each * days + empty * (HOURS - days)
        kept = whole
        if name in ("run directories", "MLflow, files"):
            kept = each * KEPT_DAYS * 24 / ROWS_EVERY
        elif name == "operators":
            kept = each * (KEPT_OPERATORS + 1)
        elif name == "MLflow, database":
            kept = each * KEPT_DAYS * 24 / ROWS_EVERY + empty * (HOURS - days)
        elif name == "Prefect, database":
            kept = whole * KEPT_DAYS / 365
        elif name == "ledger":
            whole = kept = float(measure(year))
        total, total_kept = total + whole, total_kept + kept
        cells = (f"{each / 1e3:.1f} kB", f"{empty / 1e3:.1f} kB", f"{whole / 1e6:.1f} MB")
        print(f"| {name} | {' | '.join(cells)} | {kept / 1e6:.1f} MB |")
    print(f"| all | | | {total / 1e6:.1f} MB | {total_kept / 1e6:.1f} MB |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--audits", type=int, default=40)
    parser.add_argument("--flows", type=int, default=12)
    parser.add_argument("--rows-every", type=int, default=4)
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["DO_NOT_TRACK"] = "true"
    file = folder / "audit.yaml"
    if not file.exists():
        write_year(folder)
    done = run_audits(file, options.audits, options.flows, options.rows_every)
    before = measure_store(folder)
    year = fill_ledger(folder, file)
    prune(file)
    after = measure_store(folder)
    print(f"{len(done)} audits, {sum(bool(audit['new']) for audit in done)} with new rows:")
    for name in before:
        print(f"  {name}: {before[name] / 1e3:.1f} kB, pruned {after[name] / 1e3:.1f} kB")
    report(done, year)
    for what, milliseconds in time_questions(year).items():
        print(f"  {what}: {milliseconds:.1f} ms")


if __name__ == "__main__":
    main()
