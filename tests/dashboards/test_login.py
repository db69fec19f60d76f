"""The login page, with one password for all."""

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest
from doors import HERE, OWN, PASSWORD, ROW, SHARED, log_in, open_browser, open_logged_in

from poisonwatch.dashboards.access import Access
from poisonwatch.dashboards.door import Door
from poisonwatch.dashboards.guesses import FREE, LONGEST


def test_a_read_only_dashboard_has_a_login() -> None:
    """One comes in and leaves, and decides nothing."""
    browser = open_logged_in(Access(user="root", password=PASSWORD, read_only=True))
    assert browser.get("/").json()["user"] == "Ann (unverified)"
    assert browser.post("/triage/decide", headers=OWN).status_code == 403
    assert browser.post("/logout", headers=OWN).status_code == 303
    assert browser.get("/").status_code == 303


def test_the_login_page_and_static_files_are_open_and_tell_nothing() -> None:
    """No pages to go to, no user, no row."""
    browser = open_browser(SHARED)
    shown = browser.get("/login")
    assert shown.status_code == 200
    assert 'name="password"' in shown.text
    assert "/triage" not in shown.text
    assert "root" not in shown.text
    assert ROW not in shown.text
    assert browser.get("/static/style.css").text == "body {}"
    assert browser.get("/static/%2e%2e/rows").status_code == 404


def test_login_leads_back_to_where_one_wanted_to_go() -> None:
    """Path and query both."""
    browser = open_browser(SHARED)
    sent = browser.get("/rows?panel=a%26b&page=2")
    assert sent.headers["Location"] == "/login?next=%2Frows%3Fpanel%3Da%2526b%26page%3D2"
    assert (
        'name="next" value="/rows?panel=a%26b&amp;page=2"'
        in browser.get(sent.headers["Location"]).text
    )
    came = log_in(browser, next="/rows?panel=a%26b&page=2")
    assert (came.status_code, came.headers["Location"]) == (303, "/rows?panel=a%26b&page=2")
    assert browser.get(came.headers["Location"]).json() == {
        "rows": ROW,
        "user": "Ann (unverified)",
        "role": "admin",
        "read_only": False,
        "may_leave": True,
    }
    assert browser.get("/login?next=/rows").headers["Location"] == "/rows"
    browser.cookies.clear()
    assert browser.get("/rows%3Fa%23b").headers["Location"] == "/login?next=%2Frows%253Fa%2523b"


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "https://evil.example",
        "evil.example",
        "javascript:alert(1)",
        "/\t/evil.example",
        "\n//evil.example",
        " /",
        "",
    ],
)
def test_login_never_leads_to_another_site(path: str) -> None:
    """Neither by the form, nor where one is logged in already."""
    browser = open_browser(SHARED)
    assert 'name="next" value="/"' in browser.get("/login", params={"next": path}).text
    assert log_in(browser, next=path).headers["Location"] == "/"
    assert browser.get("/login", params={"next": path}).headers["Location"] == "/"


def test_a_path_that_looks_like_another_host_is_not_gone_back_to() -> None:
    """//evil.example is a path of the dashboard to the server, and another host to the browser."""
    assert (
        open_browser(SHARED).get("http://localhost:8600//evil.example/x").headers["Location"]
        == "/login?next=%2F"
    )


def test_a_link_on_another_site_needs_no_second_login() -> None:
    """Such a link brings no cookie; the login page then has the same link."""
    browser = open_browser(SHARED)
    assert (
        '<a href="/rows?page=2">'
        in browser.get("/login?next=/rows?page=2", headers={"Sec-Fetch-Site": "cross-site"}).text
    )
    assert '<a href="/rows' not in browser.get("/login?next=/rows", headers=OWN).text


def test_wrong_passwords_are_answered_with_the_form() -> None:
    """The name and the way back stay in it, the password does not."""
    browser = open_browser(SHARED)
    answer = log_in(browser, name="<i>Ann\x1b", password="correct horse u", next="/rows?page=2")
    assert answer.status_code == 401
    assert "That is not the password." in answer.text
    assert 'value="/rows?page=2"' in answer.text
    assert 'value="&lt;i&gt;Ann\\u{1b}"' in answer.text
    assert "correct horse" not in answer.text
    assert "set-cookie" not in answer.headers
    assert browser.get("/").status_code == 303


def test_a_login_without_password_is_wrong() -> None:
    """A form of another kind, too; and a password that the environment gave as bytes that are no
    UTF-8 fits nothing.
    """
    odd = Access(user="root", password="correct horse \udcfc")
    answer = open_browser(odd).post(
        "/login", json={"name": "Ann", "password": PASSWORD}, headers=OWN
    )
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("name", ["", "  \n ", "x" * 61, "\x1b" * 20])
def test_a_name_has_1_to_60_visible_characters(name: str) -> None:
    """It stands beside every decision; an escape counts with the length it is shown at."""
    browser = open_browser(SHARED)
    answer = log_in(browser, name=name)
    assert answer.status_code == 400
    assert "1 to 60 characters" in answer.text
    assert browser.get("/").status_code == 303


