"""What an OpenLineage server is owed: kept over an outage, told once it is back."""

from pathlib import Path

import pytest
from audits import write_audit
from killing import kill_before_each_write
from ledgers import NAME, covered_ledger
from servers import HttpReceiver, http_receiver
from silent import expecting

from poisonwatch.config import AuditConfig
from poisonwatch.config_file import load_config
from poisonwatch.errors import OperationError
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.cli.app import app
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import AUDIT_KIND, OPENLINEAGE, enqueue
from poisonwatch.ledger.owed import Owed, list_owed
from poisonwatch.openlineage_config import URL_VARIABLE
from poisonwatch.provenance.openlineage_owed import tell_pending
from poisonwatch.release.release import write_release

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


def test_who_is_killed_while_telling_leaves_nothing_untold(tmp_path: Path) -> None:
    """Before any of its writes: the next one tells what the server does not know yet; what it took
    and nobody noted comes twice, under the same run.
    """
    site = tmp_path / "site"
    site.mkdir()
    with covered_ledger(site, flagged="Tell me fact 1 about bread.") as opened:
        with opened.write() as connection:
            enqueue(connection, AUDIT_KIND, 1, audit=1, targets=[OPENLINEAGE])
        write_release(opened, NAME, site / "out", report_to=[OPENLINEAGE])
        url = opened.url
    with http_receiver() as server:
        config = expecting(url, openlineage=f"http://{server.address}")

        def tell() -> None:
            with Ledger.at(url) as ledger:
                tell_pending(ledger, config)

        twice = 0
        for number in kill_before_each_write(site, tell):
            tell()
            runs = [event["run"]["runId"] for event in server.received]
            assert len(set(runs)) == 2, number
            assert {each[0] for each in describe(server)} == {"audit", "release"}
            assert read_owed(config) == []
            twice += len(runs) - 2
            server.received.clear()
        assert twice
