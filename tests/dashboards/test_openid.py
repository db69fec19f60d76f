"""Logging in by an identity provider: a real one, and one that lies."""

import logging
import urllib.parse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from doors import HERE, OWN, ROW, log_in, open_browser, with_users
from identity_provider import CLIENT, Lies, Provider, identity_provider, lying_provider
from joserfc.jwk import OctKey, RSAKey
from starlette.testclient import TestClient

from poisonwatch.dashboards.access import Access, ProviderSettings
from poisonwatch.dashboards.door import Door
from poisonwatch.dashboards.openid import BACK_PATH, LOGIN_TAKES, START_PATH
from poisonwatch.dashboards.users import change_users, make_user

SECRET = "a secret of the client"
# as a browser follows a link, or a redirect from another site
ELSEWHERE = {"Sec-Fetch-Site": "cross-site"}


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with identity_provider(f"{HERE}{BACK_PATH}") as provider:
        provider.set_claims(
            "1", email="ann@example.org", email_verified=True, groups=["poisonwatch-reviewer", "x"]
        )
        provider.set_claims("2", email="bob@example.org", email_verified=True, groups=["admin"])
        provider.set_claims("3", email="ann@example.org", email_verified=False)
        yield provider


def trust(provider: Provider, **settings: Any) -> ProviderSettings:
    return ProviderSettings(
        issuer=provider.issuer,
        client_id=provider.client_id,
        client_secret=provider.client_secret,
        **settings,
    )


def by_roles(provider: Provider, **settings: Any) -> Access:
    """Whom the provider's groups give a role."""
    return Access(user="root", provider=trust(provider, role_claim="groups", **settings))


def begin(browser: TestClient, after: str = "/") -> str:
    """Where the browser is sent for the login."""
    answer = browser.get(START_PATH, params={"next": after})
    assert answer.status_code == 303, answer.text
    return answer.headers["Location"]


def come_in(browser: TestClient, provider: Provider, subject: str, after: str = "/") -> Any:
    """Log in at the provider, and come back."""
    back = provider.log_in(begin(browser, after), subject)
    return browser.get(back, headers=ELSEWHERE)


def test_whom_the_provider_knows_comes_in_with_their_role(provider: Provider) -> None:
    """Under the name that it gives, and to the page that was asked for."""
    browser = open_browser(by_roles(provider))
    sent = browser.get("/rows?page=2").headers["Location"]
    login = browser.get(sent)
    assert 'href="/login/openid?next=%2Frows%3Fpage%3D2"' in login.text
    assert 'name="password"' not in login.text
    came = come_in(browser, provider, "1", "/rows?page=2")
    assert came.status_code == 200
    # a page of the dashboard's own leads on: the strict cookie would stay behind on a redirect
    assert '<meta http-equiv="refresh" content="0; url=/rows?page=2">' in came.text
    assert browser.get("/rows?page=2").json() == {
        "rows": ROW,
        "user": "ann@example.org",
        "role": "reviewer",
        "read_only": False,
        "may_leave": True,
    }
    assert browser.post("/triage/decide", headers=OWN).text == "decided by ann@example.org"
    assert browser.post("/sentinels/edit/0", headers=OWN).status_code == 403
    browser.post("/logout", headers=OWN)
    assert browser.get("/").status_code == 303


def test_the_browser_is_sent_with_state_nonce_and_challenge(provider: Provider) -> None:
    """New ones each time; the secret stays here."""
    browser = open_browser(by_roles(provider))
    asked = [urllib.parse.urlsplit(begin(browser)) for _ in range(2)]
    queries = [dict(urllib.parse.parse_qsl(address.query)) for address in asked]
    for query in queries:
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        assert query["redirect_uri"] == f"{HERE}{BACK_PATH}"
        assert provider.client_secret not in str(query)
    for name in ("state", "nonce", "code_challenge"):
        assert len({query[name] for query in queries}) == 2
        assert len(queries[0][name]) >= 20


