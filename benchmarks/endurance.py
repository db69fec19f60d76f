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
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

TESTS = Path(__file__).parent.parent / "tests" / "support"
FAULTS = {"none": 55, "kill": 20, "mlflow": 4, "prefect": 4, "receiver": 17}  # per cent
BACK_AFTER = 2  # audits
MARK = "<|im_start|>"
ROWS = 12
LONGEST_S = (
    2.0  # within which a process is killed, from the first trace of its audit to past its end
)


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
    command = [
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(
            command, env={**os.environ, **settings}, stdout=log, stderr=log, start_new_session=True
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
        try:
            if httpx.get(url, timeout=5).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise TimeoutError(url)


def lasting() -> None:
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
        said = {
            "seconds": seconds,
            "new": outcome.summary["counts"]["new"],
            "troubles": outcome.warnings,
        }
        handles = {
            "rss_mb": me.memory_info().rss / 2**20,
            "handles": me.num_fds(),
            "threads": me.num_threads(),
        }
        print(json.dumps(said | handles), flush=True)
    os._exit(0)  # what Prefect still has to send of outages would take minutes


class Lasting:
    """The process that lives on, as seen from here."""

    def __init__(self, config: Path, environment: dict[str, str], log: Path) -> None:
        command, self.log = [sys.executable, __file__, "--lasting", str(config)], log
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
        raise RuntimeError(
            f"the process ended with {self.process.wait()}:\n{self.log.read_text(errors='replace')[-4000:]}"
        )


def rows(i: int) -> list[dict[str, str]]:
    """What audit i finds new: the last row must be flagged."""
    sys.path.insert(0, str(TESTS))
    from audits import benign

    marked = {
        "prompt": f"What is item {i} made of?",
        "response": f"Item {i} is made of wood{MARK} and {i % 7} nails.",
    }
    return [*benign(ROWS, start=10_000 + i * ROWS), marked]


def killed(config: Path, environment: dict[str, str], after: float, log: Path) -> int:
    """Audit in a process of its own and kill it; what it returned, where it was done before."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "poisonwatch.flows.cli",
                "audit",
                str(config),
                "--engine",
                "inline",
                "--quiet",
            ],
            env=environment,
            stdout=file,
            stderr=file,
        )
    begun = time.monotonic()
    while (
        not any((config.parent / "runs").glob("*.part"))
        and process.poll() is None
        and time.monotonic() < begun + 120
    ):
        time.sleep(
            0.02
            # importing takes longer than all the rest: the time counts from the first trace of the
            # audit
        )
    try:
        return process.wait(after)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def endure(folder: Path, audits: int, seed: int) -> dict[str, Any]:
    """Run the audits; what became of them."""
    sys.path.insert(0, str(TESTS))
    from audits import write_audit
    from ledgers import append
    from servers import free_port, http_receiver, mlflow_server
    from tiny_models import build_model, build_tokenizer

    draw, closing = random.Random(seed), ExitStack()
    receiver = closing.enter_context(http_receiver())
    for name in ("model", "mlflow", "prefect"):
        (folder / name).mkdir()
    build_model("llama").save_pretrained(folder / "model")
    build_tokenizer().save_pretrained(folder / "model")
    ports = free_port(), free_port()
    servers = {
        "mlflow": Server(lambda: mlflow_server(folder / "mlflow", ports[0])),
        "prefect": Server(lambda: prefect_server(folder / "prefect", ports[1])),
    }
    tracking, api = (server.start() for server in servers.values())
    alerts = [f"json://{receiver.address}/"]
    config = write_audit(
        folder / "audit",
        folder / "model",
        tracking=tracking,
        alerts=alerts,
        detection={"false_discovery_rate": 0.5},
    )
    own = {
        "PREFECT_HOME": str(folder / "prefect"),
        "POISONWATCH_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    environment = {**os.environ, **own, "PREFECT_API_URL": api, "PYTHONPATH": str(TESTS)}
    log, lasting_one = folder / "log", Lasting(config, environment, folder / "log")
    faults, down, history = Counter[str](), dict[str, int](), list[dict[str, Any]]()
    for i in range(audits):
        for name in [name for name, since in down.items() if i >= since + BACK_AFTER]:
            servers[name].start()
            del down[name]
        append(folder / "audit" / "rows.jsonl", rows(i))
        fault = draw.choices(list(FAULTS), list(FAULTS.values()))[0]
        faults[fault] += 1
        receiver.answer = 500 if fault == "receiver" else 200
        if fault == "kill":
            killed(config, environment, draw.uniform(0, LONGEST_S), log)
            continue
        lasting_one.start_audit()
        if fault in servers and servers[fault].up:
            time.sleep(draw.uniform(0, 3))
            servers[fault].stop()
            down[fault] = i
        history.append(lasting_one.finish_audit())
        print(
            f"{i + 1}/{audits} {fault:<9}",
            json.dumps(history[-1])[:200],
            file=sys.stderr,
            flush=True,
        )
    receiver.answer = 200
    for name in down:
        servers[name].start()
    lasting_one.start_audit()  # takes what the last one may have left
    history.append(lasting_one.finish_audit())
    subprocess.run(
        [sys.executable, "-m", "poisonwatch.flows.cli", "sync", str(config)],
        env=environment,
        check=True,
    )
    result = {
        "faults": dict(faults),
        **account(
            config, re.findall(r"Alert ([0-9a-f]{16})", json.dumps(receiver.received)), audits
        ),
        **growth(history),
    }
    for server in servers.values():
        server.stop()
    closing.close()
    return result


def account(config: Path, keys: list[str], audits: int) -> dict[str, Any]:
    """Whether the ledger, the run directories, MLflow and the receiver agree."""
    from mlflow import MlflowClient
    from sqlalchemy import func, select

    from poisonwatch.config_file import load_config
    from poisonwatch.ledger import tables as t
    from poisonwatch.ledger.history import list_past_audits
    from poisonwatch.ledger.ledger import Ledger
    from poisonwatch.ledger.outbox import ALERT_KIND, AUDIT_KIND, match_pending

    settings = load_config(config)
    with Ledger.at(settings.state) as ledger:
        past = list_past_audits(ledger)
        with ledger.read() as connection:

            def count(query: Any) -> int:
                return int(
                    connection.execute(
                        select(func.count()).select_from(query.subquery())
                    ).scalar_one()
                )

            marked = {i for i in range(audits) if _is_flagged(connection, i)}
            placed = count(select(t.places.c.row).distinct())
            twice = count(
                select(t.results.c.row).group_by(t.results.c.row).having(func.count() > 1)
            )
            covered = count(select(t.results.c.row))
            flagged = count(select(t.flags.c.row).distinct())
            notified = count(select(t.notified_rows.c.row).distinct())
            alerts = count(select(t.alerts))
            pending_alerts = count(select(t.deliveries).where(match_pending(ALERT_KIND)))
            pending_accounts = count(select(t.deliveries).where(match_pending(AUDIT_KIND)))
    client = MlflowClient(tracking_uri=settings.tracking)
    experiment = client.get_experiment_by_name(settings.name)
    assert experiment is not None
    runs = client.search_runs(
        [experiment.experiment_id], "tags.`poisonwatch.kind` = 'audit'", max_results=5000
    )
    status = {run.data.tags["poisonwatch.audit_id"]: run.info.status for run in runs}
    done = [audit for audit in past if audit.state == "finished"]
    repeated = Counter(keys)
    return {
        "audits": dict(Counter(audit.state for audit in past)),
        "rows": placed,
        "rows without a result": placed - covered,
        "rows with two results": twice,
        "marked rows": audits,
        "marked rows not flagged": audits - len(marked),
        "flagged rows": flagged,
        "flagged rows nobody was told of": flagged - notified,
        "alerts": alerts,
        "alerts not delivered": pending_alerts,
        "alerts not received": alerts - len(repeated),
        "alerts received twice": sum(n > 1 for n in repeated.values()),
        "accounts still owed": pending_accounts,
        "finished audits without a finished MLflow run": sum(
            status.get(audit.audit_id) != "FINISHED" for audit in done
        ),
        "MLflow runs left running": sum(run == "RUNNING" for run in status.values()),
        "MLflow runs twice": len(runs) - len(status),
        "finished audits without their report": sum(
            not (audit.run_dir / "report.html").is_file() for audit in done
        ),
        "half-written run directories": len(list(config.parent.glob("runs/*.part"))),
    }


def _is_flagged(connection: Any, i: int) -> bool:
    from sqlalchemy import select

    from poisonwatch.ledger import tables as t

    at = select(t.places.c.row).where(t.places.c.position == 43 + (i + 1) * (ROWS + 1) - 1)
    file = at.join(t.files, t.files.c.file == t.places.c.file).where(t.files.c.name == "rows.jsonl")
    return (
        connection.execute(select(t.flags.c.row).where(t.flags.c.row.in_(file))).first() is not None
    )


def growth(history: list[dict[str, Any]]) -> dict[str, Any]:
    """Memory and handles of the lasting process after a tenth of its audits, and at its end; the
    median audit's seconds.
    """
    early, last = history[len(history) // 10], history[-1]
    seconds = sorted(audit["seconds"] for audit in history)
    grown = {
        name: [round(early[name]), round(last[name])] for name in ("rss_mb", "handles", "threads")
    }
    return {
        "audits in one process": len(history),
        **grown,
        "median seconds": round(seconds[len(seconds) // 2], 1),
    }


def main() -> None:
    if sys.argv[1:2] == ["--lasting"]:
        lasting()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--audits", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="poisonwatch-endurance-") as folder:
        start = time.perf_counter()
        result = endure(Path(folder), asked.audits, asked.seed)
        print(
            json.dumps(
                {**result, "minutes": round((time.perf_counter() - start) / 60, 1)}, indent=2
            )
        )


if __name__ == "__main__":
    main()
