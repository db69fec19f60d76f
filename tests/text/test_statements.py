"""SQL without its texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.text.statements import hide_literals


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("SELECT a, b FROM rows WHERE n > 5", "SELECT a, b FROM rows WHERE n > 5"),
        ("SELECT * FROM f('hunter2', 3)", "SELECT * FROM f('***', 3)"),
        ("WHERE a = 'it''s' AND b = ''", "WHERE a = '***' AND b = ''"),
        ("WHERE a = '${KEY}' AND b = 'x${KEY}'", "WHERE a = '${KEY}' AND b = '***'"),
        ('SELECT "the prompt", `b` FROM x', 'SELECT "the prompt", `b` FROM x'),
        ("SELECT 1 -- hunter2\nFROM x", "SELECT 1 --***\nFROM x"),
        ("SELECT 1 /* hunter2 ' */ FROM x", "SELECT 1 /*****/ FROM x"),
        ("SELECT $$hunter2$$, $a$it's$a$", "SELECT $$***$$, $a$***$a$"),
        (r"WHERE a = 'b\' OR c = 'hunter2'", "WHERE a = '***"),
        ("WHERE a = 'never closed", "WHERE a = '***"),
    ],
)
def test_texts_and_comments_are_hidden_and_names_are_not(query: str, shown: str) -> None:
    """Each may hold a password. A backslash before a quote is an escape to some databases and none
    to others: from there on all is hidden.
    """
    assert hide_literals(query) == shown


@given(st.text(min_size=1).map(lambda text: f"Zq7{text}9xW"))
def test_no_text_is_shown_whatever_it_holds(secret: str) -> None:
    """Quoted as SQL asks for it, by doubling."""
    quoted = secret.replace("'", "''")
    shown = hide_literals(f"SELECT a FROM f('{quoted}') WHERE b = 1")
    assert secret not in shown
    assert quoted not in shown
