"""What stands before every page: names, forms, policies, and who is not let in."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from doors import LOCAL, OWN, PROXIED, ROW, SHARED, open_browser, open_logged_in, with_users
from starlette.applications import Starlette
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from poisonwatch.dashboards.access import Access
from poisonwatch.dashboards.door import Door
from poisonwatch.dashboards.gatekeeper import POLICY, SECURITY_HEADERS, build_middleware
from poisonwatch.dashboards.roles import Role

PAGES = [
    "/",
    "/rows?page=2",
    "/who",
    "/report",
    "/broken",
    "/triage/decide",
    "/explain",
    "/account",
    "/release/files.zip",
    "/nowhere",
    "/?token=x",
]
ALMOST_OPEN = [
    "/static",
    "/login/",
    "/LOGIN",
    "/login%2F",
    "/login%00",
    "/login/openid/x",
    "/login/openidx",
    "/%2e/login",
    "http://localhost:8600//login",
    "http://localhost:8600//static/x",
]


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8600", "127.0.0.1:1", "[::1]", "[::1]:8600", "audits.example.org"],
)
def test_the_dashboard_answers_to_its_names_on_any_port(host: str) -> None:
    """The port is what the browser was told; it proves nothing."""
    access = Access(user="ann", hosts=(*LOCAL.hosts, "Audits.example.org"))
    assert open_browser(access).get("/", headers={"Host": host}).json()["user"] == "ann"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8600",
        "localhost.evil.example",
        "::1",
        "localhost@evil.example",
        "localhost:x",
        "",
        "localhost.",
    ],
)
@pytest.mark.parametrize("path", ["/", "/login", "/static/style.css"])
def test_a_name_that_a_stranger_points_here_gets_nothing(host: str, path: str) -> None:
    """A web page whose name is made to lead to 127.0.0.1 counts as the same origin there: only the
    Host header tells.
    """
    answer = open_browser(LOCAL).get(path, headers={"Host": host})
    assert answer.status_code == 421
    assert "--allow-host" in answer.text
    assert answer.text.count("\n") == 1


@pytest.mark.parametrize(
    ("path", "status"),
    [("/", 200), ("/nowhere", 404), ("/triage/decide", 405), ("/broken", 500), ("/login", 303)],
)
def test_every_answer_carries_the_policy(path: str, status: int) -> None:
    """Errors, too; and no browser or proxy keeps a copy."""
    answer = open_browser(LOCAL, raise_server_exceptions=False).get(path)
    assert answer.status_code == status
    assert answer.headers["Content-Security-Policy"] == POLICY
    assert answer.headers["Cache-Control"] == "no-store"
    assert {name: answer.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS


def test_refusals_carry_the_policy() -> None:
    """A name that is not its own, a form from elsewhere, nobody logged in."""
    browser = open_browser(SHARED)
    refusals = [
        browser.get("/", headers={"Host": "evil"}),
        browser.post("/triage/decide"),
        browser.post("/triage/decide", headers=OWN),
        browser.get("/login"),
    ]
    assert [answer.status_code for answer in refusals] == [421, 403, 401, 200]
    always = {**SECURITY_HEADERS, "Content-Security-Policy": POLICY, "Cache-Control": "no-store"}
    assert all(
        answer.headers[name] == value for answer in refusals for name, value in always.items()
    )


def test_a_page_may_have_a_policy_of_its_own_but_is_never_kept() -> None:
    """The report brings its pictures and styles inside; files under /static/ hold no rows and may
    be kept.
    """
    browser = open_browser(LOCAL)
    answer = browser.get("/report")
    assert answer.headers.get_list("Content-Security-Policy") == [
        "default-src 'none'; img-src data:"
    ]
    assert answer.headers.get_list("Cache-Control") == ["no-store"]
    assert browser.get("/static/style.css").headers["Cache-Control"] == "max-age=60"


def test_what_went_wrong_is_told_to_the_log_only() -> None:
    """The server gets the error, the browser a line."""
    assert ROW not in open_browser(LOCAL, raise_server_exceptions=False).get("/broken").text
    with pytest.raises(RuntimeError, match=ROW):
        open_browser(LOCAL).get("/broken")


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "null"},
        {"Origin": "http://localhost:8600"},
        {"Origin": "https://LOCALHOST:8600"},
        {"Origin": "https://audits.example.org", "Host": "audits.example.org"},
    ],
)
def test_forms_of_the_dashboard_s_own_pages_are_taken(headers: dict[str, str]) -> None:
    """Also where a proxy ends the encryption: host and port are what count."""
    browser = open_browser(Access(user="ann", hosts=("localhost", "audits.example.org")))
    assert browser.post("/triage/decide", headers=headers).text == "decided by ann"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Referer": "http://localhost:8600/"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost:8600"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:8600"},
        {"Sec-Fetch-Site": "none", "Origin": "http://localhost:8600"},
        {"Sec-Fetch-Site": "", "Origin": "http://localhost:8600"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "http://localhost"},
        {"Origin": "http://localhost:5000"},
        {"Origin": "http://127.0.0.1:8600"},
        {"Origin": "http://localhost:8600.evil.example"},
        {"Origin": "http://localhost:8600@evil.example"},
        {"Origin": "http://evil.example/localhost:8600"},
        {"Origin": "ftp://localhost:8600"},
    ],
)
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_forms_from_elsewhere_are_refused(headers: dict[str, str], method: str) -> None:
    """A page on another site, another port, or a name of the same machine that is not the one asked
    for.
    """
    answer = open_browser(LOCAL).request(method, "/triage/decide", headers=headers)
    assert answer.status_code == 403
    assert answer.text.startswith("Not taken: ")
    assert answer.text.count("\n") == 1


def test_a_header_that_comes_twice_convinces_nobody() -> None:
    """Whichever of the two a proxy or a library would read."""
    browser = open_browser(LOCAL)
    for twice in (
        [("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "cross-site")],
        [("Origin", "http://localhost:8600"), ("Origin", "null")],
    ):
        assert browser.post("/triage/decide", headers=twice).status_code == 403
    assert (
        browser.get("/", headers=[("Host", "localhost"), ("Host", "evil.example")]).status_code
        == 421
    )


def test_read_only_shows_everything_and_takes_nothing() -> None:
    """Except forms that change nothing, and those only from the dashboard itself."""
    browser = open_browser(Access(user="ann", read_only=True))
    assert browser.get("/").json() == {
        "rows": ROW,
        "user": "ann",
        "role": "admin",
        "read_only": True,
        "may_leave": True,
    }
    for method in ("POST", "DELETE", "PUT"):
        refused = browser.request(method, "/triage/decide", headers=OWN)
        assert (refused.status_code, "--read-only" in refused.text) == (403, True)
    assert browser.post("/explain", headers=OWN).status_code == 200
    assert browser.post("/explain").status_code == 403


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_no_row_is_in_any_answer_before_login(method: str) -> None:
    """Pages lead to the login, whether they exist or not; all else is refused."""
    browser = open_browser(SHARED)
    for path in PAGES + ALMOST_OPEN:
        answer = browser.request(method, path, headers=OWN)
        assert answer.status_code == (303 if method in ("GET", "HEAD") else 401)
        assert ROW not in answer.text + str(answer.headers)
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("access", [LOCAL, SHARED, PROXIED])
def test_no_socket_is_opened(access: Access) -> None:
    """The dashboard has none, and a browser lets any page ask for one."""
    with pytest.raises(WebSocketDisconnect), open_browser(access).websocket_connect("/listen"):
        raise AssertionError("opened")


@pytest.mark.parametrize("access", [LOCAL, SHARED, PROXIED])
def test_starting_and_stopping_reach_the_application(access: Access) -> None:
    """What it opens is closed again."""
    seen = []

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        seen.append("started")
        yield
        seen.append("stopped")

    with TestClient(Starlette(middleware=build_middleware(Door(access)), lifespan=life)):
        assert seen == ["started"]
    assert seen == ["started", "stopped"]


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("viewer", {"/explain"}),
        ("reviewer", {"/explain", "/triage/decide"}),
        ("admin", {"/explain", "/triage/decide", "/sentinels/edit/0", "/unheard-of"}),
    ],
)
def test_each_role_may_send_its_own_forms(tmp_path: Path, role: Role, may: set[str]) -> None:
    """A form that nobody thought of is an admin's; pages are everybody's, releases an admin's."""
    browser = open_logged_in(with_users(tmp_path, Ann=role))
    forms = ["/explain", "/triage/decide", "/sentinels/edit/0", "/unheard-of"]
    answers = {path: browser.post(path, headers=OWN) for path in forms}
    assert {path for path, answer in answers.items() if answer.status_code == 200} == may
    assert all(answer.status_code in (200, 403) for answer in answers.values())
    assert all(browser.get(path).status_code == 200 for path in ("/", "/rows", "/sentinels/edit/0"))
    for path in ("/release/files.zip", "/release/manifest.json"):
        answer = browser.get(path)
        assert answer.status_code == (200 if role == "admin" else 403)
        assert (ROW in answer.text) is (role == "admin")
