"""Who may come into the dashboard."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from poisonwatch.dashboards import login as logins
from poisonwatch.dashboards.access import Access, check_access
from poisonwatch.dashboards.gatekeeper import POLICY, SECURITY_HEADERS, build_middleware
from poisonwatch.dashboards.login import LOGIN_LASTS, WRONG_WAITS, build_login_routes
from poisonwatch.dashboards.pages import render_page
from poisonwatch.errors import InputError

ROW = "the text of a row that nobody outside may read"
PASSWORD = "correct horse ü"
OWN = {"Sec-Fetch-Site": "same-origin"}
PAGES = ["/", "/rows?page=2", "/who", "/report", "/broken", "/decide", "/explain", "/nowhere"]
ALMOST_OPEN = [
    "/static",
    "/login/",
    "/LOGIN",
    "/login%2F",
    "/login%00",
    "/%2e/login",
    "http://localhost:8600//login",
    "http://localhost:8600//static/x",
]
LOGIN = Access(user="root", password=PASSWORD)
PROXY = Access(user="root", proxy_header="Remote-User", proxies=("127.0.0.1", "10.1.0.0/24"))


async def rows(request: Request) -> Response:
    return JSONResponse(
        {
            "rows": ROW,
            **{key: getattr(request.state, key) for key in ("user", "read_only", "may_leave")},
        }
    )


async def who(request: Request) -> Response:
    return render_page(request, "base.html.j2")


async def decide(request: Request) -> Response:
    return PlainTextResponse(f"decided by {request.state.user}")


async def report(request: Request) -> Response:
    return HTMLResponse(
        ROW,
        headers={
            "Content-Security-Policy": "default-src 'none'; img-src data:",
            "Cache-Control": "public",
        },
    )


async def style(request: Request) -> Response:
    return PlainTextResponse("body {}", headers={"Cache-Control": "max-age=60"})


async def broken(request: Request) -> Response:
    raise RuntimeError(ROW)


async def listen(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(ROW)


def dashboard(
    access: Access, peer: str = "127.0.0.1", address: str = "http://localhost:8600", **settings: Any
) -> TestClient:
    """A browser in front of a few pages, connected from `peer`."""
    app = Starlette(
        routes=[
            Route("/", rows),
            Route("/rows", rows),
            Route("/who", who),
            Route("/report", report),
            Route("/broken", broken),
            Route("/static/style.css", style),
            Route("/decide", decide, methods=["POST", "DELETE"]),
            Route("/explain", decide, methods=["GET", "POST"]),
            WebSocketRoute("/listen", listen),
            *build_login_routes(access),
        ],
        middleware=build_middleware(access),
    )
    return TestClient(
        app, base_url=address, client=(peer, 50000), follow_redirects=False, **settings
    )


def logged_in(
    access: Access = LOGIN, name: str = "Ann", address: str = "http://localhost:8600"
) -> TestClient:
    browser = dashboard(access, address=address)
    assert log_in(browser, name=name).status_code == 303
    return browser


def log_in(browser: TestClient, **form: str) -> Any:
    return browser.post("/login", data={"name": "Ann", "password": PASSWORD, **form}, headers=OWN)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.9", "::1", "[::1]"])
def test_nobody_need_be_asked_on_this_machine_only(host: str) -> None:
    """A loopback address is reached from here alone."""
    check_access(Access(user="ann"), host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "192.168.1.5", "audits.example.org", "localhost.example.org"]
)
def test_an_open_dashboard_never_listens_to_the_network(host: str) -> None:
    """With a password or a proxy that asks, it may."""
    with pytest.raises(
        InputError,
        match=r"set POISONWATCH_DASHBOARD_PASSWORD, or name the header .*, or listen on 127\.0\.0\.1",
    ):
        check_access(Access(user="ann"), host)
    check_access(LOGIN, host)
    check_access(PROXY, host)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"password": ""}, "at least 8"),
        ({"password": "hunter2"}, "at least 8"),
        ({"password": "        x"}, "at least 8"),
        ({"password": PASSWORD, "proxy_header": "Remote-User"}, "leave one out"),
        ({"proxy_header": ""}, "such as Remote-User"),
        ({"proxy_header": "Remote User:"}, "such as Remote-User"),
        ({"proxies": ("proxy",)}, "an address or a network"),
        ({"hosts": ("*",)}, "--allow-host"),
        ({"hosts": ("https://audits.example.org",)}, "--allow-host"),
        ({"hosts": ("audits.example.org:8600",)}, "--allow-host"),
        ({"hosts": ("::1",)}, "--allow-host"),
    ],
)
def test_an_access_that_cannot_be_meant_is_refused_without_telling_the_password(
    settings: dict[str, Any], words: str
) -> None:
    """One line that says what is allowed."""
    with pytest.raises(InputError, match=words) as refused:
        check_access(Access(user="ann", **settings), "127.0.0.1")
    assert "\n" not in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert PASSWORD not in str(refused.value)


def test_the_password_is_in_no_printed_access() -> None:
    """Nor in a traceback that prints one."""
    assert PASSWORD not in repr(LOGIN)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8600", "127.0.0.1:1", "[::1]", "[::1]:8600", "audits.example.org"],
)
def test_the_dashboard_answers_to_its_names_on_any_port(host: str) -> None:
    """The port is what the browser was told; it proves nothing."""
    access = Access(user="ann", hosts=(*Access("ann").hosts, "Audits.example.org"))
    assert dashboard(access).get("/", headers={"Host": host}).json()["user"] == "ann"


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
    answer = dashboard(Access(user="ann")).get(path, headers={"Host": host})
    assert answer.status_code == 421
    assert "--allow-host" in answer.text
    assert answer.text.count("\n") == 1


@pytest.mark.parametrize(
    ("path", "status"),
    [("/", 200), ("/nowhere", 404), ("/decide", 405), ("/broken", 500), ("/login", 303)],
)
def test_every_answer_carries_the_policy(path: str, status: int) -> None:
    """Errors, too; and no browser or proxy keeps a copy."""
    answer = dashboard(Access(user="ann"), raise_server_exceptions=False).get(path)
    assert answer.status_code == status
    assert answer.headers["Content-Security-Policy"] == POLICY
    assert answer.headers["Cache-Control"] == "no-store"
    assert {name: answer.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS


def test_refusals_carry_the_policy() -> None:
    """A name that is not its own, a form from elsewhere, nobody logged in."""
    browser = dashboard(LOGIN)
    refusals = [
        browser.get("/", headers={"Host": "evil"}),
        browser.post("/decide"),
        browser.post("/decide", headers=OWN),
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
    browser = dashboard(Access(user="ann"))
    answer = browser.get("/report")
    assert answer.headers.get_list("Content-Security-Policy") == [
        "default-src 'none'; img-src data:"
    ]
    assert answer.headers.get_list("Cache-Control") == ["no-store"]
    assert browser.get("/static/style.css").headers["Cache-Control"] == "max-age=60"


def test_what_went_wrong_is_told_to_the_log_only() -> None:
    """The server gets the error, the browser a line."""
    assert (
        ROW not in dashboard(Access(user="ann"), raise_server_exceptions=False).get("/broken").text
    )
    with pytest.raises(RuntimeError, match=ROW):
        dashboard(Access(user="ann")).get("/broken")


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
    browser = dashboard(Access(user="ann", hosts=("localhost", "audits.example.org")))
    assert browser.post("/decide", headers=headers).text == "decided by ann"


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
    answer = dashboard(Access(user="ann")).request(method, "/decide", headers=headers)
    assert answer.status_code == 403
    assert answer.text.startswith("Not taken: ")
    assert answer.text.count("\n") == 1


def test_a_header_that_comes_twice_convinces_nobody() -> None:
    """Whichever of the two a proxy or a library would read."""
    browser = dashboard(Access(user="ann"))
    for twice in (
        [("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "cross-site")],
        [("Origin", "http://localhost:8600"), ("Origin", "null")],
    ):
        assert browser.post("/decide", headers=twice).status_code == 403
    assert (
        browser.get("/", headers=[("Host", "localhost"), ("Host", "evil.example")]).status_code
        == 421
    )


def test_read_only_shows_everything_and_takes_nothing() -> None:
    """Except forms that change nothing, and those only from the dashboard itself."""
    browser = dashboard(Access(user="ann", read_only=True))
    assert browser.get("/").json() == {
        "rows": ROW,
        "user": "ann",
        "read_only": True,
        "may_leave": False,
    }
    for method in ("POST", "DELETE", "PUT"):
        refused = browser.request(method, "/decide", headers=OWN)
        assert (refused.status_code, "--read-only" in refused.text) == (403, True)
    assert browser.post("/explain", headers=OWN).status_code == 200
    assert browser.post("/explain").status_code == 403


def test_a_read_only_dashboard_has_a_login() -> None:
    """One comes in and leaves, and decides nothing."""
    browser = logged_in(Access(user="root", password=PASSWORD, read_only=True))
    assert browser.get("/").json()["user"] == "Ann"
    assert browser.post("/decide", headers=OWN).status_code == 403
    assert browser.post("/logout", headers=OWN).status_code == 303
    assert browser.get("/").status_code == 303


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_no_row_is_in_any_answer_before_login(method: str) -> None:
    """Pages lead to the login, whether they exist or not; all else is refused."""
    browser = dashboard(LOGIN)
    for path in PAGES + ALMOST_OPEN:
        answer = browser.request(method, path, headers=OWN)
        assert answer.status_code == (303 if method in ("GET", "HEAD") else 401)
        assert ROW not in answer.text + str(answer.headers)
        assert "set-cookie" not in answer.headers


def test_the_login_page_and_static_files_are_open_and_tell_nothing() -> None:
    """No pages to go to, no user, no row."""
    browser = dashboard(LOGIN)
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
    browser = dashboard(LOGIN)
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
        "user": "Ann",
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
    browser = dashboard(LOGIN)
    assert 'name="next" value="/"' in browser.get("/login", params={"next": path}).text
    assert log_in(browser, next=path).headers["Location"] == "/"
    assert browser.get("/login", params={"next": path}).headers["Location"] == "/"


def test_a_path_that_looks_like_another_host_is_not_gone_back_to() -> None:
    """//evil.example is a path of the dashboard to the server, and another host to the browser."""
    assert (
        dashboard(LOGIN).get("http://localhost:8600//evil.example/x").headers["Location"]
        == "/login?next=%2F"
    )


