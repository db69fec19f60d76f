"""Where a request comes from, also behind proxies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.dashboards.addresses import Proxies, name_client, parse_address

TRUSTED = Proxies(["127.0.0.1", "10.1.0.0/24", "fd00::/8"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.9", [], "192.0.2.9"),
        ("192.0.2.9", ["198.51.100.1"], "192.0.2.9"),  # no proxy that is trusted
        ("127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["203.0.113.5, 198.51.100.1"], "198.51.100.1"),  # the first is its own word
        ("127.0.0.1", ["203.0.113.5, 198.51.100.1, 10.1.0.4"], "198.51.100.1"),
        ("127.0.0.1", ["203.0.113.5", "198.51.100.1"], "198.51.100.1"),
        ("::ffff:127.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("fd00::1", ["[2001:db8::7]:443"], "2001:db8::7"),
        ("fd00::1", ["2001:db8::7"], "2001:db8::7"),
        ("127.0.0.1", ["unknown"], "127.0.0.1"),
        ("127.0.0.1", ["198.51.100.1, _hidden"], "127.0.0.1"),
        ("127.0.0.1", [""], "127.0.0.1"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("10.1.0.4", ["127.0.0.1"], "127.0.0.1"),
        ("", ["198.51.100.1"], ""),
        (None, ["198.51.100.1"], ""),
    ],
)
def test_only_what_trusted_proxies_say_is_believed(
    peer: str | None, forwarded: list[str], client: str
) -> None:
    """From the end on: each proxy appends whom it was asked by, and clients send what they like."""
    assert TRUSTED.find_client(peer, forwarded) == client


def test_nobody_is_trusted_unasked() -> None:
    """A header without --trusted-proxies changes nothing."""
    assert Proxies([]).find_client("127.0.0.1", ["198.51.100.1"]) == "127.0.0.1"


@given(st.lists(st.text(max_size=60), max_size=6))
def test_any_header_leads_to_an_address(forwarded: list[str]) -> None:
    """Whatever a client writes there, and however much of it."""
    assert parse_address(TRUSTED.find_client("127.0.0.1", forwarded * 20)) is not None


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.9", "192.0.2.9"),
        ("::ffff:192.0.2.9", "192.0.2.9"),
        ("2001:db8:0:1:aaaa::1", "2001:db8:0:1::/64"),
        ("2001:db8:0:1:bbbb::2", "2001:db8:0:1::/64"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_a_network_of_ipv6_is_one_client(address: str, name: str) -> None:
    """It is what a provider gives one customer, who has all its addresses to guess from."""
    assert name_client(address) == name
