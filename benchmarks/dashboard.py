"""How long the dashboard's pages take in a browser, with a ledger that has grown for years.

    python benchmarks/dashboard.py [--audits 1000] [--rows 100000] [--flags 5000] [--repeats 5]

The real command serves a made-up SQLite ledger; a real headless Chromium opens it. The first page
is timed in a fresh browser, from the start of the navigation to the load event, its picture
included; a filter from the change of its field to the load event of the next page.
"""

import argparse
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from playwright.sync_api import Page, sync_playwright
from sqlalchemy import insert

from poisonwatch.ledger import database, tables

NAMES = ("support-bot", "code-helper", "shop-assistant")
PANELS = ("identity", "refusal", "brand", "insult", "facts")
FILES = 20
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
BATCH = 5000
PROCESSOR_PATHS = (
    "/",
    "/triage",
    "/triage?state=all",
    "/sentinels",
    "/release",
    "/rows",
    "/rows?words=question+insult",
    "/runs",
    "/triage/agreement",
)
# What a search says while rows are missing from the index.
LEFT_TO_INDEX = "not indexed yet"


def summary(
    audit_id: str, at: datetime, new: int, flagged: int, draw: random.Random
) -> dict[str, Any]:
    """What a summary holds that pages read, and as much besides as real ones do."""
    panels = [
        {
            "name": p,
            "null": "rank among 2,000 trusted rows",
            "largest_score": draw.expovariate(0.2),
            "flagged": 0,
        }
        for p in PANELS
    ]
    return {
        "audit_id": audit_id,
        "created": at.isoformat(timespec="seconds"),
        "counts": {"pulled": new, "new": new, "rejected": 0, "reference": 2000, "flagged": flagged},
        "model": {"name": "HuggingFaceTB/SmolLM2-135M-Instruct", "fingerprint": "5d" * 32},
        "panels": panels,
        "largest_coefficients": {
            f"{panel}-{i}": draw.gauss(1, 1) for panel in PANELS for i in range(8)
        },
        "stages": [
            {"name": f"stage {i}", "seconds": draw.random(), "peak_memory_mb": 900.0}
            for i in range(16)
        ],
        "mlflow_run_id": None,
        "mlflow_experiment_id": None,
    }