@pytest.mark.parametrize(
    ("name", "user", "shown"),
    [
        ("  Ann \n Lee ", "Ann Lee", "<bdi>Ann Lee"),
        ("Zoë 李", "Zoë 李", "<bdi>Zoë 李"),
        (
            "<script>alert(1)</script>",
            "<script>alert(1)</script>",
            "<bdi>&lt;script&gt;alert(1)&lt;/script&gt;",
        ),
        (
            "a\x1b[2J\u202eb\x00",
            "a\\u{1b}[2J\\u{202e}b\\u{0}",
            "<bdi>a\\u{1b}[2J\\u{202e}b\\u{0}",
        ),
        ('"><b>', '"><b>', "<bdi>&#34;&gt;&lt;b&gt;"),
    ],
)
def test_hostile_names_are_shown_as_text(name: str, user: str, shown: str) -> None:
    """Invisible characters are written out before the name is kept, tags are escaped where it is
    shown.
    """
    browser = open_logged_in(name=name)
    assert browser.get("/").json()["user"] == f"{user} (unverified)"
    assert f"{shown} (unverified)</bdi>" in browser.get("/who").text


@pytest.mark.parametrize(
    "form",
    [
        {"files": {"name": b"x"}},
        {"data": {"name": "x" * 5000}},
        {"data": {str(i): "" for i in range(9)}},
    ],
)
def test_a_stranger_s_form_is_read_to_a_small_end_only(form: dict[str, Any]) -> None:
    """Before the login nobody may fill memory or disk."""
    assert open_browser(SHARED).post("/login", headers=OWN, **form).status_code == 400


def ask_from(app: Any, address: str, password: str, **headers: str) -> int:
    """The status of a login from an address."""

    async def ask() -> int:
        transport = httpx.ASGITransport(app, client=(address, 1))
        async with httpx.AsyncClient(
            transport=transport, base_url=HERE, headers={**OWN, **headers}
        ) as client:
            form = {"name": "Eve", "password": password, "next": "/"}
            return (await client.post("/login", data=form)).status_code

    return asyncio.run(ask())


def test_many_wrong_passwords_are_told_to_wait() -> None:
    """Those of one address; the right one from another is let in."""
    app = open_browser(SHARED).app
    told = [ask_from(app, "10.0.0.6", f"guess {k}") for k in range(FREE + 3)]
    assert told == [401] * (FREE + 1) + [429] * 2
    assert ask_from(app, "10.0.0.6", PASSWORD) == 429
    assert ask_from(app, "10.0.0.7", PASSWORD) == 303


def test_who_must_wait_is_told_how_long() -> None:
    """In words, and as a header."""
    browser = open_browser(SHARED)
    while (answer := log_in(browser, password="wrong horse")).status_code == 401:
        pass
    assert answer.status_code == 429
    seconds = int(answer.headers["Retry-After"])
    assert 1 <= seconds <= LONGEST
    assert f"try again in {seconds} s" in answer.text


def test_a_browser_that_was_let_in_before_is_not_held_up_by_others() -> None:
    """Not even by guesses from its own address, as behind one proxy all have."""
    door = Door(SHARED)
    known = open_logged_in(door)
    known.post("/logout", headers=OWN)
    stranger = open_browser(door)
    while log_in(stranger, password="wrong horse").status_code == 401:
        pass
    assert log_in(stranger).status_code == 429
    assert log_in(known).status_code == 303


@pytest.mark.parametrize("forged", ["x.y", "", ".", "e30.e30"])
def test_no_browser_makes_itself_a_proof_that_it_was_let_in(forged: str) -> None:
    """It is signed with a secret of the dashboard."""
    door = Door(SHARED)
    known = open_logged_in(door)
    (name,) = [cookie.name for cookie in known.cookies.jar if "known" in cookie.name]
    stranger = open_browser(door)
    stranger.cookies.set(name, forged, path="/login")
    while log_in(stranger, password="wrong horse").status_code == 401:
        pass
    assert log_in(stranger).status_code == 429


@pytest.mark.parametrize(
    ("trusted", "counted_apart"), [((), False), (("10.9.0.1",), True), (("10.8.0.1",), False)]
)
def test_the_forwarded_address_counts_from_trusted_proxies_alone(
    trusted: tuple[str, ...], counted_apart: bool
) -> None:
    """Else whoever guesses would come from another address each time."""
    app = open_browser(replace(SHARED, proxies=trusted)).app
    statuses = [
        ask_from(app, "10.9.0.1", "wrong horse", **{"X-Forwarded-For": f"192.0.2.{k}"})
        for k in range(FREE + 3)
    ]
    assert (429 not in statuses) is counted_apart
