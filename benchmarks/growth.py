"""What hundreds of audits leave, before and after `poisonwatch prune`, and what a year of hourly
ones comes to.

    python benchmarks/growth.py --folder /tmp/growth [--audits 400] [--rows-every 8] [--minutes 40]
    python benchmarks/growth.py --folder /tmp/growth --year [--postgres]

Audits of a tiny model take place for real, as flow runs on a Prefect server, with MLflow on SQLite;
one in `--rows-every` has twelve new rows. After `--minutes` no other is begun: started again on the
same folder, it goes on. Then `prune` runs, and from what an audit of either kind left a year
follows by multiplication, of which one audit in 24 has new rows. With `--year` a ledger is filled
by the library with that year instead, for its size and for the time that its questions take: in
SQLite, where it goes on, too, or in a PostgreSQL of its own.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from typing import Any

TESTS = Path(__file__).parent.parent / "tests" / "support"
HOURS, ROWS_EVERY = 8760, 24  # audits of a year, of which one in so many has new rows
KEPT_DAYS, KEPT_OPERATORS = 90, 3  # the defaults of `keep`
LAST_AUDITS = 5  # that stay when `prune` runs here: fewer than by default, so that some go
PARTS = 4  # of the audits, by when they came: whether later ones leave or take more
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
    from audits import benign, write_audit
    from tiny_models import build_model, build_tokenizer

    model = folder / "model"
    build_model("llama").save_pretrained(model)
    build_tokenizer().save_pretrained(model)
    settings: dict[str, Any] = {"screens": [], "probes": 0, "tracking": "sqlite:///mlflow.db"}
    settings["detection"] = {"false_discovery_rate": 1e-6}
    settings["keep"] = {"days": 0, "audits": LAST_AUDITS, "operators": KEPT_OPERATORS}
    return write_audit(folder, model, rows=benign(NEW_ROWS), **settings)


def run_audits(file: Path, audits: int, rows_every: int, minutes: float) -> list[dict[str, Any]]:
    """Audit until there are so many, or the time is over: of each its new rows, seconds, and the
    bytes that it added to each store.
    """
    os.environ["PREFECT_HOME"] = str(file.parent / "prefect")
    from audits import benign
    from ledgers import append
    from servers import free_port

    from poisonwatch.atomic import replace_file
    from poisonwatch.flows.audit import audit
    from poisonwatch.flows.own_server import open_server
    from poisonwatch.flows.reporter import Reporter

    done_file = file.parent / "done.json"
    done: list[dict[str, Any]] = []
    if done_file.exists():
        done = json.loads(done_file.read_text())
    until = time.monotonic() + 60 * minutes
    if len(done) >= audits:
        return done
    with open_server(free_port(), Reporter(quiet=True)):
        while len(done) < audits and time.monotonic() < until:
            number = len(done)
            if number and number % rows_every == 0:
                append(file.parent / "rows.jsonl", benign(NEW_ROWS, start=1000 + number * NEW_ROWS))
            before = measure_store(file.parent)
            started = time.monotonic()
            outcome = audit(str(file))
            seconds = time.monotonic() - started
            after = measure_store(file.parent)
            done.append(
                {
                    "new": outcome.summary["counts"]["new"],
                    "seconds": seconds,
                    "added": {name: after[name] - before[name] for name in after},
                }
            )
            with replace_file(done_file) as part:
                part.write_text(json.dumps(done))
    return done


def prune(file: Path) -> None:
    subprocess.run([*CLI, "prune", str(file), "--yes"], check=True)
    # What MLflow only marked as deleted.
    store = f"sqlite:///{file.parent / 'mlflow.db'}"
    gc = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", store]
    subprocess.run([*gc, "--tracking-uri", store], check=True, stdout=subprocess.DEVNULL)


def fill_ledger(year: Path, url: str, summary: dict[str, Any]) -> None:
    """A ledger with a year of audits, as the library writes them: those without new rows have this
    summary.
    """
    from audits import benign
    from ledgers import NAME, ONE, append, cover, pull
    from sqlalchemy import update

    from poisonwatch.ledger.audits import record_nothing_new
    from poisonwatch.ledger.history import list_past_audits
    from poisonwatch.ledger.ledger import Ledger, now
    from poisonwatch.ledger.outbox import MLFLOW, PREFECT
    from poisonwatch.ledger.tables import deliveries

    data = year / "data"
    data.mkdir(parents=True, exist_ok=True)
    with Ledger.at(url) as ledger:
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


def find_empty_summary(file: Path) -> dict[str, Any]:
    """Of an audit that no row waited for."""
    from poisonwatch.config_file import load_config
    from poisonwatch.ledger.history import list_past_audits
    from poisonwatch.ledger.ledger import Ledger

    with Ledger.at(load_config(file).state) as ledger:
        return dict(next(past for past in list_past_audits(ledger) if past.nothing_new).summary)


def measure_postgres(url: str) -> int:
    """The bytes of a database."""
    from poisonwatch.ledger.ledger import Ledger

    with Ledger.at(url) as ledger, ledger.read() as connection:
        query = "select pg_database_size(current_database())"
        return int(connection.exec_driver_sql(query).scalar_one())


def take_lock(ledger: Any) -> None:
    """As every audit does first."""
    with ledger.lock("tiny"):
        pass


def time_questions(url: str) -> dict[str, float]:
    """Milliseconds that a ledger with a year of audits takes to answer, the best of three."""
    from poisonwatch.keep_config import KeepConfig
    from poisonwatch.ledger import overview
    from poisonwatch.ledger.audit_lines import list_audit_lines
    from poisonwatch.ledger.history import find_by_flow_run, list_past_audits, list_pending_audits
    from poisonwatch.ledger.ledger import Ledger
    from poisonwatch.ledger.outbox import MLFLOW
    from poisonwatch.ledger.overview import AuditFilter
    from poisonwatch.ledger.tables import audits
    from poisonwatch.pruning.plan import plan_pruning

    everything = AuditFilter()
    ours = [audits.c.name == "tiny"]
    with Ledger.at(url) as ledger:
        questions: dict[str, Callable[[], object]] = {
            "the last 20 lines (history)": lambda: list_audit_lines(ledger, ours, 20),
            "the last 20 audits (--all)": lambda: list_past_audits(ledger, "tiny", 20),
            "the overview's first page": lambda: overview.list_lines(ledger, everything),
            "each audit's line of it": lambda: overview.list_audits(ledger, everything),
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


def report_year(done: list[dict[str, Any]]) -> None:
    """The table of a year, as Markdown."""
    days = HOURS // ROWS_EVERY
    print(f"| | an audit with {NEW_ROWS} new rows | one without | a year | after pruning |")
    print("|---|---|---|---|---|")
    total = total_kept = 0.0
    for name in done[0]["added"]:
        # The first makes tables and folders.
        with_rows = [audit["added"][name] for audit in done[1:] if audit["new"]]
        without = [audit["added"][name] for audit in done[1:] if not audit["new"]]
        each, empty = mean(with_rows), mean(without)
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
        total, total_kept = total + whole, total_kept + kept
        cells = (f"{each / 1e3:.1f} kB", f"{empty / 1e3:.1f} kB", f"{whole / 1e6:.1f} MB")
        print(f"| {name} | {' | '.join(cells)} | {kept / 1e6:.1f} MB |")
    print(f"| all | | | {total / 1e6:.1f} MB | {total_kept / 1e6:.1f} MB |")


def report_parts(done: list[dict[str, Any]]) -> None:
    """Whether later audits take longer, or leave more: a table by when they came."""
    print("| audits | with rows: s | without: s | with rows: kB | without: kB |")
    print("|---|---|---|---|---|")
    size = (len(done) - 1) // PARTS
    for start in range(1, size * PARTS + 1, size):
        some = done[start : start + size]
        with_rows = [audit for audit in some if audit["new"]]
        without = [audit for audit in some if not audit["new"]]
        cells = [f"{start + 1} to {start + size}"]
        for kind in (with_rows, without):
            cells.append(f"{median(audit['seconds'] for audit in kind):.1f}")
        for kind in (with_rows, without):
            cells.append(f"{mean(sum(audit['added'].values()) for audit in kind) / 1e3:.0f}")
        print(f"| {' | '.join(cells)} |")


def fill_year(folder: Path, summary: dict[str, Any], postgres: bool) -> None:
    """A ledger with a year of audits: its size, and the time of its questions."""
    from servers import own_postgres_server

    started = time.monotonic()
    if not postgres:
        url = f"sqlite:///{folder / 'year' / 'ledger.db'}"
        fill_ledger(folder / "year", url, summary)
        size = measure(folder / "year" / "ledger.db")
        report_ledger("SQLite", url, size, time.monotonic() - started)
        return
    with own_postgres_server() as url, tempfile.TemporaryDirectory(dir=folder) as year:
        empty = measure_postgres(url)
        fill_ledger(Path(year), url, summary)
        size = measure_postgres(url) - empty
        report_ledger("PostgreSQL", url, size, time.monotonic() - started)


def report_ledger(what: str, url: str, size: int, seconds: float) -> None:
    print(f"{what}: {HOURS} audits recorded in {seconds:.0f} s, {size / 1e6:.1f} MB")
    for question, milliseconds in time_questions(url).items():
        print(f"  {question}: {milliseconds:.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--audits", type=int, default=400)
    parser.add_argument("--rows-every", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--year", action="store_true")
    parser.add_argument("--postgres", action="store_true")
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["DO_NOT_TRACK"] = "true"
    sys.path.insert(0, str(TESTS))
    file = folder / "audit.yaml"
    if not file.exists():
        write_year(folder)
    if options.year:
        fill_year(folder, find_empty_summary(file), options.postgres)
        return
    done = run_audits(file, options.audits, options.rows_every, options.minutes)
    before = measure_store(folder)
    prune(file)
    after = measure_store(folder)
    print(f"{len(done)} audits, {sum(bool(audit['new']) for audit in done)} with new rows:")
    for name in before:
        print(f"  {name}: {before[name] / 1e3:.1f} kB, pruned {after[name] / 1e3:.1f} kB")
    report_parts(done)
    report_year(done)


if __name__ == "__main__":
    main()
