"""What is known to be a secret, taken out of whatever anybody says."""

import base64
import html
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from variables import set_variables

from poisonwatch.text.display import make_visible
from poisonwatch.text.redaction import LONGEST_TEXT
from poisonwatch.text.secrets import Secrets, conceal

HARD = "/:@#?&=%+ '\"\\;,.-_~$!*()[]{}|<>^`äß漢🙂\u2028\t"
SECRETS = st.text(st.sampled_from("abcXYZ0123456789" + HARD), max_size=30).map(
    lambda text: f"Zq7{text}9xW"
)


@pytest.fixture(autouse=True)
def _variables(monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch)
    monkeypatch.setenv("HF_TOKEN", "hf_short")


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
        ("https://ann:other@host/x", None, "https://host/x"),
        (
            'no host called "word"',
            "postgresql://ann:pass@word@db/x",
            'no host called "***"',
        ),
        ("hunter2secret", "mssql:///?odbc_connect=PWD%3Dhunter2secret%3B", "***"),
        ("hf_short is refused", None, "${HF_TOKEN} is refused"),
        ("it cannot be: ann, an", "https://ann@host/x", "it cannot be: ***, an"),
        ("nothing to hide", "rows.jsonl", "nothing to hide"),
        ("nothing to hide", "a${EMPTY}b${NOT_SET}", "nothing to hide"),
        ("page 2 of rows.jsonl", "https://host/x?file=rows.jsonl&page=2", "page 2 of rows.jsonl"),
    ],
)
def test_what_is_said_holds_no_value_of_the_environment_and_no_secret(
    text: str, setting: str | None, shown: str
) -> None:
    """Values become ${NAME} again, passwords and tokens that are written out become ***, quoted or
    not.
    """
    assert conceal(text, setting) == shown


def test_a_setting_is_shown_as_the_place_that_it_is() -> None:
    """Also where a password holds a space, which ends an address in any other text."""
    for setting in ("postgresql://ann:pa ss/w@db/x", "postgresql://ann:12 4@db/x"):
        assert conceal(f"{setting} is gone", setting) == "postgresql://db/x is gone"


@given(SECRETS)
def test_every_way_to_write_a_secret_is_known(secret: str) -> None:
    """Raw, quoted for URLs, for Python, JSON and HTML, made visible, on one line, and as HTTP sends
    it.
    """
    secrets = Secrets([f"postgresql://ann:{quote(secret, safe='')}@db/x"])
    sent = base64.b64encode(f"ann:{secret}".encode()).decode()
    for written in (
        secret,
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        quote(secret, safe="").lower() if "%" in quote(secret) else secret,
        repr(secret)[1:-1],
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        html.escape(secret),
        make_visible(secret),
        " ".join(secret.split()),
        sent,
    ):
        if written != written.lower():
            assert written not in secrets.conceal_known(f"it said {written} and ended")


@given(SECRETS)
@example("Zq7://9xW")
def test_no_secret_of_a_message_s_address_is_said(secret: str) -> None:
    """A token may stand anywhere in it."""
    quoted = quote(secret, safe="")
    for address in (
        f"slack://{quoted}/b/c",
        f"tgram://123456789:{quoted}/456",
        f"discord://123/{quoted}",
        f"json://ann:{quoted}@127.0.0.1:9/path",
        f"json://127.0.0.1:9/x?+X-Token={quoted}",
        f"mailto://ann:{quoted}@example.org",
        f"https://hooks.slack.com/services/T1/{quoted}",
        secret,
    ):
        secrets = Secrets(messages=[address])
        said = secrets.conceal_known(f"{address} and {secret} and {quoted}")
        assert secret not in said
        assert quoted not in said


@given(SECRETS)
def test_no_text_of_a_query_is_said(secret: str) -> None:
    """As a database's error quotes the statement."""
    quoted = secret.replace("'", "''")
    said = Secrets(queries=[f"SELECT * FROM f('{quoted}')"]).conceal_known(
        f"LINE 1: SELECT * FROM f('{quoted}') and {secret}"
    )
    assert secret not in said
    assert quoted not in said


@given(SECRETS, st.integers(0, 60))
def test_a_secret_that_a_cut_goes_through_is_taken_out_whole(secret: str, before: int) -> None:
    """No beginning of it is left at the end."""
    secrets = Secrets([f"postgresql://ann:{quote(secret, safe='')}@db/x"])
    said = secrets.conceal("- " * ((LONGEST_TEXT - before) // 2) + secret + " more " * 9000)
    assert "Zq7" not in said
    assert len(said) <= LONGEST_TEXT + 100


def test_an_error_is_concealed_before_its_first_line_is_taken() -> None:
    """A secret with the end of a line in it would be cut in two."""
    password = quote("first\u2028second", safe="")
    secrets = Secrets([f"postgresql://ann:{password}@db/x"])
    assert secrets.conceal_error(ValueError("no first\u2028second here\nmore")) == "no *** here"
    assert secrets.conceal_error(ValueError()) == "ValueError"
