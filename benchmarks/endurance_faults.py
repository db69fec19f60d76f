"""What goes wrong in benchmarks/endurance.py while an audit runs: one function a kind of fault.

Each puts its fault in place, has an audit run under it, and takes the fault away. It returns what
became of that audit; where audits had stopped, also what is told of that two intervals later, while
the fault lasts.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from endurance_accounts import find_last_start, list_audits, tell_of_silence
from endurance_operation import OPERATION
from endurance_site import CLI, Site, wait_until

Outcome = dict[str, Any]
Fault = Callable[[Site], Outcome]
# seconds within which a fault comes, from the first trace of an audit to past its end
LONGEST_S = 3.0
ROWS_OF_SECOND = 8


def nothing(site: Site) -> Outcome:
    return site.audit("prefect")


def _stop(site: Site, number: int) -> Outcome:
    site.begin()
    site.wait_for_trace()
    time.sleep(site.draw.uniform(0, LONGEST_S))
    assert site.lasting is not None
    site.lasting.process.send_signal(number)
    return observe(site, site.end())


def kill(site: Site) -> Outcome:
    return _stop(site, signal.SIGKILL)


def terminate(site: Site) -> Outcome:
    return _stop(site, signal.SIGTERM)


def observe(site: Site, outcome: Outcome) -> Outcome:
    """The outcome, with what is told where the audit came to no results."""
    if "new" not in outcome:
        outcome["told"] = tell_of_silence(site)
    return outcome


def mlflow_is_down(site: Site) -> Outcome:
    site.begin()
    site.wait_for_trace()
    site.mlflow.stop()
    outcome = observe(site, site.end())
    site.mlflow.start()
    return outcome


def _behind_gateway(site: Site, **trouble: float) -> Outcome:
    for name, value in trouble.items():
        setattr(site.gateway, name, value)
    try:
        return observe(site, site.audit())
    finally:
        site.gateway.heal()


def mlflow_is_slow(site: Site) -> Outcome:
    return _behind_gateway(site, slow=1.0)


def mlflow_answers_503(site: Site) -> Outcome:
    return _behind_gateway(site, status=503)


def mlflow_takes_no_large_bodies(site: Site) -> Outcome:
    return _behind_gateway(site, limit=20_000)


def prefect_is_down(site: Site) -> Outcome:
    site.begin("prefect")
    site.wait_for_trace()
    site.prefect.stop()
    outcome = observe(site, site.end())
    site.prefect.start()
    return outcome


def _receiver_answers(site: Site, *script: Any, always: int = 200) -> Outcome:
    site.receiver.script[:] = script
    site.receiver.answer = always
    try:
        return observe(site, site.audit())
    finally:
        site.receiver.script.clear()
        site.receiver.answer = 200


def receiver_is_slow(site: Site) -> Outcome:
    from servers import Answer

    class Late(threading.Event):
        """Happens six seconds after it is waited for."""

        def wait(self, timeout: float | None = None) -> bool:
            return super().wait(min(6, timeout or 6))

    outcome = _receiver_answers(site, Answer(after=Late()))
    # answered with 200, only late: taken
    site.receiver.received += site.receiver.refused
    site.receiver.refused.clear()
    return outcome


def receiver_asks_for_a_pause(site: Site) -> Outcome:
    from servers import Answer

    return _receiver_answers(site, Answer(429, {"Retry-After": "2"}))


def receiver_answers_503(site: Site) -> Outcome:
    return _receiver_answers(site, always=503)


def receiver_resets(site: Site) -> Outcome:
    from servers import Answer

    return _receiver_answers(site, *[Answer(resets=True)] * 10)


def receiver_is_down_for_a_day(site: Site) -> Outcome:
    """Three audits that it hears nothing of; then what is told 25 hours later, by handing that
    time in.
    """
    from poisonwatch.config_file import load_config
    from poisonwatch.integrations.notify import deliver_pending
    from poisonwatch.ledger.ledger import Ledger

    site.receiver.answer = 503
    outcome: Outcome = {}
    for _ in range(3):
        site.append_rows()
        outcome = site.audit()
    site.receiver.answer = 200
    settings = load_config(site.config)
    before = len(site.receiver.received)
    with Ledger.existing(settings.state) as ledger, ledger.lock(settings.name):
        later = datetime.now(UTC) + timedelta(hours=25)
        outcome["alerts delivered"] = deliver_pending(ledger, settings, at=later)
    outcome["messages"] = len(site.receiver.received) - before
    return outcome


def mail_server_has_no_starttls(site: Site) -> Outcome:
    """A target beside the receiver, whose messages stay owed, and say why."""
    import yaml
    from servers import smtp_receiver

    text = site.config.read_text()
    with smtp_receiver() as (_, port):
        settings = yaml.safe_load(text)
        people = "from=a@example.org&to=b@example.org"
        settings["alerts"].append(f"mailtos://127.0.0.1:{port}/?mode=starttls&{people}")
        site.config.write_text(yaml.safe_dump(settings))
        outcome = observe(site, site.audit())
        outcome["told"] = tell_of_silence(site, datetime.now(UTC) + timedelta(hours=2))
    # taken out of the audit file again: what was for it is for the receiver, which has it
    site.config.write_text(text)
    warned = " ".join(outcome["warnings"])
    # another reason would be another fault
    assert "STARTTLS" in warned, warned
    return outcome


def two_names_at_once_and_one_is_killed(site: Site) -> Outcome:
    """On one ledger; the second name's audit is killed, and done again."""
    import yaml
    from audits import benign, write_rows

    folder = site.config.parent
    settings = yaml.safe_load(site.config.read_text())
    start = 500_000 + 100 * len(list(folder.glob("second-*.jsonl")))
    rows = folder / f"second-{start}.jsonl"
    write_rows(rows, benign(ROWS_OF_SECOND, start=start))
    second = folder / "second.yaml"
    second.write_text(yaml.safe_dump({**settings, "name": "second", "source": rows.name}))
    command = [*CLI, "audit", str(second), "--engine", "inline", "--quiet"]
    with site.log.open("ab") as log:
        known = site.list_runs()
        other = subprocess.Popen(command, env=site.environment, stdout=log, stderr=log)
        wait_until(lambda: site.list_runs() - known or other.poll() is not None, "no second audit")
        site.begin()
        time.sleep(site.draw.uniform(0, LONGEST_S))
        other.kill()
        other.wait()
        outcome = site.end()
        observe(site, outcome)
        again = subprocess.run(command, env=site.environment, stdout=log, stderr=log, check=False)
    outcome["second"] = again.returncode
    return outcome