def test_whom_nothing_names_stays_out(provider: Provider) -> None:
    """A group of another name gives no role; nor does a mail address that nobody verified."""
    browser = open_browser(by_roles(provider))
    for subject, words in (("2", "may not come in"), ("3", "not verified"), ("4", "")):
        refused = come_in(browser, provider, subject)
        assert refused.status_code == 403
        assert words in refused.text
        assert browser.get("/").status_code == 303


def test_the_file_of_users_may_say_who_comes_in(provider: Provider, tmp_path: Path) -> None:
    """It goes before the provider's groups, and counts at once."""
    access = replace(by_roles(provider), users=tmp_path / "users.json")
    assert access.users is not None
    with change_users(access.users) as users:
        users["ann@example.org"] = make_user("Ann@example.org", "viewer", None)
    browser = open_browser(access)
    assert come_in(browser, provider, "1").status_code == 200
    shown = browser.get("/").json()
    assert (shown["user"], shown["role"]) == ("Ann@example.org", "viewer")
    with change_users(access.users) as users:
        users.clear()
    assert browser.get("/").status_code == 303


def test_people_with_passwords_come_in_beside_it(provider: Provider, tmp_path: Path) -> None:
    """As when the provider is down; somebody without a password does not."""
    access = replace(with_users(tmp_path, ann="admin"), provider=trust(provider))
    assert access.users is not None
    with change_users(access.users) as users:
        users["bob@example.org"] = make_user("bob@example.org", "admin", None)
    browser = open_browser(access)
    shown = browser.get("/login").text
    assert "/login/openid" in shown
    assert 'name="password"' in shown
    assert log_in(browser, name="bob@example.org").status_code == 401
    assert log_in(browser, name="ann").status_code == 303


def test_an_answer_belongs_to_the_browser_that_asked(provider: Provider) -> None:
    """Whoever sends somebody the end of a login of their own logs nobody in."""
    browser, other = open_browser(by_roles(provider)), open_browser(by_roles(provider))
    back = provider.log_in(begin(browser), "1")
    for stranger in (other, open_browser(by_roles(provider))):
        assert stranger.get(back, headers=ELSEWHERE).status_code == 403
        assert stranger.get("/").status_code == 303
    begin(browser)
    assert browser.get(back, headers=ELSEWHERE).status_code == 403


def test_an_answer_counts_once(provider: Provider) -> None:
    """Its code is used up, and its cookie gone."""
    browser = open_browser(by_roles(provider))
    back = provider.log_in(begin(browser), "1")
    kept = {cookie.name: cookie.value for cookie in browser.cookies.jar}
    assert browser.get(back, headers=ELSEWHERE).status_code == 200
    browser.post("/logout", headers=OWN)
    assert browser.get(back, headers=ELSEWHERE).status_code == 403
    for name, value in kept.items():
        browser.cookies.set(name, value or "", path=BACK_PATH)
    assert browser.get(back, headers=ELSEWHERE).status_code == 403


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?code=x",
        "?state=x&code=x",
        "?error=access_denied&error_description=hunter2",
        "?code=x&state=\udcff",
    ],
)
def test_an_answer_that_is_none_is_a_page(provider: Provider, query: str) -> None:
    """With and without a login that was begun."""
    for begun in (False, True):
        browser = open_browser(by_roles(provider))
        if begun:
            begin(browser)
        refused = browser.get(BACK_PATH + query.encode("utf-8", "replace").decode())
        assert refused.status_code == 403
        assert "hunter2" not in refused.text


