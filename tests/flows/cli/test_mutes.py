"""`poisonwatch mute` and `unmute`, as people type them."""

import json
import re
from pathlib import Path

import pytest
from clusters import audit, pulled, settings
from ledgers import NAME
from muting import flagged, write_two_groups

from poisonwatch.flows.cli.app import main
from poisonwatch.ledger.mutes import list_mutes


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(ended.value.code or 0)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Two flagged groups, on panel shop."""
    return write_two_groups(tmp_path, tracking="sqlite:///mlflow.db", alerts=["json://one"])


def test_a_mute_is_made_listed_and_ended(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With who, until when, and why."""
    file = str(config)
    assert run("mute", file, "--list") == 0
    assert "nothing is muted" in capsys.readouterr().out
    why = ("--why", "our \x1b[31mown", "--author", "ann", "--owner", "shop team")
    assert run("mute", file, "panel:shop", "--until", "14d", *why) == 0
    made = capsys.readouterr().out
    assert run("mute", file, "--list") == 0
    assert capsys.readouterr().out == made
    for word in ("panel:shop is muted until", "by ann for shop team", "our \\u{1b}[31mown"):
        assert word in made
    assert run("mute", file, "panel:shop", "--until", "7d", *why) == 0
    number = re.findall(r"\(mute (\d+)\)", made)[0]
    assert f"it replaces mute {number}, which ended" in capsys.readouterr().out
    assert run("unmute", file, "panel:shop", "--author", "bob") == 0
    assert "panel:shop is muted no more" in capsys.readouterr().out
    assert run("mute", file, "--list") == 0
    listed = capsys.readouterr().out
    assert "nothing is muted" in listed
    assert ", by bob, because" in listed
    assert run("unmute", file, "panel:shop") == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["one/1", "--until", "14d"], "needs a reason"),
        (["one/1", "--why", "ours"], "--until"),
        (["--until", "14d", "--why", "ours"], "name what is muted"),
        (["one/1", "--list"], "--list takes nothing else"),
        (["one/1", "--until", "2y", "--why", "ours"], "no end of a mute"),
        (["one/1", "--until", "2000-01-01", "--why", "ours"], "to come"),
        (["one/9", "--until", "14d", "--why", "ours"], "names no flagged group"),
        (["panel:tea", "--until", "14d", "--why", "ours"], "panels that have flags are shop"),
    ],
)
def test_what_is_no_mute_is_refused_in_a_line(
    config: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing is recorded."""
    assert run("mute", str(config), *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    with pulled(config.parent) as ledger, ledger.read() as connection:
        assert list_mutes(connection, NAME) == []


def test_history_says_what_is_muted(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Below the table; and of each audit, how many rows nobody was told of."""
    assert run("mute", str(config), "one/2", "--until", "14d", "--why", "ours") == 0
    made = capsys.readouterr().out
    assert run("history", str(config)) == 0
    assert made in capsys.readouterr().out
    assert run("history", str(config), "--json") == 0
    assert json.loads(capsys.readouterr().out)["muted"] is None


def test_verify_counts_mutes_among_the_records(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And all is as it was recorded."""
    assert run("mute", str(config), "one/2", "--until", "14d", "--why", "ours") == 0
    with pulled(tmp_path) as ledger:
        audit(ledger, tmp_path / "two", settings("json://one"), flagged((5.0, slice(4, 7))))
    capsys.readouterr()
    assert run("verify", str(config), "--json") == 0
    assert json.loads(capsys.readouterr().out)["checked"]["records"] >= 3
