"""What goes wrong in benchmarks/endurance.py with whoever starts audits: `poisonwatch watch`, a
Prefect server and its worker.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from endurance_accounts import list_audits, tell_of_silence
from endurance_site import CLI, PATIENCE_S, Site, wait_until

Outcome = dict[str, Any]
DEPLOYMENTS = Path(__file__).parent.parent / "deployments"


class Watch:
    """`poisonwatch watch`, which audits at once when it starts."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.log = site.log.with_name("watch.log")
        command = [*CLI, "watch", str(site.config), "--every", "1h"]
        with self.log.open("ab") as log:
            self.before = log.tell()
            self.process = subprocess.Popen(command, env=site.environment, stdout=log, stderr=log)

    def said(self) -> str:
        return self.log.read_bytes()[self.before :].decode(errors="replace")

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@contextmanager
def watching(site: Site) -> Iterator[Watch]:
    """A watch whose first audit is done."""
    before = count_done(site)
    watch = Watch(site)
    try:
        wait_for_audit(site, before, watch)
        yield watch
    finally:
        if watch.process.poll() is None:
            watch.end(signal.SIGTERM)


def count_done(site: Site) -> int:
    return sum(audit.state == "finished" for audit in list_audits(site))


def wait_for_audit(site: Site, before: int, watch: Watch | None = None) -> None:
    """Until more audits than that are done, and `watch` has said so."""

    def is_done() -> bool:
        if watch is not None and watch.process.poll() is not None:
            raise RuntimeError(watch.said()[-2000:])
        return count_done(site) > before and (watch is None or " new rows" in watch.said())

    wait_until(is_done, "no audit came")


def watch_is_killed(site: Site) -> Outcome:
    return _watch_ends(site, signal.SIGKILL)


def watch_is_terminated(site: Site) -> Outcome:
    return _watch_ends(site, signal.SIGTERM)


def _watch_ends(site: Site, number: int) -> Outcome:
    """It ends in mid-audit; two intervals later that is told; the next one audits at once."""
    before = site.list_runs()
    first = Watch(site)
    wait_until(lambda: site.list_runs() - before, "watch began no audit")
    code = first.end(number)
    # what it was at work on, where it could not end it
    _end_runs(site)
    told = tell_of_silence(site)
    with watching(site) as second:
        said = second.said()
    return {"ended with": code, "told": told, "then": said.splitlines()[-2:]}


def _end_runs(site: Site) -> None:
    """Flow runs that outlived whoever started them, as an out-of-memory killer ends both."""
    for process in psutil.process_iter(["environ"]):
        environment = process.info["environ"] or {}
        ours = environment.get("PREFECT_API_URL") == site.api
        if ours and "PREFECT__FLOW_RUN_ID" in environment:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def prefect_is_killed(site: Site) -> Outcome:
    return _server_dies(site, lambda: None)


def prefect_is_created_anew(site: Site) -> Outcome:
    """It comes back empty: without its database."""

    def forget() -> None:
        for file in site.prefect_home.glob("prefect.db*"):
            file.unlink()

    return _server_dies(site, forget)


def _server_dies(site: Site, meanwhile: Callable[[], None]) -> Outcome:
    """The Prefect server of a watch; two intervals later that is told; once it is back, a run that
    is due is audited.
    """
    with watching(site) as watch:
        site.prefect.stop()
        site.append_rows()
        told = tell_of_silence(site)
        meanwhile()
        site.prefect.start()
        start_run(site)
        before = count_done(site)
        wait_for_audit(site, before, watch)
        said = watch.said()
    return {"told": told, "then": said.splitlines()[-2:]}


def start_run(site: Site) -> None:
    """A run of the audit's deployment, now instead of within the hour, once it is there."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: site.api}), get_client(sync_client=True) as client:

        def start() -> bool:
            with suppress(ObjectNotFound):
                found = client.read_deployment_by_name("poisonwatch-audit/tiny")
                client.create_flow_run_from_deployment(found.id)
                return True
            return False

        wait_until(start, "the deployment is not there")


def deployment_is_paused(site: Site) -> Outcome:
    """By somebody, in Prefect; watch says so, and two intervals later it is told; then it is
    resumed.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with (
        watching(site) as watch,
        temporary_settings({PREFECT_API_URL: site.api}),
        get_client(sync_client=True) as client,
    ):
        found = client.read_deployment_by_name("poisonwatch-audit/tiny")
        client.pause_deployment(found.id)
        wait_until(lambda: "paused" in watch.said(), "watch does not say so")
        site.append_rows()
        told = tell_of_silence(site)
        client.resume_deployment(found.id)
        before = count_done(site)
        start_run(site)
        wait_for_audit(site, before, watch)
        said = watch.said()
    return {"told": told, "then": said.splitlines()[-2:]}


def worker_is_killed(site: Site) -> Outcome:
    """A worker and the run that it is at work on; two intervals later that is told; another worker
    starts the next run.
    """
    prefect = [sys.executable, "-m", "prefect"]
    own = {
        **site.environment,
        "POISONWATCH_NAME": "tiny",
        "POISONWATCH_AUDIT": str(site.config),
    }
    file = str(DEPLOYMENTS / "prefect.yaml")
    setup = (
        ["work-pool", "create", "poisonwatch", "--type", "process", "--overwrite"],
        ["--no-prompt", "deploy", "--prefect-file", file, "--all"],
    )
    with site.log.open("ab") as log:

        def begin_worker() -> subprocess.Popen[bytes]:
            start = [*prefect, "worker", "start", "--pool", "poisonwatch", "--limit", "1"]
            return subprocess.Popen(start, env=own, cwd=site.config.parent, stdout=log, stderr=log)

        for command in setup:
            subprocess.run(
                [*prefect, *command],
                env=own,
                cwd=DEPLOYMENTS.parent,
                stdout=log,
                stderr=log,
                check=True,
            )
        known = site.list_runs()
        worker = begin_worker()
        start_run(site)
        wait_until(lambda: site.list_runs() - known, "the worker began no run")
        worker.kill()
        worker.wait()
        _end_runs(site)
        told = tell_of_silence(site)
        before = count_done(site)
        worker = begin_worker()
        try:
            start_run(site)
            wait_for_audit(site, before)
        finally:
            time.sleep(2)
            worker.terminate()
            worker.wait(PATIENCE_S)
            # a watch of the same name is refused while there is one
            remove = [*prefect, "--no-prompt", "deployment", "delete", "poisonwatch-audit/tiny"]
            subprocess.run(remove, env=own, stdout=log, stderr=log, check=True)
    return {"told": told}


OPERATION = {
    "watch killed (-9), started again": watch_is_killed,
    "watch ended (TERM), started again": watch_is_terminated,
    "Prefect killed below a watch": prefect_is_killed,
    "Prefect created anew, empty": prefect_is_created_anew,
    "deployment paused by somebody": deployment_is_paused,
    "worker and its run killed (-9)": worker_is_killed,
}