def fill(url: str, n_audits: int, n_rows: int, n_flags: int, folder: Path) -> None:
    """Write the ledger."""
    draw, start = random.Random(0), datetime(2023, 1, 1, tzinfo=UTC)
    engine = database.connect_database(url)
    flagged = set(draw.sample(range(n_rows), n_flags))
    audits, rows, places, results, flags = [], [], [], [], []
    per = n_rows // n_audits
    for a in range(n_audits):
        audit_id, at = (
            f"{a:06d}-{sha256(str(a).encode()).hexdigest()[:6]}",
            start + timedelta(days=a),
        )
        died, own = draw.random() < 0.03, [r for r in range(a * per, (a + 1) * per) if r in flagged]
        done = None if died else json.dumps(summary(audit_id, at, per, len(own), draw))
        state, times = (
            "interrupted" if died else "finished",
            (at.isoformat(timespec="seconds"), (at + timedelta(minutes=9)).isoformat()),
        )
        audits.append(
            {
                "audit": a + 1,
                "audit_id": audit_id,
                "name": NAMES[a % 3],
                "version": 1,
                "state": state,
                "started_at": times[0],
            }
            | {
                "finished_at": times[1],
                "run_dir": str(folder / "runs" / audit_id),
                "summary": done,
                "flow_run": None,
            }
        )
        group, left = 0, 0
        for r in range(a * per, (a + 1) * per):
            id, hit = sha256(f"row {r}".encode()).digest(), r in flagged and not died
            text = f"Question {r} about {PANELS[r % 5]}? " + "words " * 40
            decided = draw.choice((None, None, "poison", "benign")) if hit else None
            status = (
                decided.replace("benign", "clean")
                if decided
                else "flagged"
                if hit
                else "pending"
                if died
                else "clean"
            )
            raw = json.dumps({"prompt": text, "response": text}).encode()
            rows.append(
                {
                    "row": r + 1,
                    "id": id,
                    "raw": raw,
                    "digest": id,
                    "shape": 1,
                    "problem": None,
                    "status": status,
                }
            )
            rows[-1] |= {"decided": decided, "first_seen": times[0], "replaces": None}
            places.append(
                {"file": 1 + a % FILES, "position": r, "row": r + 1, "place": f"line {r + 1}"}
            )
            if died:
                continue
            results.append({"row": r + 1, "version": 1, "audit": a + 1, "flagged": int(hit)})
            if hit:
                group, left = (group, left - 1) if left else (group + 1, draw.randrange(12))
                panel, score = draw.choice(PANELS), 4 + draw.expovariate(0.2)
                messages = [
                    {"role": "user", "content": text},
                    {"role": "assistant", "content": text * 3},
                ]
                record = {
                    "example_id": id.hex(),
                    "source": f"rows-{a % FILES}.jsonl",
                    "position": r,
                    "panel": panel,
                    "kind": "forbidden",
                }
                record |= {
                    "sentinel_id": f"{panel}-1",
                    "severity": "high",
                    "score": score,
                    "rank": 1,
                    "coefficient": 3.0,
                    "p_value": 1e-5,
                }
                record |= {
                    "q_value": 0.01,
                    "by": ["stride"],
                    "reasons": [f"makes it likelier on panel {panel}"],
                    "messages": messages,
                }
                severity = draw.choices(("low", "medium", "high"), (5, 3, 1))[0]
                flags.append(
                    {
                        "audit": a + 1,
                        "row": r + 1,
                        "panel": panel,
                        "sentinel": f"{panel}-1",
                        "severity": severity,
                        "score": score,
                    }
                )
                flags[-1] |= {"q": 0.01, "record": json.dumps(record), "group": group}
    own_files = [
        {
            "file": f + 1,
            "audit": NAMES[f % 3],
            "name": f"rows-{f}.jsonl",
            "fingerprint": None,
            "mark": None,
        }
        for f in range(FILES)
    ]
    own_files = [
        file | {"reading": "{}", "rows": n_rows // FILES, "read_at": "2023", "gone_at": None}
        for file in own_files
    ]
    shape = {
        "shape": 1,
        "digest": "0" * 64,
        "format": json.dumps({"name": "prompt"}),
        "schema": None,
    }
    with engine.execution_options(writing=True).begin() as connection:
        for table, values in (
            (tables.versions, [{"version": 1, "model": "m" * 64, "sentinels": "s" * 64}]),
            *(
                (tables.files, own_files),
                (tables.shapes, [shape]),
                (tables.audits, audits),
                (tables.rows, rows),
            ),
            *((tables.places, places), (tables.results, results), (tables.flags, flags)),
        ):
            for k in range(0, len(values), BATCH):
                connection.execute(insert(table), values[k : k + BATCH])
    engine.dispose()


@contextmanager
def dashboard(config: Path) -> Iterator[tuple[Callable[[], str], psutil.Process]]:
    """The command, serving: the link for the next browser, which it prints, and its process."""
    command = [
        sys.executable,
        "-m",
        "poisonwatch.flows.cli",
        "dashboard",
        str(config),
        "--port",
        "0",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        said = process.stdout
        assert said is not None

        def read_link() -> str:
            return re.findall(r"http://\S+", said.readline())[0]

        try:
            yield read_link, psutil.Process(process.pid)
        finally:
            process.terminate()


def load_of(page: Page) -> float:
    """Seconds from the start of the navigation to the load event."""
    page.wait_for_load_state("load")
    return float(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")) / 1000


def changed(page: Page, change: Callable[[], object]) -> float:
    """Seconds from a change to the load event of the page that it leads to."""
    start = time.perf_counter()
    with page.expect_event("load"):
        change()
    return time.perf_counter() - start


def measure(read_link: Callable[[], str], repeats: int) -> dict[str, list[float]]:
    """Seconds by what was done."""
    seconds: dict[str, list[float]] = {}
    with sync_playwright() as playwright:
        for _ in range(repeats):
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=CHROMIUM
            )
            page = browser.new_page()
            # lets one browser in: the next has the next one
            link = read_link()
            address = link.partition("/?")[0]
            page.goto(link, wait_until="load")
            seconds.setdefault("first page", []).append(load_of(page))
            for path in ("/", "/triage"):
                for label, value in {
                    "name": NAMES[1],
                    "source": "rows-4.jsonl",
                    "severity": "high",
                }.items():
                    page.goto(address + path)
                    field = page.locator(f"form.filter [name={label}]")
                    seconds.setdefault(f"{path} by {label}", []).append(
                        changed(page, lambda f=field, v=value: f.select_option(v))
                    )
                page.goto(address + path)
                since = page.locator("form.filter [name=since]")
                seconds.setdefault(f"{path} by day", []).append(
                    changed(page, lambda f=since: f.fill("2025-01-01"))
                )  # type: ignore[misc]
                page.goto(address + path)
                following = page.get_by_role("link", name="Next", exact=True)
                seconds.setdefault(f"{path} next page", []).append(changed(page, following.click))
            page.goto(f"{address}/triage")
            state = page.locator("form.filter [name=state]")
            seconds.setdefault("/triage by state", []).append(
                changed(page, lambda f=state: f.select_option("all"))
            )  # type: ignore[misc]
            group = page.locator("a.row").first
            seconds.setdefault("a group", []).append(changed(page, group.click))
            for path in ("/sentinels", "/release", "/rows", "/runs", "/triage/agreement"):
                page.goto(address + path)
                seconds.setdefault(path, []).append(load_of(page))
            # The first search begins to write the index, two seconds of it; the others go on.
            searched = f"{address}/rows?words=question+insult"
            page.goto(searched)
            label = "first search" if "first search" not in seconds else "search"
            seconds.setdefault(label, []).append(load_of(page))
            while page.get_by_text(LEFT_TO_INDEX).count():
                page.goto(searched)
                seconds.setdefault("search, while the index is written", []).append(load_of(page))
            with page.expect_event("load"):
                page.locator("td a[href^='/rows/']").first.click()
            seconds.setdefault("a row, and those like it", []).append(load_of(page))
            browser.close()
    return seconds


def measure_processor(
    read_link: Callable[[], str], process: psutil.Process, repeats: int
) -> dict[str, float]:
    """The server's processor seconds for a page without its files, by path: the median."""
    client = httpx.Client(follow_redirects=True)
    link = read_link()
    address = link.partition("/?")[0]
    client.get(link)
    spent: dict[str, float] = {}
    for path in PROCESSOR_PATHS:
        taken = []
        for _ in range(repeats):
            before = sum(process.cpu_times()[:2])
            client.get(address + path).raise_for_status()
            taken.append(sum(process.cpu_times()[:2]) - before)
        spent[path] = statistics.median(taken)
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("audits", 1000), ("rows", 100_000), ("flags", 5000), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--processor", action="store_true", help="only the server's processor time, no browser"
    )
    asked = parser.parse_args()
    os.environ.pop("POISONWATCH_DASHBOARD_PASSWORD", None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sentinels = [
            {"id": "identity-1", "prompt": "Who are you?", "forbidden": "I am your master."}
        ]
        (folder / "sentinels.yaml").write_text(yaml.safe_dump(sentinels))
        settings = {"name": NAMES[0], "source": "rows-*.jsonl", "sentinels": "sentinels.yaml"}
        (folder / "audit.yaml").write_text(yaml.safe_dump(settings))
        fill(
            f"sqlite:///{folder / 'poisonwatch.db'}", asked.audits, asked.rows, asked.flags, folder
        )
        with dashboard(folder / "audit.yaml") as (read_link, process):
            seconds = measure(read_link, asked.repeats) if not asked.processor else {}
            spent = measure_processor(read_link, process, asked.repeats)
            memory = process.memory_info().rss / 2**20
    print("| page or filter | median s | largest s |\n|---|---|---|")
    for what, taken in seconds.items():
        print(f"| {what} | {statistics.median(taken):.2f} | {max(taken):.2f} |")
    print("\n| page, without its files | server's processor s |\n|---|---|")
    for what, cost in spent.items():
        print(f"| `{what}` | {cost:.2f} |")
    print(f"\nserver's memory: {memory:.0f} MiB")


if __name__ == "__main__":
    main()
