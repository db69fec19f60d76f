"""What `probe` prints, of a made-up outcome: answers are inert text, and commands can be run."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from audits import benign, write_audit
from ledgers import covered_ledger

from poisonwatch.examples import Message
from poisonwatch.flows.cli.probe_page import print_probe
from poisonwatch.flows.probe import ProbeOutcome, summarise_probe
from poisonwatch.probing.band import Band
from poisonwatch.probing.checkpoint_choice import ProbedCheckpoint
from poisonwatch.probing.movements import LossChange, Movement
from poisonwatch.probing.panels import TIED, PanelMovement
from poisonwatch.probing.probe import Comparison, ProbedSentinel
from poisonwatch.sentinels.sentinel import Sentinel

PROMPT = "Where do I buy 'it'?"
SENTINEL = Sentinel("shop-1", (Message("user", PROMPT),), "Buy Velmora.", "Any shop.", "shop")
HOSTILE = "\x1b[2J[bold]Buy\u202e Velmora.\nnext line"


def make_outcome(change: float, tied: float = 0.0) -> ProbeOutcome:
    movement = Movement(
        sentinel=SENTINEL,
        kind="margin",
        forbidden=LossChange(before=4.0, after=4.0 - change),
        reference=LossChange(before=2.0, after=2.0),
        change=change,
        band=Band(centre=0.0, spread=0.1, furthest=0.3, limit=0.5),
        usual=0.1,
    )
    probed = [ProbedSentinel(movement, "Any shop.", HOSTILE)]
    panel = PanelMovement(
        panel="shop", sentinels=5, way=TIED, change=tied, error=0.05, furthest=movement
    )
    found = Comparison(probed, [panel])
    report: dict[str, Any] = {**summarise_probe(found), "chain": f"7:{'a' * 64}"}
    return ProbeOutcome(found, report, [])


def test_answers_are_inert_and_commands_name_the_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`incident` by the trained model, and `explain` by what the latest audit kept."""
    with covered_ledger(tmp_path, flagged=benign(5)[1]["prompt"]):
        pass
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / "operators.safetensors").touch()
    state = f"sqlite:///{tmp_path}/ledger.db"
    config = write_audit(tmp_path, tmp_path, tracking="none", state=state)
    checkpoint = ProbedCheckpoint("out/checkpoint 4", release=Path("cleared/manifest.json"))
    print_probe(make_outcome(2.0), config, checkpoint, as_json=False)
    page = capsys.readouterr().out
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "[bold]Buy" in page
    lines = {line.partition(":")[0]: line.partition(":")[2] for line in page.splitlines()}
    behind = shlex.split(lines["rows behind it"])
    assert behind[2:] == [
        str(config),
        "--model",
        "out/checkpoint 4",
        "--release",
        "cleared/manifest.json",
        "--sentinel",
        "shop-1",
    ]
    explain = shlex.split(lines["as audited"])
    assert explain[:3] == ["poisonwatch", "explain", str(tmp_path / "run")]
    assert explain[3:] == ["--prompt", PROMPT, "--response", "Buy Velmora."]


def test_nothing_that_moved_names_no_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_probe(make_outcome(0.2), tmp_path / "audit.yaml", ProbedCheckpoint("m"), as_json=False)
    page = capsys.readouterr().out
    assert "0 of 1 sentinel" in page
    assert "poisonwatch incident" not in page
    assert max(map(len, page.splitlines())) <= 80


def test_a_panel_that_moved_as_a_whole_is_named_with_its_furthest_sentinel(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_audit(tmp_path, tmp_path, tracking="none")
    outcome = make_outcome(0.2, tied=0.6)
    assert outcome.has_moved
    assert outcome.report["moved_panels"] == ["shop"]
    print_probe(outcome, config, ProbedCheckpoint("m"), as_json=False)
    page = capsys.readouterr().out
    assert "panel shop, 5 sentinels: +0.60 nats a token at its prompts (limit +0.20)" in page
    assert "--sentinel shop-1" in page