def test_a_link_on_another_site_needs_no_second_login() -> None:
    """Such a link brings no cookie; the login page then has the same link."""
    browser = dashboard(LOGIN)
    assert (
        '<a href="/rows?page=2">'
        in browser.get("/login?next=/rows?page=2", headers={"Sec-Fetch-Site": "cross-site"}).text
    )
    assert '<a href="/rows' not in browser.get("/login?next=/rows", headers=OWN).text


def test_wrong_passwords_wait_and_are_answered_with_the_form() -> None:
    """The name and the way back stay in it, the password does not."""
    browser = dashboard(LOGIN)
    begun = time.monotonic()
    answer = log_in(browser, name="<i>Ann\x1b", password="correct horse u", next="/rows?page=2")
    assert time.monotonic() - begun >= WRONG_WAITS
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
    answer = dashboard(odd).post("/login", json={"name": "Ann", "password": PASSWORD}, headers=OWN)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("name", ["", "  \n ", "x" * 61, "\x1b" * 20])
def test_a_name_has_1_to_60_visible_characters(name: str) -> None:
    """It stands beside every decision; an escape counts with the length it is shown at."""
    browser = dashboard(LOGIN)
    answer = log_in(browser, name=name)
    assert answer.status_code == 400
    assert "1 to 60 characters" in answer.text
    assert browser.get("/").status_code == 303


