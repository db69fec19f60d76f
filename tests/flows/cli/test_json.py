"""What commands print for other programs: --json."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from exported import Audited, audited_rows

from poisonwatch.flows.cli.app import main
from poisonwatch.sentinels.pack import list_packs


@pytest.fixture
def audited(tmp_path: Path) -> Iterator[Audited]:
    with audited_rows(tmp_path) as audited:
        yield audited


def read(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    """The objects that a command prints, one a line, each without row text that a terminal obeys."""
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--json"])
    said = capsys.readouterr()
    assert stopped.value.code == 0, said.err
    assert said.out.isascii()
    return [json.loads(line) for line in said.out.splitlines()]


def test_a_decision_is_told_as_it_is_in_the_chain(
    audited: Audited, capsys: pytest.CaptureFixture[str]
) -> None:
    """By `decide` when it is made, and by `decisions` afterwards."""
    config = str(audited.config)
    assert read(capsys, "decisions", config) == []
    note = ("--note", "a \x1b[31mjoke", "--author", "ann")
    (made,) = read(capsys, "decide", config, "data/c.jsonl:2", "benign", *note)
    assert (made["number"], made["verdict"], made["author"]) == (1, "benign", "ann")
    assert read(capsys, "decisions", config) == [made]


def test_a_release_is_told_in_counts_and_places(
    audited: Audited, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The counts are the manifest's; nobody signed it."""
    out = tmp_path / "cleared"
    (told,) = read(capsys, "release", str(audited.config), "--out", str(out))
    assert told["counts"] == json.loads((out / "manifest.json").read_text())["counts"]
    assert told["counts"]["quarantined"] == 4
    assert told["manifest"] == str(out / "manifest.json")
    assert Path(told["held_back"]).is_dir()
    assert told["key"] is None
    assert told["undecided"] == 4


def test_a_release_says_what_waits_for_a_decision(
    audited: Audited, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And how to decide; once everything in quarantine is decided, neither."""
    config = str(audited.config)

    def release(out: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            main(["release", config, "--out", str(tmp_path / out)])
        assert not stopped.value.code
        return capsys.readouterr().out

    assert "quarantined: 4 wait for a decision, 0 decided to be poison" in release("first")
    lines = (tmp_path / "first.held-back" / "quarantine.jsonl").read_text().splitlines()
    waiting = [json.loads(line)["example_id"] for line in lines]
    read(capsys, "decide", config, waiting[0], "poison")
    said = release("second")
    left = len(waiting) - 1
    assert f"quarantined: {left} wait for a decision, 1 decided to be poison" in said
    assert f"poisonwatch decide {config}" in said
    for row in waiting[1:]:
        read(capsys, "decide", config, row, "poison")
    assert "wait for a decision" not in release("third")


def test_mutes_are_listed_with_their_state(
    audited: Audited, capsys: pytest.CaptureFixture[str]
) -> None:
    """When it is made, while it holds, and after its end."""
    config = str(audited.config)
    why = ("--until", "3d", "--why", "ours", "--author", "ann")
    (made,) = read(capsys, "mute", config, "panel:shop", *why)
    assert made["replaces"] == []
    (held,) = read(capsys, "mute", config, "--list")
    assert (held["mute"], held["on"], held["active"]) == (made["mute"], "panel:shop", True)
    (unmuted,) = read(capsys, "unmute", config, "panel:shop", "--author", "bob")
    assert (unmuted["mute"], unmuted["unmuted_by"]) == (made["mute"], "bob")
    (ended,) = read(capsys, "mute", config, "--list")
    assert (ended["active"], ended["unmuted_by"]) == (False, "bob")


def test_packs_and_keys_are_told(
    audited: Audited, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every pack; who signs what; the id of a public key."""
    assert [pack["name"] for pack in read(capsys, "packs")] == list_packs()
    (told,) = read(capsys, "keys", "show", str(audited.config))
    assert (told["signs"], told["counts"]) == (None, [])
    assert {record["signed"] for record in told["records"]} == {0}
    (made,) = read(capsys, "keys", "init", str(tmp_path / "keys"))
    (key,) = read(capsys, "keys", "show", made["public"])
    assert key["id"] == made["id"]


def test_users_are_listed_without_their_hashes(
    audited: Audited, capsys: pytest.CaptureFixture[str]
) -> None:
    """Name, role, whether there is a password, since when."""
    config = str(audited.config)
    assert read(capsys, "users", "list", config) == []
    (ann,) = read(capsys, "users", "add", config, "ann", "--role", "viewer", "--no-password")
    assert set(ann) == {"name", "role", "password", "added"}
    assert (ann["name"], ann["role"], ann["password"]) == ("ann", "viewer", False)
    assert read(capsys, "users", "list", config) == [ann]
    (changed,) = read(capsys, "users", "role", config, "ann", "admin")
    assert changed == ann | {"role": "admin"}
    assert read(capsys, "users", "remove", config, "ann") == [changed]
    assert read(capsys, "users", "list", config) == []


def test_what_is_owed_is_told_when_it_is_given(
    audited: Audited, capsys: pytest.CaptureFixture[str]
) -> None:
    """By task, in numbers; a target that takes nothing is named with its problem."""
    config = str(audited.config)
    with audited.config.open("a") as file:
        file.write('alerts: ["json://127.0.0.1:9/"]\n')
    with pytest.raises(SystemExit) as stopped:
        main(["alert-test", config, "--json"])
    assert stopped.value.code == 1
    tried = json.loads(capsys.readouterr().out)
    assert (tried["alert"], tried["kind"], tried["delivered"]) == (1, "json", False)
    assert tried["problem"]
    with pytest.raises(SystemExit):
        main(["sync", config, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {"done", "warnings"}
    assert told["done"]["deliver"] == 0
