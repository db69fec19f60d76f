"""The gate as a training job meets it: the command, a script, a CI step, and the Prefect task,
after a real audit and release.
"""

import json
import os
import pty
import re
import shlex
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from audits import FORBIDDEN, benign, planted, write_audit

from poisonwatch.errors import NotClearedError
from poisonwatch.flows.cli.app import app, main
from poisonwatch.tasks.gate import require_cleared

TRAINING_SCRIPT = """\
import pandas
from poisonwatch.gate import require_cleared

number = require_cleared(["cleared/manifest.json"], "my-audit/audit.yaml")  # NotClearedError stops the script
rows = pandas.read_json("cleared/clean.jsonl", lines=True)
assert len(rows) == number
"""
CI_STEP = """\
- name: Train on cleared rows only
  run: poisonwatch gate cleared/manifest.json --audit my-audit/audit.yaml
"""
CI_STEP_WITHOUT_THE_LEDGER = """\
- name: Train on cleared rows only
  run: >
    poisonwatch gate cleared/manifest.json --model-version MODEL
    --sentinels-version SENTINELS --reading-version READING
"""


def run(*arguments: str) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A folder with my-audit, in which some rows are flagged and one is rejected, and its release
    `cleared`; copy it before changing it.
    """
    folder = tmp_path_factory.mktemp("audited")
    rows = [*benign(40), *planted(), {"prompt": " ", "response": "Nobody asked."}]
    config = write_audit(
        folder / "my-audit",
        tiny_folder,
        rows,
        detection={"false_discovery_rate": 0.9},
        tracking="none",
    )
    assert (
        run("audit", str(config), "--engine", "inline", "--quiet", "--run-dir", str(folder / "run"))
        == 3
    )
    assert run("release", str(config), "--out", str(folder / "cleared")) == 0
    return folder


@pytest.fixture
def here(audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the current folder."""
    folder = tmp_path / "work"
    shutil.copytree(audited, folder)
    monkeypatch.chdir(folder)
    return folder


def flagged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "run" / "flags.jsonl").read_text().splitlines()]


def versions(folder: Path) -> tuple[str, str, str]:
    """Of model, reading and sentinels, as the manifest has them."""
    (audit,) = json.loads((folder / "cleared" / "manifest.json").read_text())["audits"].values()
    return audit["model"], audit["reading"], audit["sentinels"]