@pytest.mark.parametrize(
    ("name", "user", "shown"),
    [
        ("  Ann \n Lee ", "Ann Lee", "<bdi>Ann Lee</bdi>"),
        ("Zoë 李", "Zoë 李", "<bdi>Zoë 李</bdi>"),
        (
            "<script>alert(1)</script>",
            "<script>alert(1)</script>",
            "<bdi>&lt;script&gt;alert(1)&lt;/script&gt;</bdi>",
        ),
        (
            "a\x1b[2J\u202eb\x00",
            "a\\u{1b}[2J\\u{202e}b\\u{0}",
            "<bdi>a\\u{1b}[2J\\u{202e}b\\u{0}</bdi>",
        ),
        ('"><b>', '"><b>', "<bdi>&#34;&gt;&lt;b&gt;</bdi>"),
    ],
)
def test_hostile_names_are_shown_as_text(name: str, user: str, shown: str) -> None:
    """Invisible characters are written out before the name is kept, tags are escaped where it is
    shown.
    """
    browser = logged_in(name=name)
    assert browser.get("/").json()["user"] == user
    assert shown in browser.get("/who").text


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
    answer = dashboard(LOGIN, address=address).post(
        "/login", data={"name": "Ann", "password": PASSWORD}, headers={**OWN, "Origin": origin}
    )
    (cookie,) = SimpleCookie(answer.headers["Set-Cookie"]).values()
    assert cookie["httponly"] is True
    assert cookie["samesite"] == "strict"
    assert cookie["max-age"] == str(LOGIN_LASTS) == "43200"
    assert bool(cookie["secure"]) is secure
    assert cookie["domain"] == ""
    assert PASSWORD not in answer.headers["Set-Cookie"]


