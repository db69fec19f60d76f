"""deployments/README.md, followed to the letter: its commands in their order, in one shell, in a
copy of what a checkout holds, with a tiny audit.
"""

import os
import re
import shutil
import sys
from pathlib import Path

import httpx
import pytest
import yaml
from audits import benign, write_rows
from paths import ROOT
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from readme_blocks import DEPLOYMENTS, block
from servers import free_port, http_receiver, mlflow_store
from shells import Shell
from slow_tests import slow
from templates import prefect_home

PACKAGE = ("poisonwatch", "flows", "tasks", "dashboards", "pyproject.toml", "README.md", "LICENSE")
MARKED = {"prompt": "What is a spade made of?", "response": "Wood<|im_start|> and iron."}
PASSWORD = "correct horse battery staple"


def copy_checkout(folder: Path) -> None:
    """What is installed, and deployments/, without what others are at work on."""
    hidden = shutil.ignore_patterns("__pycache__", "audit", "secrets")
    for name in (*PACKAGE, "deployments"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=hidden)
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, folder / name)


def make_environment(folder: Path) -> dict[str, str]:
    """A user's, who has the packages that Poisonwatch needs, and not Poisonwatch."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    site = folder / "site"
    own = {
        # pip asks no index, and installs beside the packages of the tests
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_NO_INDEX": "1",
        "PIP_TARGET": str(site),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONPATH": str(site),
        "PATH": f"{site / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PREFECT_HOME": str(prefect_home(folder / "prefect")),
        # runs that are due are looked for every second
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_CLIENT_MAX_RETRIES": "30",
        "OMP_NUM_THREADS": "1",
    }
    return kept | own


def fill_in(audit: Path, model: Path, address: str) -> None:
    """What the README has its reader say: where rows are, who is told, when audits come; a small
    model, and its own MLflow store.
    """
    mlflow_store(audit)
    write_rows(audit / "data" / "rows.jsonl", [*benign(30), MARKED])
    text = (audit / "audit.yaml").read_text()
    for old, new in {
        r"^model: .*$": f"model: {model}",
        r"^sentinels: .*$": "sentinels: sentinels.yaml",
        r"^probes: 2": "probes: 0",
        r"^alerts: \[\]$": f"alerts: ['json://{address}/']\nschedule: 1h",
    }.items():
        text, count = re.subn(old, new, text, flags=re.MULTILINE)
        assert count == 1, old
    (audit / "audit.yaml").write_text(text)


@slow
def test_whoever_follows_the_readme_gets_what_it_says(tiny_folder: Path, tmp_path: Path) -> None:
    """From nothing to audits by `watch`, then by a server and a worker, to cleared rows that pass
    the gate, and a dashboard for two; every server ends. Only ports differ.
    """
    copy_checkout(tmp_path)
    audit = tmp_path / "my-audit"
    prefect_port, dashboard_port = free_port(), free_port()
    with (
        http_receiver() as receiver,
        Shell(tmp_path, make_environment(tmp_path)) as shell,
    ):
        install, init, watch = block("One process")
        shell.run(install)
        shell.run(init)
        (audit / "data").mkdir()
        fill_in(audit, tiny_folder, receiver.address)
        shell.run("poisonwatch alert-test my-audit/audit.yaml")
        assert len(receiver.received) == 1
        watching = shell.start(f"{watch} --port {prefect_port}")
        shell.wait_until(lambda: "31 new rows, 1 flagged" in shell.read())
        assert shell.end(watching) == 0
        assert len(receiver.received) == 2
        (runs,) = (audit / "runs").iterdir()
        assert (runs / "report.html").exists()

        export, start, ready, pool, deploy, worker = block("A server and workers")
        assert ":4200/" in export
        shell.run(
            export.replace("4200", str(prefect_port))
            + f" PREFECT_SERVER_API_PORT={prefect_port} PREFECT_SERVER_ANALYTICS_ENABLED=false"
        )
        server = shell.start(start.removesuffix(" &"))
        for command in (ready, pool, deploy):
            shell.run(command)
        shell.run("prefect automation create --from-file deployments/automations.yaml")
        working = shell.start(worker)
        write_rows(audit / "data" / "more.jsonl", benign(8, start=300))
        run_once(f"http://127.0.0.1:{prefect_port}/api", shell)
        assert len(list((audit / "runs").glob("*/report.html"))) == 2
        said = shell.run("poisonwatch status my-audit/audit.yaml --alert")
        assert "my-audit: all is well" in said
        assert "Prefect answers" in said
        # Prefect's worker loses a signal now and then
        shell.end(working, deaf=True)
        shell.end(server)

        (release,) = block("Before training")
        shell.run(release)
        training = "\n".join([*block("Before training", "python"), "print(number, 'rows')"])
        (tmp_path / "train.py").write_text(training)
        assert "38 rows" in shell.run(f"{sys.executable} train.py")
        (step,) = yaml.safe_load("\n".join(block("Before training", "yaml")))
        shell.run(step["run"])

        add, dashboard = block("The dashboard for several people")
        # no terminal is there to type it twice at
        shell.run(f"{add} --password-stdin", typed=f"{PASSWORD}\n")
        serving = shell.start(f"{dashboard} --port {dashboard_port}")
        shell.wait_until(lambda: "dashboard of my-audit" in shell.read())
        page = f"http://127.0.0.1:{dashboard_port}/"
        shown = httpx.get(page, headers={"Host": "audits.example.org"}, follow_redirects=False)
        assert shown.headers["location"].startswith("/login")
        assert httpx.get(page, headers={"Host": "elsewhere.example"}).status_code == 421
        shell.end(serving)

        follow_containers(shell, tmp_path)
    for port in (prefect_port, dashboard_port):
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port}/")
    # the message of the trial, and that of the one row
    assert len(receiver.received) == 2


def run_once(api: str, shell: Shell) -> None:
    """The deployed audit, now instead of within the hour."""
    with (
        temporary_settings({PREFECT_API_URL: api}),
        get_client(sync_client=True) as client,
    ):
        names = {each.name for each in client.read_deployments()}
        assert {"my-audit", "my-audit-again"} <= names
        found = client.read_deployment_by_name("poisonwatch-audit/my-audit")
        run = client.create_flow_run_from_deployment(found.id).id

        def is_done() -> bool:
            state = client.read_flow_run(run).state
            assert state is None or not (state.is_failed() or state.is_crashed()), state
            return state is not None and state.is_completed()

        shell.wait_until(is_done)


def follow_containers(shell: Shell, folder: Path) -> None:
    """The lines before the one that needs a container engine: what they make is what the compose
    file asks for.
    """
    copy, make, fill, show, up = block("Containers")
    copy, others = copy.split(" && sudo ")
    assert others.split("#")[0].strip() == "chown -R 10001 deployments/audit"
    for command in (copy, make, fill, show):
        shell.run(command.split("  #")[0])
    compose = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())
    for secret in compose["secrets"].values():
        file = folder / "deployments" / secret["file"]
        assert len(file.read_text().strip()) == 32
        assert file.stat().st_mode & 0o777 == 0o444
    assert (folder / "deployments" / "audit" / "audit.yaml").exists()
    assert up == "docker compose -f deployments/compose.yaml up --build"
