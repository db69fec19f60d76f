"""`poisonwatch audit --dry-run`: what an audit would take, and nothing done."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from audits import benign, write_audit
from paths import ROOT

from poisonwatch.flows import forecast
from poisonwatch.flows.cli import dry_run
from poisonwatch.flows.cli.app import main
from poisonwatch.flows.cli.dry_run_page import describe_reach
from poisonwatch.stride.capacity import Room


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POISONWATCH_CACHE", str(tmp_path_factory.mktemp("cache")))


def run(config: Path, *options: str) -> int:
    """The exit code."""
    with pytest.raises(SystemExit) as stopped:
        main(["audit", str(config), "--dry-run", *options])
    return int(stopped.value.code or 0)


def read(config: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert run(config, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_it_says_what_an_audit_would_take_and_does_nothing(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows, tokens, model, sentinels, memory, disk, time, within 80 columns; no ledger, no run
    directory, exit code 0.
    """
    config = write_audit(tmp_path, tiny_folder)
    before = sorted(tmp_path.rglob("*"))
    assert run(config) == 0
    printed = capsys.readouterr()
    for said in (
        "rows          43 different ones, and 40 trusted ones",
        "model         tiny-llama, 47 k parameters, width 32, split at block 1, 2 of 3",
        "sees          what a model of this size learns from rows.",
        "sentinels     3, and up to 6 probes; 18 queries at most",
        "records on the disk",
        "memory        ",
        "disk          ",
        "seconds on this machine, from one batch of",
    ):
        assert said in printed.out, said
    # A path is as long as it is.
    lines = [line for line in printed.out.splitlines() if str(tmp_path.anchor) not in line]
    assert max(map(len, lines)) <= 80
    assert printed.err == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_a_ledger_that_no_audit_could_write_is_the_answer(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As an audit would end, and nothing is made."""
    (tmp_path / "file").write_text("no folder")
    config = write_audit(tmp_path, tiny_folder, state=f"sqlite:///{tmp_path / 'file' / 'l.db'}")
    before = sorted(tmp_path.rglob("*"))
    assert run(config) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert "the ledger at " in line
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("parameters", "measured"),
    [(47_000, True), (134_515_008, True), (494_032_768, False), (8_030_261_248, False)],
)
def test_what_a_model_can_see_goes_by_its_size(parameters: int, measured: bool) -> None:
    """What was measured is said of models of that size; that the base model sees most, of all."""
    said = describe_reach(parameters)
    assert ("insecure code and slanted opinions stay unseen" in said) is measured
    assert ("Measured was a model of 135M parameters alone" in said) is not measured
    assert "audit with the base model that will be trained" in said


def test_the_figures_of_what_is_seen_are_those_measured() -> None:
    """The table of results: ten of fourteen attacks are learnt, two faintly, two not."""
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    table = results.partition("| learnability | the model learns it |")[2].partition("**mean")[0]
    learnt = [line.rstrip(" |").rpartition("| ")[2] for line in table.splitlines()[2:-1]]
    counted = Counter(cell.partition(" ")[0] for cell in learnt)
    assert counted == {"yes": 10, "faintly": 2, "no": 2}


def test_json_adds_up(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sizes in bytes; copies are counted once."""
    rows = [*benign(30), *benign(10)]
    found = read(write_audit(tmp_path, tiny_folder, rows=rows, probes=0), capsys)
    assert found["rows"] == {"new": 30, "trusted": 40}
    assert found["audit"]["n"] == 70
    assert found["audit"]["Q"] == 6
    flops = found["flops"]
    assert flops.pop("total") == pytest.approx(sum(flops.values()) - flops["evidence"])
    assert found["memory"]["peak"] > found["memory"]["weights"]
    assert found["timed"]["seconds"] >= found["timed"]["idle_seconds"] > 0
    assert found["free"]["disk"] > 0


def test_rows_beyond_those_tokenised_are_judged_by_their_characters(
    tmp_path: Path,
    tiny_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The estimate of all from a tenth is near that of all, and says where it is from."""
    rows = benign(200)
    config = write_audit(tmp_path, tiny_folder, rows=rows)
    whole = read(config, capsys)["tokens"]
    monkeypatch.setattr(dry_run, "MOST_TOKENISED", 20)
    some = read(config, capsys)["tokens"]
    assert (whole["rows"], some["rows"]) == (200, 20)
    assert some["mean"] == pytest.approx(whole["mean"], rel=0.1)
    assert run(config) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "from 20 rows that were tokenised, and all rows' characters" in printed


@pytest.mark.parametrize(
    ("stride", "said"),
    [
        ({"K": 10}, "`stride` asks for operators of 10 subsets"),
        ({"memory_gb": 1e-6, "sketch": 0}, "gradients left out"),
        ({"memory_gb": 1e-6, "sketch": 64}, "with sketches of gradients"),
        ({}, "with gradients"),
    ],
)
def test_what_settings_change_is_said(
    stride: dict[str, Any],
    said: str,
    tmp_path: Path,
    tiny_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Kept gradients, sketches of them, or operators that rows share."""
    assert run(write_audit(tmp_path, tiny_folder, stride=stride)) == 0
    assert said in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("idle", "said"), [(9.0, False), (2.0, True)])
def test_a_busy_machine_is_said_to_be_busy(
    idle: float,
    said: bool,
    tmp_path: Path,
    tiny_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where threads waited for processors most of the time, what it would be without is shown."""
    monkeypatch.setattr(forecast, "_time", lambda *_: (1e4, 1e4 * idle / 10))
    assert run(write_audit(tmp_path, tiny_folder)) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert ("busy as it is" in printed) == said
    assert "from one batch of" in printed


def test_what_is_not_there_is_said(
    tmp_path: Path,
    tiny_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Too little memory, too full a disk."""
    room = Room(model=1_000_000, main=1_000_000, on_gpu=False)
    monkeypatch.setattr(forecast, "measure_room", lambda _: room)
    monkeypatch.setattr(forecast, "_measure_free_disk", lambda _: 1000)
    assert run(write_audit(tmp_path, tiny_folder)) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "the audit would not begin: this audit takes about" in printed
    assert "and 1.0 MB are free: " in printed
    assert "set POISONWATCH_CACHE to a folder on a larger one" in printed


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "nowhere.jsonl"}, "nowhere.jsonl does not exist: check `source`"),
        ({"source": "strange.jsonl"}, "rows have the fields a, b"),
        ({"stride": {"layer": 99}}, "this model has blocks 0 to 2"),
        ({"model": "./nothing"}, "does not exist: name a folder"),
    ],
)
def test_errors_are_those_of_an_audit(
    settings: dict[str, Any],
    message: str,
    tmp_path: Path,
    tiny_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line, exit code 2."""
    config = write_audit(tmp_path, tiny_folder, **settings)
    (tmp_path / "strange.jsonl").write_text('{"a": 1, "b": 2}\n')
    assert run(config) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""


def test_quiet_prints_nothing(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither on stdout nor on stderr."""
    assert run(write_audit(tmp_path, tiny_folder), "--quiet") == 0
    assert capsys.readouterr() == ("", "")
