"""A file of SQLite is found by its address, whatever its folder is called."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from poisonwatch.text.sqlite_files import (
    find_sqlite_file,
    identify_file,
    is_made,
    place_sqlite_file,
    say_what_is_ambiguous,
)

ODD = ("plain", "with space", "a#b", "50%41", "a?b", "a?b#c %41&d=é[x]")


@pytest.mark.parametrize("name", ODD)
def test_the_address_of_a_file_in_any_folder_leads_there(tmp_path: Path, name: str) -> None:
    """SQLAlchemy opens that file and no other, and it is found again by its address."""
    folder = tmp_path / name
    folder.mkdir()
    address = place_sqlite_file("sqlite:///rows.db", str(folder))
    engine = create_engine(address)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (x)"))
    engine.dispose()
    assert [path.name for path in folder.iterdir()] == ["rows.db"]
    assert find_sqlite_file(make_url(address).database) == folder / "rows.db"


def test_options_of_an_address_are_kept(tmp_path: Path) -> None:
    """Behind those that an odd folder needs."""
    folder = tmp_path / "a?b"
    folder.mkdir()
    sqlite3.connect(folder / "rows.db").close()
    url = make_url(place_sqlite_file("sqlite:///rows.db?timeout=7", str(folder)))
    assert url.query == {"timeout": "7", "uri": "true"}
    assert place_sqlite_file("sqlite:///a.db?timeout=7", "/x") == "sqlite:////x/a.db?timeout=7"
    create_engine(url).connect().close()


@pytest.mark.parametrize("name", ODD)
def test_an_address_in_sqlite_s_own_form_is_placed_too(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    sqlite3.connect(folder / "a b.db").close()
    url = make_url(place_sqlite_file("sqlite:///file:a%20b.db?mode=ro&uri=true", str(folder)))
    assert url.query == {"mode": "ro", "uri": "true"}
    assert find_sqlite_file(url.database) == folder / "a b.db"
    create_engine(url).connect().close()


@pytest.mark.parametrize(
    ("database", "file"),
    [
        (None, None),
        ("", None),
        (":memory:", None),
        ("file::memory:", None),
        ("/a/b.db", "/a/b.db"),
        ("b.db", "b.db"),
        ("file:/a%3Fb/c.db", "/a?b/c.db"),
        ("file:/a/c.db?uri=true", "/a/c.db"),
        ("file:///a/c.db", "/a/c.db"),
        ("file://localhost/a/c.db", "/a/c.db"),
        ("file:c.db", "c.db"),
        ("file:/a/%FF.db", "/a/\udcff.db"),
    ],
)
def test_the_file_of_an_address_is_that_of_sqlite(database: str | None, file: str | None) -> None:
    """Its own form, too; in memory there is none."""
    assert find_sqlite_file(database) == (None if file is None else Path(file))


def test_a_plain_name_is_quoted_where_its_folder_needs_sqlite_s_own_form(tmp_path: Path) -> None:
    """Neither ends in another file; what the environment holds is put in later."""
    folder = tmp_path / "a?b"
    folder.mkdir()
    address = place_sqlite_file("sqlite:///50%41#c.db", str(folder))
    create_engine(address).connect().close()
    assert find_sqlite_file(make_url(address).database) == folder / "50%41#c.db"
    assert place_sqlite_file("sqlite:///${NAME}.db", "/a?").startswith(
        "sqlite:///file:/a%3F/${NAME}"
    )


@pytest.mark.parametrize(
    ("database", "is_uri", "said"),
    [
        ("file:/a/b.db", False, "?uri=true"),
        ("file:/a/b.db#c", True, "%23"),
        ("file:/a/b.db%23c", True, ""),
        ("/a/b.db#c", False, ""),
        ("/a/b.db#c", True, ""),
        (None, True, ""),
    ],
)
def test_an_address_by_which_sqlite_opens_another_file_is_known(
    database: str | None, is_uri: bool, said: str
) -> None:
    """Without `uri=true` file: is a folder's name, and with it # ends the path."""
    found = say_what_is_ambiguous(database, is_uri)
    assert said in found
    assert bool(said) == bool(found)


def test_what_cannot_be_looked_at_is_left_to_who_opens_it(tmp_path: Path) -> None:
    assert is_made(tmp_path / ("x" * 300))
    assert not is_made(tmp_path / "none.db")


def test_two_files_of_one_name_differ(tmp_path: Path) -> None:
    """So does one that is gone."""
    file, other = tmp_path / "a.db", tmp_path / "b.db"
    none = identify_file(file)
    file.touch()
    other.touch()
    first = identify_file(file)
    assert first == identify_file(file) != none
    other.rename(file)
    assert identify_file(file) not in (first, none)
