"""Where a request comes from, also behind reverse proxies: a header says so, and counts only where
a proxy that the dashboard trusts has sent it.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address

FORWARDED_HEADER = "x-forwarded-for"
# One customer of a provider has a network of addresses in IPv6, not one.
IPV6_PREFIX = 64
MOST_HOPS = 32


class Proxies:
    """The reverse proxies that are trusted, as addresses and networks."""

    def __init__(self, places: Sequence[str]) -> None:
        self._networks = [ip_network(place) for place in places]

    def __contains__(self, address: str | None) -> bool:
        parsed = parse_address(address or "")
        return parsed is not None and any(parsed in network for network in self._networks)

    def find_client(self, peer: str | None, forwarded: Sequence[str]) -> str:
        """Where a request of `peer` with these X-Forwarded-For headers comes from: the last address
        that no trusted proxy has, or the last that can be read; empty where nobody knows.
        """
        client = peer or ""
        hops = ",".join(forwarded).split(",")[-MOST_HOPS:]
        # Each proxy appends whom it was asked by: only what trusted ones appended is believed.
        while hops and client in self:
            parsed = parse_address(_strip_port(hops.pop().strip()))
            if parsed is None:
                break
            client = str(parsed)
        return client


def parse_address(text: str) -> Address | None:
    """The IP address, that of an IPv4 client of a server that listens on :: as IPv4; None where it
    is none.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def name_client(address: str) -> str:
    """What an address is counted under: itself, or its network in IPv6."""
    parsed = parse_address(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((parsed.packed, IPV6_PREFIX), strict=False))
    return str(parsed or address)


def _strip_port(text: str) -> str:
    """An address without the port that some proxies write behind it."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    if text.count(":") == 1:
        return text.partition(":")[0]
    return text
