"""The link by which whoever started the dashboard comes in."""

import pytest
from doors import LOCAL, OWN, ROW, log_in, make_pages, open_browser
from starlette.testclient import TestClient

from poisonwatch.dashboards.door import Door
from poisonwatch.dashboards.entrance import Entrance


def open_stranger(door: Door) -> TestClient:
    """A browser that has not opened the link."""
    return TestClient(
        make_pages(door),
        base_url="http://localhost:8600",
        client=("127.0.0.1", 50000),
        follow_redirects=False,
    )


def test_the_link_lets_in_who_started_the_dashboard() -> None:
    """In their name, and to the page that was asked for, without the token."""
    announced: list[str] = []
    door = Door(LOCAL, announced.append)
    browser = open_stranger(door)
    came = browser.get("/rows", params={"panel": "a&b", "token": door.entrance.token, "page": "2"})
    assert (came.status_code, came.headers["Location"]) == (303, "/rows?panel=a%26b&page=2")
    assert browser.get(came.headers["Location"]).json() == {
        "rows": ROW,
        "user": "ann",
        "role": "admin",
        "read_only": False,
        "may_leave": True,
    }
    assert browser.post("/triage/decide", headers=OWN).text == "decided by ann"
    assert announced == [door.entrance.token]


def test_the_link_works_once() -> None:
    """Whoever finds it later, in a history or a log, stays out; a new one was announced."""
    door = Door(LOCAL)
    first = door.entrance.token
    assert open_stranger(door).get("/", params={"token": first}).headers["Location"] == "/"
    late = open_stranger(door)
    assert late.get("/", params={"token": first}).headers["Location"] == "/login?next=%2F"
    assert late.get("/").status_code == 303
    assert late.get("/", params={"token": door.entrance.token}).headers["Location"] == "/"
    assert late.get("/").json()["rows"] == ROW


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT"])
def test_other_users_of_the_machine_see_and_decide_nothing(method: str) -> None:
    """A dashboard of this machine alone is reached by all who work on it."""
    browser = open_stranger(Door(LOCAL))
    for path in ("/", "/rows", "/triage/decide", "/?token=", "/?token=x", "/rows?token=é"):
        answer = browser.request(method, path, headers=OWN)
        assert answer.status_code == (303 if method in ("GET", "HEAD") else 401)
        assert ROW not in answer.text
        assert "set-cookie" not in answer.headers


def test_a_link_that_is_looked_at_is_not_used_up() -> None:
    """As programs do that look where links lead."""
    door = Door(LOCAL)
    stranger = open_stranger(door)
    stranger.head("/", params={"token": door.entrance.token})
    assert stranger.get("/", params={"token": door.entrance.token}).headers["Location"] == "/"


def test_who_is_in_leaves_the_token_to_others() -> None:
    """The same link again leads to the page, and the token stays as it is."""
    door = Door(LOCAL)
    browser = open_browser(door)
    token = door.entrance.token
    again = browser.get("/rows", params={"token": token})
    assert (again.status_code, again.headers["Location"]) == (303, "/rows")
    assert door.entrance.token == token


def test_the_token_can_be_typed() -> None:
    """A link of an alert leads to the login page, which says how to get in, and back."""
    door = Door(LOCAL)
    browser = open_stranger(door)
    shown = browser.get(browser.get("/rows?page=2").headers["Location"])
    assert "poisonwatch dashboard" in shown.text
    assert 'name="token"' in shown.text
    assert 'name="name"' not in shown.text
    assert door.entrance.token not in shown.text
    wrong = browser.post("/login", data={"token": "x", "next": "/rows?page=2"}, headers=OWN)
    assert wrong.status_code == 401
    right = browser.post(
        "/login", data={"token": f" {door.entrance.token}\n", "next": "/rows?page=2"}, headers=OWN
    )
    assert (right.status_code, right.headers["Location"]) == (303, "/rows?page=2")
    assert browser.get("/rows").status_code == 200


def test_names_and_passwords_let_nobody_in_where_none_are_asked() -> None:
    """Whatever the form says."""
    browser = open_stranger(Door(LOCAL))
    assert log_in(browser, name="eve").status_code == 401
    assert browser.get("/").status_code == 303


def test_leaving_ends_the_login() -> None:
    """The next link is in the terminal."""
    browser = open_browser(LOCAL)
    assert browser.post("/logout", headers=OWN).status_code == 303
    assert browser.get("/").headers["Location"] == "/login?next=%2F"


def test_of_two_browsers_with_one_link_one_comes_in() -> None:
    """At the very same moment, too."""
    entrance = Entrance()
    token = entrance.token
    assert [entrance.take(token) for _ in range(2)] == [True, False]
    assert len(token) >= 32
