"""${NAME}: in where a place is opened."""

from pathlib import Path

import pytest
from variables import set_variables

from poisonwatch.errors import ConfigError
from poisonwatch.text.environment import (
    expand_home,
    expand_variables,
    fill_variables,
    find_variables,
    open_variables,
)


@pytest.fixture(autouse=True)
def _variables(monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("postgresql://ann:${PW}@${HOST}/x", "postgresql://ann:hunter2@db.example/x"),
        ("${FOLDER}/rows.jsonl", "/data/rows.jsonl"),
        ("postgresql://ann:${ODD}@db/x", "postgresql://ann:p%40ss%2Fw%3Ard%3F@db/x"),
        ("https://${ODD}:${PW}@host/x", "https://p%40ss%2Fw%3Ard%3F:hunter2@host/x"),
        ("https://${ODD}@host/x", "https://p%40ss%2Fw%3Ard%3F@host/x"),
        ("s3://bucket/${ODD}", "s3://bucket/p@ss/w:rd?"),
        ("a${EMPTY}b", "ab"),
        ("$PW and $$ and ${1} and ${}", "$PW and $$ and ${1} and ${}"),
    ],
)
def test_variables_are_filled_in(text: str, expanded: str) -> None:
    """A whole user name or password is quoted, whatever it holds; elsewhere the value stands as it
    is. Only ${NAME} is a variable.
    """
    assert expand_variables(text, "source.path") == expanded


def test_variable_that_is_not_set_is_named_with_its_setting() -> None:
    """What is missing, where it is asked for, what to do."""
    with pytest.raises(
        ConfigError,
        match=r"^source\.sql: the environment variable NOT_SET is not set: set it, or write its value in place",
    ):
        expand_variables("postgresql://ann:${NOT_SET}@db/x", "source.sql")


@pytest.mark.parametrize(
    "setting",
    [
        "postgresql://***@db/x",
        "postgresql://ann:***@db/x",
        "https://host/rows.jsonl?token=***",
        "https://${PW}@host/rows.jsonl?a=1&sig=***",
    ],
)
def test_a_setting_that_lost_its_secret_is_not_opened(setting: str) -> None:
    """A run directory has *** in its place, and whoever replays it is told what to do."""
    with pytest.raises(ConfigError, match=r"^state holds \*\*\* .*: write \$\{NAME\}"):
        open_variables(setting, "state")


def test_a_setting_with_variables_alone_is_opened() -> None:
    """As expand_variables; a pattern of stars in a path is no lost secret."""
    assert open_variables("postgresql://ann:${PW}@db/x", "state") == "postgresql://ann:hunter2@db/x"
    assert open_variables("s3://bucket/***/a.jsonl", "source") == "s3://bucket/***/a.jsonl"
    assert open_variables("data/***.jsonl", "source") == "data/***.jsonl"


def test_values_are_quoted_as_the_place_needs_it() -> None:
    """In SQL a quote is doubled."""
    quoted = expand_variables("x = '${ODD}'", "query", lambda value: value.replace("@", "''"))
    assert quoted == "x = 'p''ss/w:rd?'"
    assert fill_variables("${PW}-${NOT_SET}") == "hunter2-"
    assert find_variables("${PW} and ${ODD} and $PW") == ["PW", "ODD"]


def test_a_home_folder_that_nobody_has_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert expand_home("~/rows.jsonl") == Path("/home/ann/rows.jsonl")
    with pytest.raises(ConfigError, match=r"^~no-such-user/rows\.jsonl: there is no home folder"):
        expand_home("~no-such-user/rows.jsonl")