def disk_is_full(site: Site) -> Outcome:
    """Where runs are written less than 200 kB are left; skipped where no file system of their own
    could be made.
    """
    if not os.path.ismount(site.runs):
        return {**site.audit(), "skipped": "no file system could be made"}
    filler = site.runs / "filler"
    free = os.statvfs(site.runs)
    with suppress(OSError):
        filler.write_bytes(b"\0" * (free.f_bavail * free.f_frsize - 200_000))
    try:
        return observe(site, site.audit())
    finally:
        filler.unlink()


def clock_jumps_back(site: Site) -> Outcome:
    """As the ledger shows it: the last audit lies a day in the future. It is put back afterwards,
    since the chain of records holds its time.
    """
    from sqlalchemy import select, update

    from poisonwatch.config_file import load_config
    from poisonwatch.ledger.ledger import Ledger
    from poisonwatch.ledger.tables import audits

    settings = load_config(site.config)
    last = max(list_audits(site), key=lambda audit: audit.number)
    which = audits.c.audit_id == last.audit_id
    with Ledger.existing(settings.state) as ledger:
        with ledger.write() as connection:
            times = select(audits.c.started_at, audits.c.finished_at).where(which)
            stored = dict(connection.execute(times).one()._mapping)
            later = {
                name: (datetime.fromisoformat(text) + timedelta(days=1)).isoformat()
                for name, text in stored.items()
                if text
            }
            connection.execute(update(audits).where(which).values(later))
        outcome = observe(site, site.audit())
        told = tell_of_silence(site)
        with ledger.write() as connection:
            connection.execute(update(audits).where(which).values(stored))
    done = max((a for a in list_audits(site) if a.has_results), key=lambda a: a.number)
    outcome["last is the newest"] = done.audit_id != last.audit_id
    return {**outcome, "told": told}


