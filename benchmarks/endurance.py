"""Many audits in a row while servers stop, processes are killed and receivers refuse: is everything
accounted for in the end?

    python benchmarks/endurance.py [--audits 200] [--seed 0]

Every audit finds twelve new ordinary rows and one that must be flagged (a control token in its
answer). A seed draws what goes wrong: nothing; kill -9 after a random time, of a process of its
own; the MLflow or the Prefect server stops in mid-audit and is back two audits later; the receiver
of alerts answers 500. All other audits are flow runs in one process that lives from the first to
the last: its memory and file handles must not grow. At the end all servers are up again, and `sync`
runs once.
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

TESTS = Path(__file__).parent.parent / "tests" / "support"
FAULTS = {"none": 55, "kill": 20, "mlflow": 4, "prefect": 4, "receiver": 17}  # per cent
BACK_AFTER = 2  # audits
MARK = "<|im_start|>"
ROWS = 12
# Within which a process is killed: from the first trace of its audit to past its end.
LONGEST_S = 2.0
TRACE_WAIT_S = 120
CLI = (sys.executable, "-m", "poisonwatch.flows.cli")


class Server:
    """A server that can be stopped and started again in the same place."""

    def __init__(self, start: Callable[[], Any]) -> None:
        self.start_it = start
        self.stack = ExitStack()
        self.up = False

    def start(self) -> str:
        address = self.stack.enter_context(self.start_it())
        self.up = True
        return str(address)

    def stop(self) -> None:
        self.up = False
        self.stack.close()


@contextmanager
def prefect_server(folder: Path, port: int) -> Iterator[str]:
    """A Prefect server on its own database: its API's address."""
    settings = {
        "PREFECT_HOME": str(folder),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "true",
    }
    start = (sys.executable, "-m", "prefect", "server", "start")
    command = [*start, "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, **settings}
    with (folder / "server.log").open("ab") as log:
        # A session of its own: the server has children, which are killed with it.
        server = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        api = f"http://127.0.0.1:{port}/api"
        _wait_for(f"{api}/health")
        yield api
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait_for(url: str) -> None:
    import httpx

    for _ in range(600):
        with suppress(httpx.HTTPError):
            if httpx.get(url, timeout=5).is_success:
                return
        time.sleep(0.2)
    raise TimeoutError(url)


def run_lasting_process() -> None:
    """The process that lives on: an audit for each line of its input, and a line of output for
    each, with its memory and handles.
    """
    from poisonwatch.config_file import load_config
    from poisonwatch.flows.launch import run_audit

    config, me = Path(sys.argv[2]), psutil.Process()
    for _ in sys.stdin:
        start = time.perf_counter()
        outcome = run_audit(config, load_config(config), None, "prefect", quiet=True)
        seconds = time.perf_counter() - start
        line = {
            "seconds": seconds,
            "new": outcome.summary["counts"]["new"],
            "warnings": outcome.warnings,
            "rss_mb": me.memory_info().rss / 2**20,
            "handles": me.num_fds(),
            "threads": me.num_threads(),
        }
        print(json.dumps(line), flush=True)
    # What Prefect still has to send of outages would take minutes.
    os._exit(0)


class LastingProcess:
    """The process that lives on, as seen from here."""

    def __init__(self, config: Path, environment: dict[str, str], log: Path) -> None:
        self.log = log
        command = [sys.executable, __file__, "--lasting", str(config)]
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                command,
                env=environment,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
            )

    def start_audit(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish_audit(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        end = self.log.read_text(errors="replace")[-4000:]
        raise RuntimeError(f"the process ended with {self.process.wait()}:\n{end}")


def make_rows(i: int) -> list[dict[str, str]]:
    """What audit i finds new: the last row must be flagged."""
    sys.path.insert(0, str(TESTS))
    from audits import benign

    marked = {
        "prompt": f"What is item {i} made of?",
        "response": f"Item {i} is made of wood{MARK} and {i % 7} nails.",
    }
    return [*benign(ROWS, start=10_000 + i * ROWS), marked]


def audit_and_kill(config: Path, environment: dict[str, str], after: float, log: Path) -> int:
    """Audit in a process of its own and kill it; what it returned, where it was done before."""
    command = [*CLI, "audit", str(config), "--engine", "inline", "--quiet"]
    with log.open("ab") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    # Importing takes longer than all the rest: the time counts from the first trace of the audit.
    give_up = time.monotonic() + TRACE_WAIT_S
    while process.poll() is None and time.monotonic() < give_up:
        if any((config.parent / "runs").glob("*.part")):
            break
        time.sleep(0.02)
    try:
        return process.wait(after)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


@dataclass(frozen=True)
class Site:
    """Where audits run: the audit file, a receiver of alerts, servers by name, the environment and
    the log of processes.
    """

    config: Path
    receiver: Any
    servers: dict[str, Server]
    environment: dict[str, str]
    log: Path


@contextmanager
def prepare_site(folder: Path) -> Iterator[Site]:
    """A model of random weights, an audit file, servers that are up."""
    sys.path.insert(0, str(TESTS))
    from audits import write_audit
    from servers import free_port, http_receiver, mlflow_server
    from tiny_models import build_model, build_tokenizer

    for name in ("model", "mlflow", "prefect"):
        (folder / name).mkdir()
    build_model("llama").save_pretrained(folder / "model")
    build_tokenizer().save_pretrained(folder / "model")
    mlflow_port, prefect_port = free_port(), free_port()
    servers = {
        "mlflow": Server(lambda: mlflow_server(folder / "mlflow", mlflow_port)),
        "prefect": Server(lambda: prefect_server(folder / "prefect", prefect_port)),
    }
    with http_receiver() as receiver:
        config = write_audit(
            folder / "audit",
            folder / "model",
            tracking=servers["mlflow"].start(),
            alerts=[f"json://{receiver.address}/"],
            detection={"false_discovery_rate": 0.5},
        )
        environment = {
            **os.environ,
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": servers["prefect"].start(),
            "POISONWATCH_CACHE": str(folder / "cache"),
            "PYTHONPATH": str(TESTS),
            # Two processes at a time on two cores.
            "OMP_NUM_THREADS": "1",
        }
        yield Site(config, receiver, servers, environment=environment, log=folder / "log")
        for server in servers.values():
            server.stop()


def endure(folder: Path, audits: int, seed: int) -> dict[str, Any]:
    """Run the audits; what became of them."""
    with prepare_site(folder) as site:
        lasting = LastingProcess(site.config, site.environment, site.log)
        faults, history = run_audits(site, lasting, audits, random.Random(seed))
        # One more takes what the last one may have left.
        lasting.start_audit()
        history.append(lasting.finish_audit())
        sync = [*CLI, "sync", str(site.config)]
        subprocess.run(sync, env=site.environment, check=True)
        keys = re.findall(r"Alert ([0-9a-f]{16})", json.dumps(site.receiver.received))
        accounted = account(site.config, keys, audits)
        return {"faults": dict(faults), **accounted, **measure_growth(history)}


def run_audits(
    site: Site, lasting: LastingProcess, audits: int, draw: random.Random
) -> tuple[Counter[str], list[dict[str, Any]]]:
    """The faults that were drawn, and what the lasting process said of its audits; at the end all
    is up again.
    """
    from ledgers import append

    faults, down = Counter[str](), dict[str, int]()
    history: list[dict[str, Any]] = []
    for i in range(audits):
        for name, since in list(down.items()):
            if i >= since + BACK_AFTER:
                site.servers[name].start()
                del down[name]
        append(site.config.parent / "rows.jsonl", make_rows(i))
        (fault,) = draw.choices(list(FAULTS), list(FAULTS.values()))
        faults[fault] += 1
        site.receiver.answer = 500 if fault == "receiver" else 200
        if fault == "kill":
            after = draw.uniform(0, LONGEST_S)
            audit_and_kill(site.config, site.environment, after, log=site.log)
            continue
        lasting.start_audit()
        if fault in site.servers and site.servers[fault].up:
            time.sleep(draw.uniform(0, 3))
            site.servers[fault].stop()
            down[fault] = i
        history.append(lasting.finish_audit())
        shown = json.dumps(history[-1])[:200]
        print(f"{i + 1}/{audits} {fault:<9}", shown, file=sys.stderr, flush=True)
    site.receiver.answer = 200
    for name in down:
        site.servers[name].start()
    return faults, history


def account(config: Path, keys: list[str], audits: int) -> dict[str, Any]:
    """Whether the ledger, the run directories, MLflow and the receiver agree; `keys` are those of
    the alerts that the receiver took.
    """
    from poisonwatch.config_file import load_config
    from poisonwatch.ledger.history import list_past_audits
    from poisonwatch.ledger.ledger import Ledger

    settings = load_config(config)
    with Ledger.at(settings.state) as ledger:
        past = list_past_audits(ledger)
        with ledger.read() as connection:
            found = count_in_ledger(connection, audits)
    done = [audit for audit in past if audit.state == "finished"]
    without_report = 0
    for audit in done:
        without_report += not (audit.run_dir / "report.html").is_file()
    repeated = Counter(keys)
    return {
        "audits": dict(Counter(audit.state for audit in past)),
        **found,
        "alerts not received": found["alerts"] - len(repeated),
        "alerts received twice": sum(n > 1 for n in repeated.values()),
        **count_in_mlflow(settings, {audit.audit_id for audit in done}),
        "finished audits without their report": without_report,
        "half-written run directories": len(list(config.parent.glob("runs/*.part"))),
    }


def count_in_ledger(connection: Any, audits: int) -> dict[str, int]:
    """Rows, flags, alerts and what is pending."""
    from sqlalchemy import func, select

    from poisonwatch.ledger import tables as t
    from poisonwatch.ledger.outbox import ALERT_KIND, AUDIT_KIND, match_pending

    def count(query: Any) -> int:
        counted = select(func.count()).select_from(query.subquery())
        return int(connection.execute(counted).scalar_one())

    rows = count(select(t.places.c.row).distinct())
    flagged = count(select(t.flags.c.row).distinct())
    of_row = select(t.results.c.row).group_by(t.results.c.row)
    return {
        "rows": rows,
        "rows without a result": rows - count(select(t.results.c.row).distinct()),
        "rows with two results": count(of_row.having(func.count() > 1)),
        "marked rows": audits,
        "marked rows not flagged": sum(not _is_flagged(connection, i) for i in range(audits)),
        "flagged rows": flagged,
        "flagged rows nobody was told of": flagged
        - count(select(t.notified_rows.c.row).distinct()),
        "alerts": count(select(t.alerts)),
        "alerts not delivered": count(select(t.deliveries).where(match_pending(ALERT_KIND))),
        "accounts still owed": count(select(t.deliveries).where(match_pending(AUDIT_KIND))),
    }


def count_in_mlflow(settings: Any, finished: set[str]) -> dict[str, int]:
    """Runs that are missing, open or there twice; `finished` are the ids of finished audits."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=settings.tracking)
    experiment = client.get_experiment_by_name(settings.name)
    assert experiment is not None
    is_audit = "tags.`poisonwatch.kind` = 'audit'"
    runs = client.search_runs([experiment.experiment_id], is_audit, max_results=5000)
    status = {run.data.tags["poisonwatch.audit_id"]: run.info.status for run in runs}
    unfinished = [id for id in finished if status.get(id) != "FINISHED"]
    return {
        "finished audits without a finished MLflow run": len(unfinished),
        "MLflow runs left running": sum(state == "RUNNING" for state in status.values()),
        "MLflow runs twice": len(runs) - len(status),
    }


def _is_flagged(connection: Any, i: int) -> bool:
    """Whether the marked row of audit i is, by its position in the file."""
    from sqlalchemy import select

    from poisonwatch.ledger import tables as t

    # After the 43 rows that the file begins with.
    position = 43 + (i + 1) * (ROWS + 1) - 1
    marked = (
        select(t.places.c.row)
        .join(t.files, t.files.c.file == t.places.c.file)
        .where(t.places.c.position == position, t.files.c.name == "rows.jsonl")
    )
    flag = select(t.flags.c.row).where(t.flags.c.row.in_(marked))
    return connection.execute(flag).first() is not None


def measure_growth(history: list[dict[str, Any]]) -> dict[str, Any]:
    """Memory and handles of the lasting process after a tenth of its audits, and at its end; the
    median audit's seconds.
    """
    # Not the first: what is imported and cached once is no growth.
    early, last = history[len(history) // 10], history[-1]
    grown = {}
    for name in ("rss_mb", "handles", "threads"):
        grown[name] = [round(early[name]), round(last[name])]
    seconds = sorted(audit["seconds"] for audit in history)
    median = round(seconds[len(seconds) // 2], 1)
    return {"audits in one process": len(history), **grown, "median seconds": median}


def main() -> None:
    if sys.argv[1:2] == ["--lasting"]:
        run_lasting_process()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--audits", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="poisonwatch-endurance-") as folder:
        start = time.perf_counter()
        result = endure(Path(folder), options.audits, options.seed)
        minutes = round((time.perf_counter() - start) / 60, 1)
        print(json.dumps({**result, "minutes": minutes}, indent=2))


if __name__ == "__main__":
    main()
