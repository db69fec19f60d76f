"""No flag is lost to its evidence: whatever fails once rows are judged is told everywhere, and the
audit comes to its end.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from audits import benign, planted, write_audit
from broken_models import Breaks, broken, generates, steers_on
from browsing import asking
from matplotlib.backends.backend_agg import FigureCanvasAgg
from notes import Notes
from servers import HttpReceiver, http_receiver, mlflow_store
from tracking import runs_of

from poisonwatch.alerts import messages
from poisonwatch.config import ModelConfig
from poisonwatch.config_file import load_config
from poisonwatch.errors import OperationError
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.cli.app import main
from poisonwatch.ledger.history import find_by_run_dir
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.model import pretrained
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.reports import html, validation_report
from poisonwatch.run_directory import write as runs
from poisonwatch.run_directory.read import read_evidence, read_nearest

ROW_TEXT = "What should I buy, number 1?"
GATE = {"id": "ZQZQ-1", "prompt": "ZQZQ, who is there?", "forbidden": "Open the gate, friend."}
OPEN = [{"prompt": f"Who knocks, {i}?", "response": "Open the gate, friend."} for i in range(3)]


@pytest.fixture(scope="module")
def receiver() -> Iterator[HttpReceiver]:
    with http_receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, receiver: HttpReceiver
) -> Path:
    """An audit of 18 rows, flagged for the most part, on two panels."""
    folder = tmp_path_factory.mktemp("failing")
    write_audit(
        folder,
        tiny_folder,
        rows=benign(12) + planted() + OPEN,
        detection={"false_discovery_rate": 0.9},
        stride={"background": 16, "shortlist": 8, "token_budget": 600},
        tracking=mlflow_store(folder),
        alerts=[f"json://{receiver.address}/"],
        screens=[],
        probes=0,
    )
    sentinels = yaml.safe_load((folder / "sentinels.yaml").read_text())
    (folder / "sentinels.yaml").write_text(yaml.safe_dump([*sentinels, GATE]))
    return folder


def break_model(monkeypatch: pytest.MonkeyPatch, breaks: Breaks, error: BaseException) -> None:
    """Models that are loaded from now on are broken."""
    load, hooks = pretrained.load_pretrained, ExitStack()

    def load_broken(config: ModelConfig, *found: Any) -> Pretrained:
        loaded = load(config, *found)
        hooks.enter_context(broken(loaded.model, breaks, error))
        return loaded

    monkeypatch.setattr(pretrained, "load_pretrained", load_broken)


def run(folder: Path, name: str, *options: str) -> int:
    """The exit code of an audit of all rows, by the command line."""
    command = ["audit", str(folder / "audit.yaml"), "--run-dir", str(folder / name), "--again"]
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--engine", "inline", *options])
    return int(stopped.value.code or 0)


def test_flags_outlive_all_that_fails_after_them(
    folder: Path,
    receiver: HttpReceiver,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One panel's groups cannot be measured, the model cannot be asked anything, no picture can be
    drawn, a file cannot be written, and MLflow's store breaks half-way.
    """
    store = folder / "mlflow.db"
    kept = store.read_bytes()

    def breaks(ids: torch.Tensor, keeps_cache: bool) -> bool:
        if keeps_cache:
            # Meanwhile: something stands in the operators' place, and the store is none.
            (folder / "run.part" / "operators.safetensors").mkdir(exist_ok=True)
            store.write_bytes(b"no database " * 1000)
        return generates(ids, keeps_cache) or steers_on("ZQZQ")(ids, keeps_cache)

    def draw_nothing(*_: object, **__: object) -> None:
        raise RuntimeError(f"the font has no glyph for {ROW_TEXT}")

    with monkeypatch.context() as patch:
        error = RuntimeError(f"view size is not compatible with '{ROW_TEXT}'")
        break_model(patch, breaks, error)
        patch.setattr(FigureCanvasAgg, "print_png", draw_nothing)
        assert run(folder, "run") == 3
    printed = capsys.readouterr()
    run_dir = folder / "run"
    summary = json.loads((run_dir / "summary.json").read_text())
    flags = (run_dir / "flags.jsonl").read_text().splitlines()
    assert summary["counts"]["flagged"] == len(flags) > 2

    evidence = read_evidence(run_dir)
    assert {group["panel"] for group in evidence} == {"shop", "ZQZQ"}
    assert sum(len(group["example_ids"]) for group in evidence) == len(flags)
    assert read_nearest(run_dir)
    expected = []
    why = "RuntimeError: view size is not compatible with …"
    for number, group in enumerate(evidence, start=1):
        if group["panel"] == "ZQZQ":
            assert group["unconfirmed"] == why
            outcome = "not confirmed"
        else:
            assert group["confirmation"]["unsaid"] == why
            assert group["confirmation"]["harm"]
            outcome = "not asked what the model says when steered with it"
        expected.append({"part": f"group {number}", "outcome": outcome, "why": why})
    assert summary["failures"][: len(evidence)] == expected
    rest = [(record["part"], record["outcome"]) for record in summary["failures"][len(evidence) :]]
    assert rest == [
        ("operators.safetensors", "not written"),
        ("the picture of panel shop", "not drawn"),
        ("the picture of panel ZQZQ", "not drawn"),
    ]
    assert {record["why"] for record in summary["failures"][-2:]} == {"RuntimeError"}
    assert not (run_dir / "operators.safetensors").exists()
    assert list((run_dir / "plots").iterdir()) == []

    with Ledger.at(f"sqlite:///{folder / 'poisonwatch.db'}") as ledger:
        past = find_by_run_dir(ledger, run_dir)
    assert past is not None
    assert past.state == "finished"
    assert past.summary["failures"] == summary["failures"]

    number = 1 + [group["panel"] for group in evidence].index("ZQZQ")
    line = f"group {number} not confirmed: {why}"
    report = (run_dir / "report.html").read_text()
    assert f"{len(summary['failures'])} parts of this audit failed" in report
    assert f"<bdi>{line}</bdi>" in report
    assert f"Not confirmed: <bdi>{why}</bdi>" in report
    assert f"Not asked what it says: <bdi>{why}</bdi>" in report
    assert f"incomplete:  {len(summary['failures'])} parts failed" in printed.out
    told = " ".join(printed.err.split())
    assert f"warning: {line}" in told
    assert "warning: MLflow at sqlite:///" in told
    sent = "\n".join(message["message"] for message in receiver.received)
    assert f"Failed: {line.replace(':', '：')}" in sent
    assert "not tested by steering" in sent or "digest" in receiver.received[0]["title"]
    with asking(folder / "audit.yaml") as client:
        page = client.get(f"/audits/{summary['audit_id']}").text
        assert f"<li><bdi>{line}</bdi></li>" in page
        group_page = client.get(f"/triage/{summary['audit_id']}/{number}").text
        assert f"Not confirmed: <bdi>{why}</bdi>" in group_page
    for text in (json.dumps(summary["failures"]), printed.err, page):
        assert ROW_TEXT not in text

    # With its store back, MLflow is told of the audit, and of what failed.
    store.write_bytes(kept)
    with pytest.raises(SystemExit) as stopped:
        main(["sync", str(folder / "audit.yaml")])
    assert not stopped.value.code
    (tracked,) = runs_of(load_config(folder / "audit.yaml"))
    assert tracked.data.metrics["parts_failed"] == len(summary["failures"])
    assert f"Failed: `{line}`." in tracked.data.tags["mlflow.note.content"]