def test_the_cookie_of_a_login_is_short_and_for_its_page(provider: Provider) -> None:
    """Lax, since it must come back from another site; for https alone where people come by it."""
    for address, secure in ((None, False), ("https://audits.example.org", True)):
        browser = open_browser(by_roles(provider, address=address))
        answer = browser.get(START_PATH)
        cookie = answer.headers["Set-Cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert f"path={BACK_PATH}" in cookie
        assert f"max-age={LOGIN_TAKES}" in cookie
        assert ("secure" in cookie) is secure
        asked = dict(
            urllib.parse.parse_qsl(urllib.parse.urlsplit(answer.headers["Location"]).query)
        )
        assert asked["redirect_uri"] == f"{address or HERE}{BACK_PATH}"


def test_a_provider_that_is_down_is_a_page(caplog: pytest.LogCaptureFixture) -> None:
    """And in the log; no secret is in either."""
    down = ProviderSettings(
        issuer="http://127.0.0.1:9", client_id=CLIENT, client_secret=SECRET, role_claim="groups"
    )
    answer = open_browser(Access(user="root", provider=down)).get(START_PATH)
    assert answer.status_code == 502
    assert "ConnectError" in answer.text
    assert SECRET not in answer.text + caplog.text


def lie(lies: Lies) -> httpx.Response:
    """What becomes of a login at a provider that lies; nobody may be in who was refused."""
    with lying_provider(lies) as issuer:
        settings = ProviderSettings(
            issuer=issuer, client_id=CLIENT, client_secret=SECRET, role_claim="groups"
        )
        browser = open_browser(Door(Access(user="root", provider=settings)))
        begun = browser.get(START_PATH)
        if begun.status_code != 303:
            return begun
        asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(begun.headers["Location"]).query))
        lies.nonce = asked["nonce"]
        answer = browser.get(
            BACK_PATH, params={"code": "x", "state": asked["state"]}, headers=ELSEWHERE
        )
        assert (browser.get("/").status_code == 200) is (answer.status_code == 200)
        return answer


def test_what_is_no_lie_is_believed() -> None:
    """The tests below differ from this in one thing each."""
    assert lie(Lies()).status_code == 200
    assert lie(Lies(claims={"email": ""}, userinfo={"email": "ann@example.org"})).status_code == 200
    assert lie(Lies(claims={"groups": "poisonwatch-viewer"})).status_code == 200


@pytest.mark.parametrize(
    "lies",
    [
        Lies(claims={"nonce": "another"}),
        Lies(claims={"nonce": ""}),
        Lies(claims={"aud": "another client"}),
        Lies(claims={"iss": "https://id.example.org"}),
        Lies(claims={"exp": 1}),
        Lies(claims={"sub": ""}),
        Lies(claims={"email_verified": "true"}),
        Lies(claims={"email_verified": ""}),
        Lies(claims={"email": ["ann@example.org"]}),
        Lies(claims={"email": "a" * 61}),
        Lies(claims={"email": ""}, userinfo={"sub": "2", "email": "ann@example.org"}),
        Lies(claims={"groups": ["admin", "poisonwatch-root"]}),
        Lies(claims={"groups": {"poisonwatch-admin": True}}),
        Lies(key=RSAKey.generate_key(2048, {"kid": "1"})),
        Lies(
            algorithm="HS256",
            key=OctKey.import_key("a secret that everybody knows....", {"kid": "2"}),
            header={"kid": "2"},
            metadata={"id_token_signing_alg_values_supported": ["RS256", "HS256"]},
        ),
        Lies(
            algorithm="none",
            key=OctKey.import_key("a secret that everybody knows....", {"kid": "2"}),
            metadata={"id_token_signing_alg_values_supported": ["none", "RS256"]},
        ),
        Lies(body=b""),
        Lies(body=b"{}"),
        Lies(body=b"[]"),
        Lies(body=b'{"access_token": "x", "token_type": "Bearer", "id_token": "a.b.c"}'),
        Lies(body=b'{"access_token": "x", "token_type": "Bearer"}'),
        Lies(body=b'{"error": "invalid_grant", "error_description": "hunter2"}'),
    ],
)
def test_a_provider_s_lies_let_nobody_in(lies: Lies, caplog: pytest.LogCaptureFixture) -> None:
    """A page says that it failed; no secret is on it, nor in the log."""
    caplog.set_level(logging.WARNING)
    answer = lie(lies)
    assert answer.status_code == 403
    for secret in (SECRET, "hunter2", ROW):
        assert secret not in answer.text + caplog.text


@pytest.mark.parametrize(
    "metadata",
    [{"issuer": "https://id.example.org"}, {"issuer": None}, {"authorization_endpoint": None}],
)
def test_a_provider_of_another_name_is_not_asked(metadata: dict[str, Any]) -> None:
    """Its keys would be somebody else's."""
    assert lie(Lies(metadata=metadata)).status_code == 502