def test_logging_out_clears_the_cookie() -> None:
    """The next page is the login."""
    browser = logged_in()
    assert len(browser.cookies) == 1
    assert 'action="/logout"' in browser.get("/who").text
    assert browser.post("/logout").status_code == 403
    assert browser.post("/logout", headers=OWN).headers["Location"] == "/"
    assert not browser.cookies
    assert browser.get("/").headers["Location"] == "/login?next=%2F"


def test_a_cookie_that_was_copied_ends_with_its_login() -> None:
    """Another login of the same person goes on."""
    browser = logged_in()
    other = TestClient(browser.app, base_url="http://localhost:8600", follow_redirects=False)
    assert log_in(other).status_code == 303
    copied = dict(browser.cookies)
    browser.post("/logout", headers=OWN)
    browser.cookies.update(copied)
    assert browser.get("/").status_code == 303
    assert other.get("/").status_code == 200


def test_logging_in_again_ends_the_login_before() -> None:
    """One browser, one login."""
    browser = logged_in()
    first = dict(browser.cookies)
    assert log_in(browser).status_code == 303
    assert browser.get("/").status_code == 200
    browser.cookies.clear()
    browser.cookies.update(first)
    assert browser.get("/").status_code == 303


def test_many_passwords_at_once_gain_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of one address are looked at one after another, and few may wait; other addresses do
    not wait for them.
    """
    monkeypatch.setattr(logins, "WRONG_WAITS", 0.05)
    app = dashboard(LOGIN).app

    async def tried(address: str, password: str) -> int:
        transport = httpx.ASGITransport(app, client=(address, 1))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://localhost:8600", headers=OWN
        ) as client:
            return (
                await client.post("/login", data={"name": "Eve", "password": password, "next": "/"})
            ).status_code

    async def all_at_once() -> tuple[list[int], int, float]:
        started = time.monotonic()
        guesses = [asyncio.create_task(tried("10.0.0.6", f"guess {k}")) for k in range(12)]
        await asyncio.sleep(0.01)
        mine = await tried("10.0.0.7", PASSWORD)
        return await asyncio.gather(*guesses), mine, time.monotonic() - started

    guesses, mine, seconds = asyncio.run(all_at_once())
    assert sorted(guesses) == [401] * logins.MOST_LOGINS_WAITING + [429] * (
        12 - logins.MOST_LOGINS_WAITING
    )
    assert mine == 303
    assert seconds >= 0.05 * logins.MOST_LOGINS_WAITING
    assert asyncio.run(tried("10.0.0.6", PASSWORD)) == 303


def test_a_cookie_opens_only_the_dashboard_that_gave_it() -> None:
    """Each process has a secret of its own, so a restart ends all logins; a changed cookie is none."""
    (cookie,) = logged_in().cookies.jar
    other = logged_in(name="Bob")
    (own,) = other.cookies.jar
    other.cookies.clear()
    for forged in (cookie.value, own.value[:-2] + "xx", "e30=.x.y", "null", ""):
        assert other.get("/", headers={"Cookie": f"{own.name}={forged}"}).status_code == 303
    assert other.get("/", headers={"Cookie": f"{own.name}={own.value}"}).json()["user"] == "Bob"


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
    assert dashboard(LOGIN).post("/login", headers=OWN, **form).status_code == 400


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.1.0.9", "::ffff:10.1.0.9"])
def test_a_known_proxy_names_the_user(peer: str) -> None:
    """Names are made visible; there is no login page, and nobody leaves."""
    browser = dashboard(PROXY, peer=peer)
    shown = browser.get("/", headers={"Remote-User": "ann@example.org"}).json()
    assert (shown["user"], shown["may_leave"]) == ("ann@example.org", False)
    assert (
        browser.post("/decide", headers={**OWN, "remote-user": "Zoë\u202e".encode()}).text
        == "decided by Zoë\\u{202e}"
    )
    assert "<bdi>&lt;b&gt;</bdi>" in browser.get("/who", headers={"Remote-User": "<b>"}).text
    assert (
        browser.get("/login?next=/rows", headers={"Remote-User": "ann"}).headers["Location"] == "/"
    )
    assert browser.post("/logout", headers={**OWN, "Remote-User": "ann"}).headers["Location"] == "/"


def test_a_name_in_bytes_that_are_no_utf_8_is_shown_as_such() -> None:
    """Two users whose names differ in such bytes stay two."""

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(dashboard(PROXY).app, client=("127.0.0.1", 50000))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://localhost:8600"
        ) as browser:
            return await browser.get("/", headers={b"Remote-User": b"Zo\xeb"})

    assert asyncio.run(ask()).json()["user"] == "Zo\\xeb"


@pytest.mark.parametrize("peer", ["10.2.0.9", "::1", "192.168.1.5", "testclient", ""])
def test_a_name_from_elsewhere_is_not_believed(peer: str) -> None:
    """Nor where the client says that a proxy had passed it on."""
    browser = dashboard(PROXY, peer=peer)
    for path in ("/", "/login", "/static/style.css"):
        answer = browser.get(
            path,
            headers={
                "Remote-User": "ann",
                "X-Forwarded-For": "127.0.0.1",
                "Forwarded": "for=127.0.0.1",
            },
        )
        assert answer.status_code == 403
        assert "through the proxy" in answer.text


@pytest.mark.parametrize(
    "named", [[], [b""], [b"  "], [b"x" * 255], [b"eve", b"ann"], [b"ann", b""]]
)
def test_a_proxy_names_exactly_one_user(named: list[bytes]) -> None:
    """Of two headers one may be the client's own, passed on."""
    answer = dashboard(PROXY).get("/", headers=[(b"Remote-User", name) for name in named])
    assert answer.status_code == 403
    assert "Remote-User" in answer.text
    assert ROW not in answer.text


