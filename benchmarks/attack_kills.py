"""kill -9 over whole audits: at all their stages, on SQLite and on PostgreSQL.

An audit is a forked process; the stages tell a pipe when they begin. Each kill is meant for a stage
in turn, at a random moment of the time that the stage takes, up to the next one's begin: what lies
between stages, the commit above all, is killed with the stage before it. Every audit finds thirteen
new rows, one of which must be flagged. At the end of a batch one audit runs undisturbed, and
everything is counted.
"""

import json
import os
import random
import select
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attack_site import Line, Site, prepare_site, run_cli, run_forked
from endurance_accounts import account
from endurance_site import make_rows

LONGEST_AUDIT_S = 600
# Counted by `endurance_accounts.account`; each must be 0.
ACCOUNTED = (
    "rows without a result",
    "rows with two results",
    "marked rows not flagged",
    "flagged rows nobody was told of",
    "alerts not received",
    "alerts not delivered",
    "accounts still owed",
    "finished audits without a finished MLflow run",
    "MLflow runs left running",
    "MLflow runs twice",
    "finished audits without their report",
    "half-written run directories",
)


@dataclass
class Pace:
    """How long each stage took last, with what follows it, in seconds."""

    seconds: dict[str, float] = field(default_factory=dict)

    def note(self, begun: list[tuple[str, float]], ended: float) -> None:
        """Take the stages of an audit that came to its end."""
        ends = [moment for _, moment in begun[1:]] + [ended]
        for (stage, start), end in zip(begun, ends, strict=True):
            self.seconds[stage] = end - start


class WatchedAudit:
    """An audit in a process of its own, whose stages are known as they begin."""

    def __init__(self, config: Path, run_dir: Path) -> None:
        self.begun: list[tuple[str, float]] = []
        self._pipe, written = os.pipe()
        self._unread = b""

        def work() -> None:
            from poisonwatch.config_file import load_config
            from poisonwatch.flows.audit import audit_inline

            _tell_stages(written)
            audit_inline(load_config(config), run_dir)

        self.pid = run_forked(work, config.parent / "log")
        os.close(written)

    def wait_for(self, stage: str | None, seconds: float = LONGEST_AUDIT_S) -> bool:
        """Wait until a stage begins; False where the audit ends first."""
        deadline = time.monotonic() + seconds
        while stage is None or stage not in [name for name, _ in self.begun]:
            ready, _, _ = select.select([self._pipe], [], [], deadline - time.monotonic())
            if not ready:
                raise TimeoutError(f"the audit did not come to {stage} in {seconds:.0f} s")
            told = os.read(self._pipe, 4096)
            if not told:
                return False
            self._unread += told
            *lines, self._unread = self._unread.split(b"\n")
            self.begun += [(line.decode(), time.monotonic()) for line in lines]
        return True

    def kill(self) -> bool:
        """kill -9; False where the audit had come to its end. Raises RuntimeError where it had
        failed.
        """
        os.kill(self.pid, signal.SIGKILL)
        return self.end()

    def end(self) -> bool:
        """Wait for the process: whether it was killed. Raises RuntimeError where it failed."""
        self.wait_for(None)
        os.close(self._pipe)
        _, status = os.waitpid(self.pid, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
            raise RuntimeError("an audit failed: see the log of its folder")
        return os.WIFSIGNALED(status)


def _tell_stages(written: int) -> None:
    """In the audit's process: write the name of each stage to a pipe when it begins."""
    from poisonwatch.flows.engine import Engine

    call = Engine.__call__

    def told(self: Engine, task: Any, *args: Any) -> Any:
        os.write(written, f"{task.name}\n".encode())
        return call(self, task, *args)

    Engine.__call__ = told  # type: ignore[method-assign]


def audit_whole(config: Path, run_dir: Path, pace: Pace) -> None:
    """An audit that nobody disturbs."""
    audit = WatchedAudit(config, run_dir)
    audit.wait_for(None)
    pace.note(audit.begun, time.monotonic())
    audit.end()


def kill_audits(site: Site, kills: int, seed: int, note: Callable[[str], None]) -> dict[str, Any]:
    """Kill so many audits of a site, then let one end; what was killed in which stage, and what is
    to be found afterwards.
    """
    from ledgers import append

    draw, pace = random.Random(seed), Pace()
    killed, ended, started = Counter[str](), 0, 0
    runs = site.folder / "runs"
    audit_whole(site.config, runs / "first", pace)
    stages = list(pace.seconds)
    while killed.total() < kills:
        append(site.folder / "rows.jsonl", make_rows(started))
        stage = stages[(seed + started) % len(stages)]
        audit = WatchedAudit(site.config, runs / f"audit-{started}")
        started += 1
        if audit.wait_for(stage):
            time.sleep(draw.uniform(0, pace.seconds[stage]))
        if audit.kill():
            killed[audit.begun[-1][0] if audit.begun else "start"] += 1
        else:
            ended += 1
        note(f"{killed.total()} of {kills} killed, {ended} came to their end first")
    audit_whole(site.config, runs / "last", pace)
    return {
        "killed": dict(killed),
        "ended": ended,
        **account(site.config, site.receiver.received),
        "verify": count_differences(site),
    }


def count_differences(site: Site) -> int:
    """What `poisonwatch verify` with the key names; -1 where it could not look."""
    words = ("verify", str(site.config), "--key", str(site.public_key), "--json")
    done = run_cli(*words, folder=site.folder)
    if done.returncode not in (0, 1):
        (site.folder / "verify.log").write_text(done.stdout + done.stderr)
        return -1
    return len(json.loads(done.stdout)["differences"])


def kill_batch(
    folder: Path,
    model: Path,
    kills: int,
    seed: int,
    note: Callable[[str], None],
    state: str | None = None,
) -> dict[str, Any]:
    """A batch of kills on a new site, whose ledger is at the URL `state` (None: beside it)."""
    settings = {} if state is None else {"state": state}
    with prepare_site(folder, model, **settings) as site:
        return kill_audits(site, kills, seed, note)


def summarise_kills(batches: dict[str, list[dict[str, Any]]]) -> list[Line]:
    """Lines of the table, from the batches of each database."""
    lines = []
    for database, found in batches.items():
        killed = Counter[str]()
        for batch in found:
            killed.update(batch["killed"])
        faults = {name: sum(batch[name] for batch in found) for name in ACCOUNTED}
        lost = {name: count for name, count in faults.items() if count}
        rows = sum(batch["rows"] for batch in found)
        shown = f"{rows:,} rows: 0 lost, 0 twice, 0 else" if not lost else json.dumps(lost)
        what = f"kill -9 of an audit, {len(killed)} stages, {database}"
        lines.append(Line(what, killed.total(), "0 rows lost or twice", shown, not lost))
        differences = sum(batch["verify"] for batch in found)
        shown = f"{differences} differences" if differences >= 0 else "it failed"
        what = f"`verify` with the key after each {database} batch"
        lines.append(Line(what, len(found), "0 differences", shown, not differences))
    return lines
