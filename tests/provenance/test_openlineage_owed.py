"""What an OpenLineage server is owed: kept over an outage, told once it is back."""

from pathlib import Path

import pytest
from audits import write_audit
from servers import HttpReceiver, http_receiver

from poisonwatch.config import AuditConfig
from poisonwatch.config_file import load_config
from poisonwatch.errors import OperationError
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.cli.app import app
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.owed import Owed, list_owed
from poisonwatch.openlineage_config import URL_VARIABLE
from poisonwatch.provenance.openlineage_owed import tell_pending

KEY = "thisIsNoRealKey"


def read_owed(config: AuditConfig) -> list[tuple[str, str, int]]:
    with Ledger.at(config.state) as ledger, ledger.read() as connection:
        found: list[Owed] = list_owed(connection, config.name, [])
    return [(owed.kind, owed.target, owed.count) for owed in found]


def describe(server: HttpReceiver) -> list[tuple[str, list[str], list[str]]]:
    """What a server was told, a run a line."""
    return [
        (
            event["job"]["name"],
            [each["name"] for each in event["inputs"]],
            [each["name"] for each in event["outputs"]],
        )
        for event in server.received
    ]


def test_an_audit_and_its_release_are_told_once_and_again_after_an_outage(
    tmp_path: Path,
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By themselves, with the environment's address where the audit file has none. What the server
    did not take is owed, said without its address, and told by `sync`.
    """
    monkeypatch.setenv("OPENLINEAGE_API_KEY", KEY)
    path = write_audit(tmp_path, tiny_folder, tracking="none")
    config = load_config(path)
    with http_receiver() as server:
        server.answer = 503
        monkeypatch.setenv(URL_VARIABLE, f"http://ann:{KEY}@{server.address}")
        outcome = audit_inline(config, tmp_path / "run")
        assert [line for line in outcome.warnings if "OpenLineage" in line]
        app(["release", str(path), "--out", str(tmp_path / "out")], result_action="return_value")
        said = capsys.readouterr()
        assert "`poisonwatch sync`, tries again" in said.err
        assert KEY not in f"{said.err} {said.out} {outcome.warnings}"
        assert read_owed(config) == [("audit", "openlineage", 1), ("release", "openlineage", 1)]
        assert server.received == []
        server.answer = 200
        assert app(["sync", str(path)], result_action="return_value") == 0
        assert "2 audits and releases told to OpenLineage" in capsys.readouterr().out
        assert describe(server) == [
            ("audit", ["rows.jsonl"], []),
            ("release", ["rows.jsonl"], ["clean.jsonl"]),
        ]
        assert {event["eventType"] for event in server.received} == {"COMPLETE"}
        assert read_owed(config) == []
        with Ledger.at(config.state) as ledger:
            assert tell_pending(ledger, config) == 0
        assert len(server.received) == 2


def test_a_failed_audit_is_told_as_one(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows are the next one's."""
    with http_receiver() as server:
        path = write_audit(
            tmp_path, tiny_folder, tracking="none", openlineage=f"http://{server.address}"
        )
        config = load_config(path)
        broken = config.model_copy(update={"reference": None, "window": 0, "probes": 0})
        # the disk's folder of results cannot be made: after the audit was opened
        (tmp_path / "run.part").write_text("")
        with pytest.raises((OperationError, OSError)):
            audit_inline(broken, tmp_path / "run")
        (tmp_path / "run.part").unlink()
        audit_inline(config, tmp_path / "run")
        assert [event["eventType"] for event in server.received] == ["FAIL", "COMPLETE"]
        assert describe(server)[1] == ("audit", ["rows.jsonl"], [])