def test_without_a_proxy_its_header_means_nothing() -> None:
    """Whoever sends one gets what they would get without."""
    forged = {"Remote-User": "eve", "X-Forwarded-User": "eve", "X-Remote-User": "eve"}
    assert dashboard(Access(user="ann")).get("/", headers=forged).json()["user"] == "ann"
    assert dashboard(LOGIN).get("/", headers=forged).status_code == 303
    assert logged_in().get("/", headers=forged).json()["user"] == "Ann"


def test_an_open_dashboard_is_its_owner_s() -> None:
    """There is nothing to log in to, whatever the form says."""
    browser = dashboard(Access(user="ann"))
    assert browser.get("/").json() == {
        "rows": ROW,
        "user": "ann",
        "read_only": False,
        "may_leave": False,
    }
    assert "Log out" not in browser.get("/who").text
    for answer in (
        browser.get("/login?next=/rows"),
        log_in(browser, name="eve"),
        browser.post("/logout", headers=OWN),
    ):
        assert (answer.status_code, answer.headers["Location"]) == (303, "/")
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("access", [Access(user="ann"), LOGIN, PROXY])
def test_no_socket_is_opened(access: Access) -> None:
    """The dashboard has none, and a browser lets any page ask for one."""
    with pytest.raises(WebSocketDisconnect), dashboard(access).websocket_connect("/listen"):
        raise AssertionError("opened")


@pytest.mark.parametrize("access", [Access(user="ann"), LOGIN, PROXY])
def test_starting_and_stopping_reach_the_application(access: Access) -> None:
    """What it opens is closed again."""
    seen = []

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        seen.append("started")
        yield
        seen.append("stopped")

    with TestClient(Starlette(middleware=build_middleware(access), lifespan=life)):
        assert seen == ["started"]
    assert seen == ["started", "stopped"]
