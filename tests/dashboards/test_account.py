"""Who somebody is here, and their password."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doors import (
    FROM_PROXY,
    LOCAL,
    OWN,
    PASSWORD,
    PROXIED,
    SHARED,
    log_in,
    open_browser,
    open_logged_in,
    with_users,
)
from starlette.testclient import TestClient

from poisonwatch.dashboards.access import Access
from poisonwatch.dashboards.door import Door
from poisonwatch.dashboards.guesses import FREE

NEW = "another password, ü"


def change(browser: TestClient, **form: str) -> Any:
    fields = {"old": PASSWORD, "new": NEW, "again": NEW, **form}
    return browser.post("/account/password", data=fields, headers=OWN)


def test_everybody_sees_who_they_are_and_admins_who_else(tmp_path: Path) -> None:
    """Names, roles and logins; never a hash."""
    door = Door(with_users(tmp_path, ann="viewer", bob="reviewer", carl="admin"))
    pages = {name: open_logged_in(door, name=name).get("/account").text for name in ("ann", "carl")}
    assert "<b>viewer</b>, your role" in pages["ann"]
    assert "bob" not in pages["ann"]
    for name in ("ann", "bob", "carl"):
        assert f'<th scope="row"><bdi>{name}</bdi></th>' in pages["carl"]
    assert "argon2" not in str(pages)


@pytest.mark.parametrize(
    ("access", "headers", "words"),
    [
        (LOCAL, {}, "<b>admin</b>, your role"),
        (SHARED, {}, "under a name that nobody checks"),
        (PROXIED, {**FROM_PROXY, "Remote-User": "ann"}, "<b>admin</b>, your role"),
    ],
)
def test_who_has_no_password_of_their_own_cannot_change_it(
    access: Access, headers: dict[str, str], words: str
) -> None:
    """There is no form, and what is posted all the same is refused."""
    browser = open_logged_in(access) if access is SHARED else open_browser(access)
    browser.headers.update(headers)
    shown = browser.get("/account")
    assert shown.status_code == 200
    assert words in shown.text
    assert "/account/password" not in shown.text
    assert change(browser).status_code == 400


def test_people_change_their_own_password(tmp_path: Path) -> None:
    """Their other logins end; the one that changed it goes on."""
    door = Door(with_users(tmp_path, ann="viewer", bob="viewer"))
    ann, elsewhere, bob = (open_logged_in(door, name=name) for name in ("ann", "ann", "bob"))
    assert 'action="/account/password"' in ann.get("/account").text
    changed = change(ann)
    assert (changed.status_code, changed.headers["Location"]) == (303, "/account?changed=1")
    assert "was changed" in ann.get("/account?changed=1").text
    assert [browser.get("/").status_code for browser in (ann, elsewhere, bob)] == [200, 303, 200]
    assert log_in(open_browser(door), name="ann").status_code == 401
    assert log_in(open_browser(door), name="ann", password=NEW).status_code == 303


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"old": "wrong horse"}, "not your password"),
        ({"again": "something else"}, "differ"),
        ({"new": "short", "again": "short"}, "at least 8"),
        ({"new": "x" * 1001, "again": "x" * 1001}, "too long"),
        ({"old": "", "new": "", "again": ""}, "not your password"),
    ],
)
def test_what_cannot_be_a_change_changes_nothing(
    tmp_path: Path, form: dict[str, str], words: str
) -> None:
    """And says why, without a password."""
    access = with_users(tmp_path, ann="viewer")
    assert access.users is not None
    before = access.users.read_bytes()
    refused = change(open_logged_in(access), **form)
    assert (refused.status_code, words in refused.text) == (400, True)
    assert access.users.read_bytes() == before
    assert PASSWORD not in refused.text


def test_guesses_at_the_old_password_are_counted(tmp_path: Path) -> None:
    """Or else a browser that was left open would be a way to learn it."""
    ann = open_logged_in(with_users(tmp_path, ann="viewer"))
    told = [change(ann, old=f"guess {k}").text for k in range(FREE + 2)]
    assert "try again in" in told[-1]
    assert "try again in" not in told[0]


def test_a_read_only_dashboard_changes_no_password(tmp_path: Path) -> None:
    """Nothing is written by it."""
    access = replace(with_users(tmp_path, ann="admin"), read_only=True)
    ann = open_logged_in(access)
    assert "/account/password" not in ann.get("/account").text
    assert change(ann).status_code == 403
