"""Logins and their cookies."""

from http.cookies import SimpleCookie

import pytest
from doors import OWN, PASSWORD, SHARED, log_in, open_browser, open_logged_in
from starlette.testclient import TestClient

from poisonwatch.dashboards.door import PROOF_LASTS
from poisonwatch.dashboards.sessions import LOGIN_LASTS, MOST_LOGINS, Logins


def find_login(browser: TestClient) -> dict[str, str]:
    """The cookie of the login, by its name."""
    return {cookie.name: cookie.value or "" for cookie in browser.cookies.jar if cookie.path == "/"}


@pytest.mark.parametrize(
    ("address", "origin", "secure"),
    [
        ("http://localhost:8600", "http://localhost:8600", False),
        ("https://localhost:8600", "https://localhost:8600", True),
        ("https://localhost:8600", "", True),
        ("http://localhost:8600", "https://localhost:8600", True),  # a proxy ended the encryption
    ],
)
def test_no_script_nor_other_site_gets_the_login_s_cookie(
    address: str, origin: str, secure: bool
) -> None:
    """HttpOnly, SameSite=strict, 12 hours; Secure where the browser came by https."""
    answer = open_browser(SHARED, address=address).post(
        "/login", data={"name": "Ann", "password": PASSWORD}, headers={**OWN, "Origin": origin}
    )
    given = answer.headers.get_list("Set-Cookie")
    # the login, and the proof that this browser was let in once
    assert len(given) == 2
    assert PASSWORD not in str(given)
    lasts = set()
    for header in given:
        (cookie,) = SimpleCookie(header).values()
        assert cookie["httponly"] is True
        assert cookie["samesite"] == "strict"
        assert bool(cookie["secure"]) is secure
        assert cookie["domain"] == ""
        lasts.add((cookie["path"], cookie["max-age"]))
    assert lasts == {("/", str(LOGIN_LASTS)), ("/login", str(PROOF_LASTS))}
    assert LOGIN_LASTS == 43200


def test_logging_out_clears_the_cookie() -> None:
    """The next page is the login."""
    browser = open_logged_in()
    assert find_login(browser)
    assert 'action="/logout"' in browser.get("/who").text
    assert browser.post("/logout").status_code == 403
    assert browser.post("/logout", headers=OWN).headers["Location"] == "/"
    assert not find_login(browser)
    assert browser.get("/").headers["Location"] == "/login?next=%2F"


def test_a_cookie_that_was_copied_ends_with_its_login() -> None:
    """Another login of the same person goes on."""
    browser = open_logged_in()
    other = TestClient(browser.app, base_url="http://localhost:8600", follow_redirects=False)
    assert log_in(other).status_code == 303
    copied = find_login(browser)
    browser.post("/logout", headers=OWN)
    browser.cookies.update(copied)
    assert browser.get("/").status_code == 303
    assert other.get("/").status_code == 200


def test_logging_in_again_ends_the_login_before() -> None:
    """One browser, one login."""
    browser = open_logged_in()
    first = find_login(browser)
    assert log_in(browser).status_code == 303
    assert browser.get("/").status_code == 200
    browser.cookies.clear()
    browser.cookies.update(first)
    assert browser.get("/").status_code == 303


def test_a_cookie_opens_only_the_dashboard_that_gave_it() -> None:
    """Each process has a secret of its own, so a restart ends all logins; a changed cookie is none."""
    (value,) = find_login(open_logged_in()).values()
    other = open_logged_in(name="Bob")
    ((name, own),) = find_login(other).items()
    other.cookies.clear()
    for forged in (value, own[:-2] + "xx", "e30=.x.y", "null", ""):
        assert other.get("/", headers={"Cookie": f"{name}={forged}"}).status_code == 303
    shown = other.get("/", headers={"Cookie": f"{name}={own}"}).json()
    assert shown["user"] == "Bob (unverified)"


def test_a_login_ends_by_itself() -> None:
    """After twelve hours, however often it was used, and whatever the cookie's own date."""
    now = 0.0
    logins = Logins(lambda: now)
    key = logins.begin("ann", "reviewer")
    now = LOGIN_LASTS - 1.0
    assert logins.find(key) is not None
    assert logins.count_by_name() == {"ann": 1}
    now = LOGIN_LASTS + 0.0
    assert logins.find(key) is None
    assert logins.count_by_name() == {}


def test_logins_do_not_fill_the_memory() -> None:
    """The latest are kept."""
    logins = Logins()
    keys = [logins.begin(f"user {k}", "viewer") for k in range(MOST_LOGINS + 5)]
    assert [logins.find(key) is None for key in keys[:6]] == [True] * 5 + [False]
    assert logins.find(keys[-1]) is not None


def test_nobody_s_cookie_is_nobody_s_login() -> None:
    """Neither an empty one, nor none."""
    logins = Logins()
    logins.begin("ann", "admin")
    assert logins.find(None) is None
    assert logins.find("") is None
    logins.end(None)
    assert logins.count_by_name() == {"ann": 1}