def _during_audit(site: Site, act: Callable[[], None]) -> Outcome:
    site.begin()
    site.wait_for_trace()
    time.sleep(site.draw.uniform(0, LONGEST_S))
    act()
    return observe(site, site.end())


def postgres_ends_connections(site: Site) -> Outcome:
    assert site.postgres is not None
    ending = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
        "AND backend_type = 'client backend'"
    )
    return _during_audit(site, lambda: site.postgres.execute(ending))  # type: ignore[union-attr]


def postgres_restarts(site: Site) -> Outcome:
    postgres = site.postgres
    assert postgres is not None

    def restart() -> None:
        postgres.stop()
        postgres.start()

    return _during_audit(site, restart)


def postgres_is_down(site: Site) -> Outcome:
    """The audit at work waits for it, and goes on once it is back; meanwhile it is told."""
    postgres = site.postgres
    assert postgres is not None
    # before: what is down cannot be asked when its last audit was
    find_last_start(site)
    site.begin()
    site.wait_for_trace()
    postgres.stop()
    told = tell_of_silence(site)
    postgres.start()
    return {**site.end(), "told": told}


def postgres_ends_idle_sessions(site: Site) -> Outcome:
    """`idle_session_timeout` of five seconds."""
    postgres = site.postgres
    assert postgres is not None
    postgres.execute("ALTER SYSTEM SET idle_session_timeout = '5s'", "SELECT pg_reload_conf()")
    try:
        return observe(site, site.audit())
    finally:
        postgres.execute("ALTER SYSTEM RESET idle_session_timeout", "SELECT pg_reload_conf()")


ALWAYS: dict[str, Fault] = {
    "nothing": nothing,
    "audit killed (-9)": kill,
    "audit ended (TERM)": terminate,
    "MLflow stops in mid-audit": mlflow_is_down,
    "MLflow 1 s late with each answer": mlflow_is_slow,
    "MLflow answers 503": mlflow_answers_503,
    "MLflow answers 413 above 20 kB": mlflow_takes_no_large_bodies,
    "Prefect killed in mid-audit": prefect_is_down,
    "receiver answers after 6 s": receiver_is_slow,
    "receiver answers 429, Retry-After 2": receiver_asks_for_a_pause,
    "receiver answers 503": receiver_answers_503,
    "receiver resets connections": receiver_resets,
    "receiver down for a day": receiver_is_down_for_a_day,
    "mail server without STARTTLS": mail_server_has_no_starttls,
    "two names at once, one killed": two_names_at_once_and_one_is_killed,
    "disk full (200 kB left)": disk_is_full,
    "clock jumps back a day": clock_jumps_back,
}
POSTGRESQL: dict[str, Fault] = {
    "PostgreSQL ends all connections": postgres_ends_connections,
    "PostgreSQL restarts in mid-audit": postgres_restarts,
    "PostgreSQL stops in mid-audit": postgres_is_down,
    "PostgreSQL ends sessions idle for 5 s": postgres_ends_idle_sessions,
}


def list_faults(ledger: str) -> dict[str, Fault]:
    """The kinds of fault that there are with a ledger in sqlite or postgresql, by name."""
    own = POSTGRESQL if ledger == "postgresql" else {}
    return {**ALWAYS, **own, **OPERATION}
