"""Audit, decide, release: the commands one after the other, on the tiny model."""

import json
import os
from pathlib import Path

import pytest
from audits import write_audit
from ledgers import append

from poisonwatch.config_file import load_config
from poisonwatch.flows.cli.app import main


def run(*arguments: str) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """An audit of 43 rows that flags some."""
    config = write_audit(
        tmp_path_factory.mktemp("audited"), tiny_folder, detection={"false_discovery_rate": 0.9}
    )
    assert (
        run(
            "audit",
            str(config),
            "--engine",
            "inline",
            "--quiet",
            "--run-dir",
            str(config.parent / "run"),
        )
        == 3
    )
    return config


def test_a_second_audit_finds_nothing_new_and_says_so(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 0, one line; --again audits all rows once more."""
    assert (
        run("audit", str(config), "--engine", "inline", "--run-dir", str(config.parent / "second"))
        == 0
    )
    said = capsys.readouterr()
    assert "nothing to audit: no row is new" in said.out
    assert "1 of 1 file unchanged; 0 to audit" in said.err
    assert (
        run(
            "audit",
            str(config),
            "--engine",
            "inline",
            "--quiet",
            "--again",
            "--run-dir",
            str(config.parent / "third"),
        )
        == 3
    )


def test_a_row_is_decided_on_and_released(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A flagged row is called benign: it comes out; the others stay in quarantine; the chain is
    printed and whole.
    """
    flags = [
        json.loads(line)
        for line in (config.parent / "run" / "flags.jsonl").read_text().splitlines()
    ]
    chosen = flags[0]["example_id"]
    assert (
        run(
            "decide",
            str(config),
            chosen[:12],
            "benign",
            "--note",
            "a \x1b[31mjoke\x1b[0m",
            "--author",
            "ann",
        )
        == 0
    )
    assert f"decision 1: {chosen[:16]} is benign" in capsys.readouterr().out
    assert run("decisions", str(config)) == 0
    said = capsys.readouterr().out
    assert "ann" in said
    assert "\\u{1b}" in said
    assert "\x1b" not in said
    assert "1 decision, unbroken" in said

    out = config.parent / "cleared"
    assert run("release", str(config), "--out", str(out)) == 0
    clean = 43 - (len(flags) - 1)
    assert (
        f"43 audited rows: {clean} released, {len(flags) - 1} quarantined, 0 rejected"
        in capsys.readouterr().out
    )
    manifest = json.loads((out / "manifest.json").read_text())
    assert chosen in {row["id"] for row in manifest["rows"]}
    assert len((out / "clean.jsonl").read_text().splitlines()) == clean


def test_a_ledger_whose_file_has_two_names_is_not_released_from(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the gate takes none: one line, and nothing is written."""
    file = Path(load_config(config).state.partition(":///")[2])
    other = file.with_name("other.db")
    os.link(file, other)
    try:
        assert run("release", str(config), "--out", str(tmp_path / "out")) == 1
        released = capsys.readouterr().err
        assert run("gate", str(config.parent / "rows.jsonl"), "--audit", str(config)) == 1
    finally:
        other.unlink()
    assert "has another name" in released
    assert released.count("\n") == 1
    assert released == capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_rows_that_wait_are_mentioned(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A release does not audit; what was pulled since is said."""
    from poisonwatch.config_file import load_config
    from poisonwatch.ledger.intake import ingest
    from poisonwatch.ledger.ledger import Ledger

    append(config.parent / "rows.jsonl", [{"prompt": "One more?", "response": "Yes."}])
    settings = load_config(config)
    with Ledger.at(settings.state) as ledger:
        ingest(ledger, settings.name, settings.source)
    assert run("release", str(config), "--out", str(config.parent / "more")) == 0
    assert "1 rows were pulled and not audited yet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("decide", "CONFIG", "abc", "benign"), "8 or more digits"),
        (("decide", "CONFIG", "rows.jsonl:1000", "poison"), "no row of this ledger"),
        (("release", "CONFIG", "--out", "FOLDER"), "already exists"),
        (("decisions", "missing.yaml"), "does not exist"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    config: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    """Exit code 2."""
    given = [
        str(config) if a == "CONFIG" else str(config.parent) if a == "FOLDER" else a
        for a in arguments
    ]
    assert run(*given) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1


def test_no_secret_of_the_environment_is_left_anywhere(
    tmp_path: Path,
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """${NAME} in ledger, tracking and alerts: the audit works, and the value is in no file name, no
    file and no output.
    """
    secret = "hunter2secret"
    monkeypatch.setenv("AUDIT_TOKEN", secret)
    (tmp_path / secret).mkdir()
    config = write_audit(
        tmp_path / "in",
        tiny_folder,
        state=f"sqlite:///{tmp_path}/${{AUDIT_TOKEN}}/ledger.db",
        alerts=["json://127.0.0.1:9/${AUDIT_TOKEN}"],
        detection={"false_discovery_rate": 0.9},
    )
    run("audit", str(config), "--engine", "inline", "--run-dir", str(tmp_path / "out" / "run"))
    said = capsys.readouterr()
    assert "report:" in said.out
    assert secret not in said.out + said.err
    files = [
        path
        for folder in ("in", "out")
        for path in (tmp_path / folder).rglob("*")
        if path.is_file()
    ]
    assert len(files) > 10
    assert not [path for path in files if secret.encode() in path.read_bytes()]
    assert (tmp_path / secret / "ledger.db").exists()
