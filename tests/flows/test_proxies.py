"""Addresses of this machine, where a proxy is set."""

import os

import pytest

from poisonwatch.flows.proxies import spare_loopback


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, None),
        ({"HTTP_PROXY": "http://p:1"}, "127.0.0.1,localhost,::1"),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "*"}, "*"),
        (
            {"https_proxy": "http://p:1", "no_proxy": "a.example, localhost"},
            "a.example,localhost,127.0.0.1,::1",
        ),
    ],
)
def test_no_proxy_is_asked_for_this_machine(
    before: dict[str, str], after: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is one at all; what a user excepted stays so."""
    for name in [*os.environ]:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    # set and taken away, so that they are as they were at the end
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    spare_loopback()
    assert os.environ.get("NO_PROXY") == after