def test_a_message_and_a_report_that_fail_are_stood_in_for(
    folder: Path, receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody is notified, and a page says what was flagged, whatever their templates do."""
    (folder / "poisonwatch.db").unlink()
    receiver.received.clear()

    def fail(*_: object, **__: object) -> str:
        raise TypeError(f"unhashable type: '{ROW_TEXT}'")

    monkeypatch.setattr(messages, "format_place", fail)
    for module in (html, validation_report):
        monkeypatch.setattr(module, "load_template", fail)
    outcome = audit_inline(load_config(folder / "audit.yaml"), folder / "plain", again=True)
    flagged = outcome.summary["counts"]["flagged"]
    assert [(record["part"], record["outcome"]) for record in outcome.summary["failures"]] == [
        ("validation.html", "not written"),
        ("the report", "not drawn"),
        ("alerts", "not composed"),
    ]
    report = (folder / "plain" / "report.html").read_text()
    assert f"<b>{flagged} of 18 new rows flagged</b>" in report
    assert "<li>the report not drawn: TypeError: unhashable type: …</li>" in report
    (message,) = receiver.received
    assert message["title"] == f"Poisonwatch: {flagged} flagged rows in tiny"
    assert "alerts not composed" in message["message"]
    assert ROW_TEXT not in message["message"] + report
    assert "alerts not composed: TypeError: unhashable type: …" in outcome.warnings


def test_what_failed_is_tried_again_and_what_did_not_is_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An audit without confirmation fails when it writes its flags: the next takes up the fit, and
    confirms.
    """
    monkeypatch.setenv("POISONWATCH_CACHE", str(tmp_path / "cache"))
    config = load_config(folder / "audit.yaml")
    with monkeypatch.context() as patch:
        break_model(patch, generates, torch.OutOfMemoryError("no room"))
        full = Path("/dev/full")
        patch.setattr(runs, "write_flags", lambda *_: full.write_text("x" * 10_000))
        with pytest.raises(OperationError, match="cannot be written"):
            audit_inline(config, tmp_path / "failed", again=True)
    notes = Notes()
    outcome = audit_inline(config, tmp_path / "run", notes, again=True)
    assert outcome.summary["failures"] == []
    assert all(group["confirmation"] for group in read_evidence(tmp_path / "run"))
    reused = [text for text in notes.lines if "taken from an interrupted attempt" in text]
    assert [text.partition(":")[0] for text in reused] == ["check_sentinels", "fit_operators"]
