"""Ctrl-C ends an audit, with either engine, and says what became of it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from audits import benign, write_audit

from poisonwatch.config_file import load_config
from poisonwatch.flows import interrupt
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.engine import Engine
from poisonwatch.ledger.history import list_past_audits
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.tasks.data import choose


def test_an_interrupt_that_was_lost_is_raised_at_the_next_stage() -> None:
    """Where the first KeyboardInterrupt fell into a callback that swallowed it."""
    before = signal.getsignal(signal.SIGINT)
    try:
        interrupt.install_handler()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            Engine(inline=True)(choose)
        interrupt.install_handler()
        interrupt.raise_if_interrupted()
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interrupt_is_found_behind_what_it_caused() -> None:
    """A server that Ctrl-C ended refuses the report of the crash: that is no lost server."""
    error = RuntimeError("Failed to reach API")
    assert not interrupt.was_interrupted(error)
    error.__context__ = ValueError()
    error.__context__.__context__ = KeyboardInterrupt()
    assert interrupt.was_interrupted(error)


@pytest.mark.parametrize("engine", ["inline", "prefect"])
def test_ctrl_c_ends_an_audit(engine: str, tiny_folder: Path, tmp_path: Path) -> None:
    """Sent to the whole group, as a terminal does, while rows are looked at: 130, one line, and the
    next audit has all rows.
    """
    config = write_audit(tmp_path, tiny_folder, benign(400))
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")
    }
    environment |= {"PREFECT_HOME": str(tmp_path / "prefect"), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "poisonwatch.flows.cli",
        "audit",
        str(config),
        "--engine",
        engine,
    ]
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen(
            command, env=environment, stdout=said, stderr=said, start_new_session=True
        )
    deadline = time.monotonic() + 240
    while "to audit" not in (tmp_path / "said").read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    code, text = process.wait(120), (tmp_path / "said").read_text()
    assert code == 130, text
    assert "poisonwatch: interrupted; nothing was left half-written" in text
    assert "going on without it" not in text
    settings = load_config(config)
    outcome = audit_inline(settings, tmp_path / "after")
    assert outcome.summary["counts"]["new"] == 400
    with Ledger.at(settings.state) as ledger:
        assert [audit.state for audit in list_past_audits(ledger)] == ["finished", "interrupted"]
