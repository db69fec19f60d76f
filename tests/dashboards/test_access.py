"""Which access cannot be meant."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doors import LOCAL, PASSWORD, PROXIED, PROXY_SECRET, SHARED

from poisonwatch.dashboards.access import Access, ProviderSettings, check_access
from poisonwatch.errors import InputError

USERS = Path("users.json")
PROVIDER = ProviderSettings(
    issuer="https://id.example.org/realms/audits",
    client_id="poisonwatch",
    client_secret="a secret of the client",
    role_claim="groups",
)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.9", "::1", "[::1]"])
def test_nobody_need_be_asked_on_this_machine_only(host: str) -> None:
    """A loopback address is reached from here alone."""
    check_access(LOCAL, host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "192.168.1.5", "audits.example.org", "localhost.example.org"]
)
def test_an_open_dashboard_never_listens_to_the_network(host: str) -> None:
    """With a password or a proxy that asks, it may."""
    with pytest.raises(
        InputError,
        match=r"poisonwatch users add.*set POISONWATCH_DASHBOARD_PASSWORD, or name the header .*, or listen on 127\.0\.0\.1",
    ):
        check_access(LOCAL, host)
    check_access(SHARED, host)
    check_access(PROXIED, host)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"password": ""}, "at least 8"),
        ({"password": "hunter2"}, "at least 8"),
        ({"password": "        x"}, "at least 8"),
        ({"password": PASSWORD, "proxy_header": "Remote-User"}, "leave one out"),
        ({"proxy_header": ""}, "such as Remote-User"),
        ({"proxy_header": "Remote User:"}, "such as Remote-User"),
        ({"proxy_header": "Remote-User"}, "POISONWATCH_DASHBOARD_PROXY_SECRET"),
        ({"proxy_header": "Remote-User", "proxy_secret": "hunter2"}, "at least 16"),
        ({"proxy_header": "Remote-User", "proxy_secret": "hunter2" + "é" * 16}, "at least 16"),
        ({"proxy_header": "Remote-User", "proxy_secret": "hunter2\n" * 9}, "at least 16"),
        ({"proxy_header": "Remote-User", "provider": PROVIDER}, "leave one out"),
        ({"password": PASSWORD, "users": USERS}, "unset it"),
        ({"password": PASSWORD, "provider": PROVIDER}, "unset it"),
        ({"provider": replace(PROVIDER, issuer="http://id.example.org")}, "https://"),
        ({"provider": replace(PROVIDER, issuer="https://a:hunter2@id.example.org")}, "https://"),
        ({"provider": replace(PROVIDER, issuer="https://[x")}, "https://"),
        ({"provider": replace(PROVIDER, issuer="id.example.org")}, "https://"),
        ({"provider": replace(PROVIDER, address="http://audits.example.org")}, "https://"),
        ({"provider": replace(PROVIDER, client_id="")}, "POISONWATCH_OIDC_CLIENT_ID"),
        ({"provider": replace(PROVIDER, client_secret="")}, "POISONWATCH_OIDC_CLIENT_SECRET"),
        ({"provider": replace(PROVIDER, role_claim=None)}, "POISONWATCH_OIDC_ROLE_CLAIM"),
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


@pytest.mark.parametrize(
    "settings",
    [
        {"users": USERS},
        {"provider": PROVIDER},
        {"provider": replace(PROVIDER, role_claim=None), "users": USERS},
        {"provider": replace(PROVIDER, issuer="http://127.0.0.1:9400")},
        {"provider": replace(PROVIDER, issuer="http://localhost:9400/realms/a")},
        {"provider": replace(PROVIDER, address="https://audits.example.org/"), "users": USERS},
    ],
)
def test_people_with_names_of_their_own_may_come_from_anywhere(settings: dict[str, Any]) -> None:
    """By the users' file, by an identity provider, or by both."""
    check_access(Access(user="ann", **settings), "0.0.0.0")


def test_no_secret_is_in_a_printed_access() -> None:
    """Nor in a traceback that prints one."""
    shown = repr((SHARED, PROXIED, PROVIDER))
    for secret in (PASSWORD, PROXY_SECRET, PROVIDER.client_secret):
        assert secret not in shown
