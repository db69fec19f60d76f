"""Ctrl-C and SIGTERM end an audit, with either engine, and it says what became of it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from audits import benign, write_audit
from patience import PATIENCE_S
from slow_tests import slow
from templates import prefect_home

from poisonwatch import interrupt
from poisonwatch.config_file import load_config
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.engine import Engine
from poisonwatch.ledger.history import list_past_audits
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.tasks.data import choose


def test_the_next_stage_raises_an_interrupt_that_was_lost() -> None:
    """Where the first KeyboardInterrupt fell into a callback that swallowed it."""
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        interrupt.install_handler()
        with pytest.raises(interrupt.Terminated):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(interrupt.Terminated):
            Engine(inline=True)(choose)
    finally:
        interrupt.install_handler()
        for each, handler in before.items():
            signal.signal(each, handler)


INTERRUPTED = signal.SIGINT, True, 130, "interrupted"
TERMINATED = signal.SIGTERM, False, 143, "told to end (SIGTERM)"


@pytest.mark.parametrize(
    ("engine", "number", "to_all", "code", "word"),
    [
        # as a terminal does, as docker and Kubernetes do, as systemd does
        pytest.param("inline", *INTERRUPTED, id="inline-ctrl-c", marks=slow),
        pytest.param("prefect", *INTERRUPTED, id="ctrl-c", marks=slow),
        pytest.param("inline", *TERMINATED, id="inline-docker"),
        pytest.param("prefect", *TERMINATED, id="docker", marks=slow),
        pytest.param("prefect", signal.SIGTERM, True, *TERMINATED[2:], id="systemd", marks=slow),
    ],
)
def test_a_signal_ends_an_audit_in_order(
    number: signal.Signals,
    to_all: bool,
    code: int,
    word: str,
    engine: str,
    tiny_folder: Path,
    tmp_path: Path,
) -> None:
    """Sent to the process or its whole group while rows are looked at: one line, nothing left to
    clear away, and the next audit has all rows.
    """
    config = write_audit(tmp_path, tiny_folder, benign(400))
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")
    }
    home = prefect_home(tmp_path / "prefect")
    environment |= {"PREFECT_HOME": str(home), "OMP_NUM_THREADS": "1"}
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment["TMPDIR"] = str(scratch)
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
    deadline = time.monotonic() + PATIENCE_S
    while "to audit" not in (tmp_path / "said").read_text() and process.poll() is None:
        assert time.monotonic() < deadline, (tmp_path / "said").read_text()
        time.sleep(0.05)
    time.sleep(0.3)
    if to_all:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    ended_with, text = process.wait(PATIENCE_S), (tmp_path / "said").read_text()
    assert ended_with == code, text
    assert text.splitlines()[-1] == f"poisonwatch: {word}; nothing was left half-written"
    assert "going on without it" not in text
    assert "Crash detected" not in text
    assert "Traceback" not in text
    assert list(tmp_path.glob("runs/*")) == []
    assert list(scratch.iterdir()) == []
    settings = load_config(config)
    outcome = audit_inline(settings, tmp_path / "after")
    assert outcome.summary["counts"]["new"] == 400
    with Ledger.at(settings.state) as ledger:
        assert [audit.state for audit in list_past_audits(ledger)] == ["finished", "interrupted"]


def test_the_dashboard_ends_with_0_where_it_is_told_to(tmp_path: Path) -> None:
    """It runs until somebody ends it: that is no failure of its."""
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "response": "b"}\n')
    (tmp_path / "audit.yaml").write_text("source: rows.jsonl\nsentinels: pack:insult\n")
    command = [sys.executable, "-m", "poisonwatch.flows.cli", "dashboard", "audit.yaml"]
    with subprocess.Popen(
        [*command, "--port", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "http://127.0.0.1:" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
    assert process.returncode == 0, said
    assert "Traceback" not in said