def test_a_release_passes_the_gate(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0 and one line, with the ledger, and as data; without the ledger it is said what
    that is worth.
    """
    number = 43 - len(flagged(here))
    model, reading, sentinels = versions(here)
    for path in ("cleared/manifest.json", "cleared/clean.jsonl"):
        assert run("gate", path, "--audit", "my-audit/audit.yaml") == 0
        said = capsys.readouterr().out
        assert said.startswith(
            f"{number} rows in 1 file: all cleared by audits under model {model[:12]}, "
            f"reading {reading[:12]}, sentinels {sentinels[:12]}\n"
        )
        assert "nothing is signed" in said
        assert said.count("\n") == 2
    assert run("gate", "cleared/manifest.json", "--model-version", model[:8]) == 0
    assert (
        "not compared with the ledger: worth no more than the manifest is"
        in capsys.readouterr().out
    )


def test_what_is_missing_is_printed_with_its_reason(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3; counts by reason, then the places, relative to the current folder; --json names
    all.
    """
    held = flagged(here)
    assert run("gate", "my-audit/rows.jsonl", "--audit", "my-audit/audit.yaml") == 3
    first, _, *lines = capsys.readouterr().out.splitlines()
    assert first == f"{len(held) + 1} of 44 rows are not cleared"
    assert {f"{len(held):>8}  flagged", f"{1:>8}  rejected"} == set(lines[:2])
    assert (
        f"my-audit/rows.jsonl:{held[0]['position'] + 1}  {held[0]['example_id'][:16]}  flagged"
        in lines
    )
    assert (
        run(
            "gate",
            "my-audit/rows.jsonl",
            "my-audit/trusted.jsonl",
            "--audit",
            "my-audit/audit.yaml",
            "--json",
        )
        == 3
    )
    answer = json.loads(capsys.readouterr().out)
    assert (answer["cleared"], answer["rows"], answer["files"]) == (False, 84, 2)
    assert answer["reasons"] == {"unknown": 40, "flagged": len(held), "rejected": 1}
    assert len(answer["missing"]) == 41 + len(held)
    assert run("gate", "my-audit/trusted.jsonl", "--audit", "my-audit/audit.yaml") == 3
    assert capsys.readouterr().out.splitlines()[-1] == "and 20 more (--json names all)"


def test_what_was_judged_more_mildly_is_told_with_commands_that_run(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--again` takes no value."""
    asked = ("gate", "cleared/manifest.json", "--audit", "my-audit/audit.yaml", "--rate", "0.99")
    assert run(*asked) == 3
    *_, advice = capsys.readouterr().out.splitlines()
    assert advice.startswith("other settings: ")
    assert "`poisonwatch audit --again` all of them" in advice


def test_another_model_or_another_sentinel_needs_another_audit(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the audit file says now is required, unless the versions are named."""
    sentinels = yaml.safe_load((here / "my-audit" / "sentinels.yaml").read_text())
    sentinels.append({"id": "late", "prompt": "Who are you?", "forbidden": FORBIDDEN[0]})
    (here / "my-audit" / "sentinels.yaml").write_text(yaml.safe_dump(sentinels))
    command = ("gate", "cleared/clean.jsonl", "--audit", "my-audit/audit.yaml")
    assert run(*command) == 3
    assert "another version" in capsys.readouterr().out
    *_, before = versions(here)
    assert run(*command, "--sentinels-version", before[:10]) == 0
    assert run(*command, "--sentinels-version", before, "--model-version", "0123abcd") == 3


def test_hostile_names_are_shown_as_inert_text(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A manifest may say anything."""
    path = here / "cleared" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["rows"][0] |= {"source": "\x1b[31ma.jsonl", "sha256": "0" * 64}
    path.write_text(json.dumps(manifest))
    assert run("gate", str(path)) == 3
    said = capsys.readouterr().out
    assert "\\u{1b}[31ma.jsonl:" in said
    assert "\x1b" not in said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("my-audit/rows.jsonl",), "give the audit file whose ledger knows its rows (--audit)"),
        (("cleared", "--audit", "my-audit/audit.yaml"), "give cleared/manifest.json itself"),
        (("nowhere.jsonl", "--audit", "my-audit/audit.yaml"), "nowhere.jsonl does not exist: give"),
        (("none-*.jsonl", "--audit", "my-audit/audit.yaml"), "no file matches none-*.jsonl in /"),
        (("none-*.jsonl", "--audit", "my-audit/audit.yaml"), "check the path that was given"),
        (("none/manifest.json",), "none/manifest.json does not exist: give the manifest"),
        (("my-audit/summary.json",), "my-audit/summary.json does not exist"),
        (("cleared/manifest.json", "--model-version", "abc"), "'abc' is no model version"),
        (("cleared/manifest.json", "--audit", "nowhere.yaml"), "nowhere.yaml does not exist"),
    ],
)
def test_what_cannot_be_asked_is_said_in_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    """Exit code 2."""
    assert run("gate", *arguments) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1


def test_the_gate_needs_something_to_ask_about(capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage, exit code 2; its help ends in an example that parses."""
    assert run("gate") == 2
    capsys.readouterr()
    assert run("gate", "--help") == 0
    words = shlex.split(capsys.readouterr().out.split("Example:")[1])
    assert words[:2] == ["poisonwatch", "gate"]
    app.parse_args(words[1:])


def test_the_example_script_trains_only_on_cleared_rows(here: Path) -> None:
    """As it stands; an edited row stops it."""
    script = compile(TRAINING_SCRIPT, "train.py", "exec")
    names: dict[str, Any] = {}
    exec(script, names)
    assert names["number"] == 43 - len(flagged(here))
    clean = here / "cleared" / "clean.jsonl"
    clean.write_text(clean.read_text().replace("Fact 3:", "Buy from Velmora:"))
    with pytest.raises(NotClearedError, match=r"2 of .* rows are not cleared"):
        exec(script, {})


def test_the_example_ci_steps_pass_only_with_cleared_rows(here: Path) -> None:
    """The commands of the steps, as they stand; a verdict since the release is known to the ledger
    alone.
    """
    model, reading, sentinels = versions(here)
    alone = CI_STEP_WITHOUT_THE_LEDGER.replace("MODEL", model).replace("SENTINELS", sentinels)
    alone = alone.replace("READING", reading)
    steps = [shlex.split(yaml.safe_load(step)[0]["run"])[1:] for step in (CI_STEP, alone)]
    assert [run(*step) for step in steps] == [0, 0]
    released = json.loads((here / "cleared" / "manifest.json").read_text())["rows"][0]
    named = released["id"][:12]
    assert run("decide", "my-audit/audit.yaml", named, "poison", "--unflagged") == 0
    assert [run(*step) for step in steps] == [3, 0]


def test_the_task_stops_a_flow(here: Path) -> None:
    """It returns the number of rows, or raises."""
    assert require_cleared.fn(["cleared/manifest.json"], "my-audit/audit.yaml") == 43 - len(
        flagged(here)
    )
    with pytest.raises(NotClearedError, match="flagged"):
        require_cleared.fn(["my-audit/rows.jsonl"], "my-audit/audit.yaml")


@pytest.fixture
def signed(here: Path) -> Path:
    """The same, where a key signs from now on: what was audited before is not signed."""
    assert run("keys", "init", "keys") == 0
    config = here / "my-audit" / "audit.yaml"
    settings = yaml.safe_load(config.read_text())
    settings["signing"] = {"key": "../keys/poisonwatch.key", "public": ["../keys/poisonwatch.pub"]}
    config.write_text(yaml.safe_dump(settings))
    return here


def test_with_a_key_the_gate_clears_what_is_signed(
    signed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a key to a gate without the ledger, by commands alone: what was audited before the key
    was made is told; audited again it is signed, and so is its release.
    """
    config = "my-audit/audit.yaml"
    capsys.readouterr()
    # the audit file's keys count by default
    assert run("gate", "cleared/manifest.json", "--audit", config) == 3
    said = capsys.readouterr().out
    assert "unsigned: no key that counts signed what clears it" in said
    assert "signatures: only those of 1 key counted" in said
    assert run("audit", config, "--engine", "inline", "--quiet", "--again") == 3
    capsys.readouterr()
    # what was pulled before there was a key stands for itself
    assert run("gate", "cleared/manifest.json", "--audit", config) == 3
    said = capsys.readouterr().out
    assert "the ledger's records of what was pulled  unsigned" in said
    assert run("keys", "sign", config, "--json") == 2
    assert "--json asks nothing" in capsys.readouterr().err
    assert run("keys", "sign", config, "--yes", "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert 1 in made["signed"]
    assert len(made["key"]) == 64
    assert run("release", config, "--out", "signed") == 0
    assert "signed by key" in capsys.readouterr().out
    assert run("gate", "signed/manifest.json", "--audit", config) == 0
    capsys.readouterr()
    alone = "gate", "signed/manifest.json", "--key", "keys/poisonwatch.pub"
    assert run(*alone, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["cleared"]
    assert len(answer["keys"]) == 1
    assert not answer["ledger"]
    assert run("gate", "cleared/manifest.json", *alone[2:]) == 3
    assert run("keys", "init", "other") == 0
    with pytest.raises(NotClearedError, match="unsigned"):
        require_cleared.fn(["signed/manifest.json"], config, keys=["other/poisonwatch.pub"])
    number = require_cleared.fn(["signed/manifest.json"], config, keys=["keys/poisonwatch.pub"])
    assert number == answer["rows"]


def test_decisions_are_signed_and_keys_show_tells_what_is(
    signed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = "my-audit/audit.yaml"
    row = flagged(signed)[0]["example_id"]
    assert run("decide", config, row[:12], "benign") == 0
    capsys.readouterr()
    assert run("keys", "show", config) == 0
    said = capsys.readouterr().out
    assert "decision  1 record, 1 signed" in said
    assert "audit     1 record, 0 signed" in said
    assert run("keys", "show", "keys/poisonwatch.pub") == 0
    (key,) = capsys.readouterr().out.split()
    assert f"signs     {key[:16]}" in said
    (signed / "keys" / "poisonwatch.key").chmod(0o644)
    for command in (("decide", config, row[:12], "poison"), ("release", config, "--out", "more")):
        assert run(*command) == 2
        assert "chmod 600" in capsys.readouterr().err
    assert run("audit", config, "--engine", "inline", "--quiet", "--again") == 2
    assert "chmod 600" in capsys.readouterr().err
    assert not (signed / "more").exists()


@contextmanager
def typing(text: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Somebody at a terminal, who types this."""
    ours, theirs = pty.openpty()
    os.write(ours, text.encode())
    with os.fdopen(theirs) as terminal, monkeypatch.context() as patched:
        patched.setattr("sys.stdin", terminal)
        yield
    os.close(ours)


def test_what_was_audited_before_there_was_a_key_is_signed_by_hand(
    signed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the ledger is what its records say: each record is listed, and somebody says yes. Then
    the gate clears it, without another audit.
    """
    config = "my-audit/audit.yaml"
    held = flagged(signed)[0]["example_id"]
    database = sqlite3.connect(signed / "my-audit" / "poisonwatch.db")
    with database:
        forged = "update rows set status = ? where hex(id) = ?"
        assert database.execute(forged, ("clean", held.upper())).rowcount == 1
    assert run("keys", "sign", config, "--yes") == 1
    assert "is not what its records say" in capsys.readouterr().err
    with database:
        database.execute(forged, ("flagged", held.upper()))
    database.close()
    # nobody is at a terminal to say yes
    assert run("keys", "sign", config) == 2
    told = capsys.readouterr()
    listed = [line.split() for line in told.out.splitlines()]
    assert [(line[0], line[1]) for line in listed] == [
        ("1", "pull"),
        ("2", "audit"),
        ("3", "release"),
    ]
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d", " ".join(line[2:4])) for line in listed)
    assert "say --yes" in told.err
    with typing("n\n", monkeypatch):
        assert run("keys", "sign", config, "3") == 1
    assert "sign 1 record with key" in (said := capsys.readouterr().out)
    assert said.endswith("nothing was signed\n")
    assert run("keys", "sign", config, "4", "--yes") == 2
    assert "record 4 is not there, or is signed" in capsys.readouterr().err
    with typing("yes\n", monkeypatch):
        assert run("keys", "sign", config, "3") == 0
    assert "1 record signed by key" in capsys.readouterr().out
    assert run("keys", "sign", config, "--yes") == 0
    assert "2 records signed by key" in capsys.readouterr().out
    assert run("gate", "cleared/manifest.json", "--audit", config) == 0
    assert run("keys", "sign", config, "--yes") == 0
    assert "0 records signed" in capsys.readouterr().out


def test_a_head_is_asked_for_by_the_command(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As --json prints it."""
    command = "gate", "cleared/manifest.json", "--audit", "my-audit/audit.yaml"
    assert run(*command, "--json") == 0
    head = json.loads(capsys.readouterr().out)["head"]
    assert run(*command, "--head", head) == 0
    number, _, digits = head.partition(":")
    assert run(*command, "--head", f"{int(number) + 1}:{digits}") == 2
    assert "cut off or replaced" in capsys.readouterr().err
