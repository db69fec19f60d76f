"""Work that the command line starts with Prefect, where there can be none."""

from pathlib import Path

import pytest
from full_disks import fill, small_disk
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from poisonwatch.flows.launch import _run_flow
from poisonwatch.flows.reporter import Reporter


def test_a_full_home_costs_no_audit_and_no_more_than_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No temporary server is started there: it would print a traceback for each of its tries."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)

    def start() -> str:
        raise AssertionError("a flow run was started")

    with small_disk(tmp_path / "home") as home:
        fill(home)
        unset = {PREFECT_HOME: home / ".prefect"}
        with temporary_settings(unset, restore_defaults={PREFECT_API_URL}):
            found = _run_flow(start, lambda: "done", Reporter(quiet=True))
    assert found == "done"
    (line,) = capsys.readouterr().err.splitlines()
    assert f"no room for a temporary Prefect server in {home}" in line
