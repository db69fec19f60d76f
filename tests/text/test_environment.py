"""${NAME}: in where a place is opened, out of whatever is said about it."""

import pytest

from poisonwatch.errors import ConfigError
from poisonwatch.text.environment import conceal, expand_variables


@pytest.fixture(autouse=True)
def _variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PW": "hunter2",
        "ODD": "p@ss/w:rd?",
        "FOLDER": "/data",
        "HOST": "db.example",
        "EMPTY": "",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NOT_SET", raising=False)


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
    ("text", "setting", "shown"),
    [
        ("no route to db.example", "postgresql://ann:${PW}@${HOST}/x", "no route to ${HOST}"),
        ("password hunter2 is wrong", "postgresql://ann:${PW}@db/x", "password ${PW} is wrong"),
        ("p%40ss%2Fw%3Ard%3F or p@ss/w:rd?", "postgresql://ann:${ODD}@db/x", "${ODD} or ${ODD}"),
        ("/data/a.jsonl is not there", "${FOLDER}/a.jsonl", "${FOLDER}/a.jsonl is not there"),
        (
            "user ann, password pw%21 or pw!",
            "postgresql://ann:pw%21@db/x",
            "user ann, password *** or ***",
        ),
        ("got 401 for token abcdef", "https://host/x?token=abcdef", "got 401 for token ***"),
        ("https://ann:other@host/x", None, "https://ann:***@host/x"),
        ("nothing to hide", "rows.jsonl", "nothing to hide"),
        ("nothing to hide", "a${EMPTY}b${NOT_SET}", "nothing to hide"),
    ],
)
def test_what_is_said_holds_no_value_of_the_environment_and_no_secret(
    text: str, setting: str | None, shown: str
) -> None:
    """Values become ${NAME} again, passwords and tokens that are written out become ***, quoted or
    not.
    """
    assert conceal(text, setting) == shown
