"""People whom a reverse proxy has logged in."""

import asyncio
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from doors import (
    FROM_PROXY,
    LOCAL,
    OWN,
    PROXIED,
    PROXY_SECRET,
    ROW,
    SHARED,
    open_browser,
    open_logged_in,
)

from poisonwatch.dashboards.access import PROXY_SECRET_HEADER
from poisonwatch.dashboards.users import change_users, make_user


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.1.0.9", "::ffff:10.1.0.9"])
def test_a_known_proxy_names_the_user(peer: str) -> None:
    """Names are made visible; there is no login page, and nobody leaves."""
    browser = open_browser(PROXIED, peer=peer)
    shown = browser.get("/", headers={**FROM_PROXY, "Remote-User": "ann@example.org"}).json()
    assert (shown["user"], shown["may_leave"]) == ("ann@example.org", False)
    assert (
        browser.post(
            "/triage/decide", headers={**OWN, **FROM_PROXY, "remote-user": "Zoë\u202e".encode()}
        ).text
        == "decided by Zoë\\u{202e}"
    )
    assert (
        "<bdi>&lt;b&gt;</bdi>"
        in browser.get("/who", headers={**FROM_PROXY, "Remote-User": "<b>"}).text
    )
    assert (
        browser.get("/login?next=/rows", headers={**FROM_PROXY, "Remote-User": "ann"}).headers[
            "Location"
        ]
        == "/"
    )
    assert (
        browser.post("/logout", headers={**OWN, **FROM_PROXY, "Remote-User": "ann"}).headers[
            "Location"
        ]
        == "/"
    )


def test_a_name_in_bytes_that_are_no_utf_8_is_shown_as_such() -> None:
    """Two users whose names differ in such bytes stay two."""

    secret = {name.encode(): value.encode() for name, value in FROM_PROXY.items()}

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(open_browser(PROXIED).app, client=("127.0.0.1", 50000))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://localhost:8600"
        ) as browser:
            return await browser.get("/", headers={**secret, b"Remote-User": b"Zo\xeb"})

    assert asyncio.run(ask()).json()["user"] == "Zo\\xeb"


@pytest.mark.parametrize("peer", ["10.2.0.9", "::1", "192.168.1.5", "testclient", ""])
def test_a_name_from_elsewhere_is_not_believed(peer: str) -> None:
    """Nor where the client says that a proxy had passed it on."""
    browser = open_browser(PROXIED, peer=peer)
    for path in ("/", "/login", "/static/style.css"):
        answer = browser.get(
            path,
            headers={
                **FROM_PROXY,
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
    headers = [(b"Remote-User", name) for name in named]
    headers += [(name.encode(), value.encode()) for name, value in FROM_PROXY.items()]
    answer = open_browser(PROXIED).get("/", headers=headers)
    assert answer.status_code == 403
    assert "Remote-User" in answer.text
    assert ROW not in answer.text


def test_without_a_proxy_its_header_means_nothing() -> None:
    """Whoever sends one gets what they would get without."""
    forged = {"Remote-User": "eve", "X-Forwarded-User": "eve", "X-Remote-User": "eve"}
    assert open_browser(LOCAL).get("/", headers=forged).json()["user"] == "ann"
    assert open_browser(SHARED).get("/", headers=forged).status_code == 303
    assert open_logged_in().get("/", headers=forged).json()["user"] == "Ann (unverified)"


@pytest.mark.parametrize(
    "given",
    [[], [""], ["5f0c"], [PROXY_SECRET.upper()], [PROXY_SECRET, PROXY_SECRET], [PROXY_SECRET, "x"]],
)
def test_a_proxy_proves_itself_by_one_secret(given: list[str]) -> None:
    """Any other program on its machine can send the header that names somebody."""
    headers = [("Remote-User", "ann"), *((PROXY_SECRET_HEADER, secret) for secret in given)]
    for path in ("/", "/rows", "/login", "/nowhere"):
        answer = open_browser(PROXIED).get(path, headers=headers)
        assert answer.status_code == 403
        assert PROXY_SECRET_HEADER in answer.text
        assert ROW not in answer.text
        assert PROXY_SECRET not in answer.text


def test_users_say_what_people_of_a_proxy_may_do(tmp_path: Path) -> None:
    """Whoever they do not name stays out; without a file of users everybody may do all."""
    path = tmp_path / "users.json"
    with change_users(path) as users:
        users["ann"] = make_user("ann", "viewer", None)
    browser = open_browser(replace(PROXIED, users=path))
    seen = browser.get("/", headers={**FROM_PROXY, "Remote-User": "Ann"})
    assert (seen.json()["user"], seen.json()["role"]) == ("ann", "viewer")
    decided = browser.post("/triage/decide", headers={**OWN, **FROM_PROXY, "Remote-User": "ann"})
    assert decided.status_code == 403
    assert browser.get("/", headers={**FROM_PROXY, "Remote-User": "bob"}).status_code == 403
    open_to_all = open_browser(PROXIED).get("/", headers={**FROM_PROXY, "Remote-User": "bob"})
    assert open_to_all.json()["role"] == "admin"
