"""`poisonwatch assign` and `comment`, as people type them."""

import json
from pathlib import Path

import pytest
from muting import write_two_groups

from poisonwatch.dashboards.users import change_users, make_user
from poisonwatch.flows.cli.app import main
from poisonwatch.ledger.group_teams import load_teams
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.queue import list_group_rows


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(ended.value.code or 0)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Two flagged groups."""
    return write_two_groups(tmp_path)


def test_a_group_is_assigned_given_back_and_commented_on(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its number, its address, or a row in it; what is said is shown as text."""
    file = str(config)
    assert run("assign", file, "2", "ann \x1b[31m", "--author", "bob") == 0
    said = capsys.readouterr().out
    assert "one/2: " in said
    assert "\x1b" not in said
    with Ledger.existing(f"sqlite:///{config.parent / 'ledger.db'}") as ledger:
        row = list_group_rows(ledger, "one", "2")[0].example_id
        assert load_teams(ledger, [("one", "2")])["one", "2"].assignees == ("ann \x1b[31m",)
        assert run("assign", file, row[:12], "--nobody") == 0
        assert load_teams(ledger, [("one", "2")])["one", "2"].assignees == ()
        capsys.readouterr()
        assert run("comment", file, "one/2", "from the vendor", "--author", "eve", "--json") == 0
        told = json.loads(capsys.readouterr().out)
        (comment,) = load_teams(ledger, [("one", "2")])["one", "2"].comments
    assert (told["group"], told["text"], told["author"]) == ("one/2", "from the vendor", "eve")
    assert (comment.text, comment.author) == ("from the vendor", "eve")


@pytest.mark.parametrize(
    "words",
    [
        ("assign", "9", "ann"),
        ("assign", "1"),
        ("assign", "1", "ann", "--nobody"),
        ("assign", "panel:shop", "ann"),
        ("assign", "1", "n" * 101),
        ("comment", "1", " "),
        ("comment", "one/9", "text"),
    ],
)
def test_what_cannot_be_is_one_line(
    config: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    """And records nothing."""
    command, *others = words
    assert run(command, str(config), *others) == 2
    said = capsys.readouterr().err
    assert said.startswith("poisonwatch: ")
    assert said.count("\n") == 1


def test_where_there_are_users_one_of_them_who_may_decide_is_named(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the letters of the account."""
    with change_users(config.parent / ".poisonwatch-users.json") as users:
        users["ann"] = make_user("Ann", "reviewer", None)
        users["vera"] = make_user("vera", "viewer", None)
    assert run("assign", str(config), "1", "ann", "--json") == 0
    assert json.loads(capsys.readouterr().out)["assignee"] == "Ann"
    assert run("assign", str(config), "1", "vera") == 2
    assert "no user who may decide" in capsys.readouterr().err
