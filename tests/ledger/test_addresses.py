"""A ledger's address says which file it is, and nothing of how that is read."""

from collections.abc import Callable
from pathlib import Path

import pytest
from ledgers import sqlite_ledger

from poisonwatch.errors import InputError
from poisonwatch.ledger.addresses import parse_ledger_url
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.read_only import open_to_read, require_one_name
from poisonwatch.ledger.writable import require_writable


def enter_existing(url: str) -> None:
    with Ledger.existing(url):
        pass


def enter_new(url: str) -> None:
    with Ledger.at(url):
        pass


def enter_to_read(url: str) -> None:
    with open_to_read(url):
        pass


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("uri=true&immutable=1", "immutable"),
        ("uri=true&%69mmutable=1", "immutable"),
        ("uri=true&vfs=unix-none", "vfs"),
        ("uri=true&nolock=1", "nolock"),
        ("psow=0&uri=true", "psow"),
        ("mode=ro&uri=true", "mode"),
        ("mode=rw", "mode"),
        ("cache=private%26immutable%3D1&uri=true", "cache"),
        ("detect_types=1", "detect_types"),
        ("plugin=x", "plugin"),
        ("Immutable=1&uri=true", "Immutable"),
    ],
)
@pytest.mark.parametrize(
    "enter", [enter_existing, enter_new, enter_to_read, require_one_name, require_writable]
)
def test_an_option_that_changes_how_the_file_is_read_is_refused_by_name(
    tmp_path: Path, enter: Callable[[str], None], options: str, named: str
) -> None:
    """Whoever opens it: what is decided may lie in the log, which some of them pass over."""
    with sqlite_ledger(tmp_path):
        pass
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=f"the option `{named}`.* leave it out") as refused:
        enter(f"sqlite:///file:{tmp_path / 'ledger.db'}?{options}")
    assert "\n" not in str(refused.value)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///file:/a/b.db", "add that, or leave file: out"),
        ("sqlite:///file:/a/b.db?uri=false", "add that, or leave file: out"),
        ("sqlite:///file:/a/b.db#c?uri=true", "write %23"),
        ("sqlite:///a.db?timeout=3&timeout=4", "more than once"),
        ("sqlite+aiosqlite:///a.db", "write sqlite"),
        ("sqlite+nobody:///a.db", "write sqlite"),
    ],
)
def test_what_names_two_places_or_another_driver_is_refused(url: str, said: str) -> None:
    """The line says what to write."""
    with pytest.raises(InputError, match=said):
        parse_ledger_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:////a/b#c.db?timeout=3",
        "sqlite+pysqlite:///a.db",
        "sqlite:///file:/a/b%23c.db?timeout=3&uri=true",
        "postgresql+psycopg://ann@db/x?sslmode=require",
    ],
)
def test_others_are_taken_as_they_are(url: str) -> None:
    assert parse_ledger_url(url).render_as_string(hide_password=False) == url
