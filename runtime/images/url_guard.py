"""Which URLs may be fetched for somebody else: only of the hosts that are allowed, and at public addresses.

A server that fetches whatever it is asked to can be made to read what only it can reach: services of its own machine,
of its network, of its cloud. A host's name may mean another address each time it is looked up, so the address that was
checked is the one that is connected to, for every redirect anew.
"""

from __future__ import annotations

import ipaddress
import socket
import urllib.parse
from collections.abc import Callable, Sequence

from ..errors import ImageFetchError
from .naming import shown_url

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""RFC 6052: the last 32 bits are an IPv4 address."""


def is_public(address: str) -> bool:
    """Whether an address belongs to the internet, and neither to this machine nor to its network."""
    found = ipaddress.ip_address(address.split("%")[0])
    inside = _find_ipv4(found) if isinstance(found, ipaddress.IPv6Address) else None
    return found.is_global and not found.is_multicast and (inside is None or inside.is_global)


def _find_ipv4(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address of a transition mechanism leads to."""
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)


class UrlGuard:
    """Allows http(s) URLs of some hosts: `domains` are names, and cover their subdomains; "*" is every host."""

    def __init__(self, domains: Sequence[str], allows_address: Callable[[str], bool] = is_public) -> None:
        self._domains = tuple(domain.lower().strip(".") for domain in domains)
        self._allows_address = allows_address

    def check(self, url: str) -> None:
        """Raise ImageFetchError for a URL of another host."""
        try:
            host = (urllib.parse.urlsplit(url).hostname or "").lower().rstrip(".")
        except ValueError:
            host = ""
        if not host or not any(_covers(domain, host) for domain in self._domains):
            allowed = ", ".join(self._domains) or "none"
            raise ImageFetchError(
                f"{shown_url(url)}: images of this host are not fetched; allowed hosts: {allowed}. Send the image "
                "itself, or start the server with --allow-media-domain"
            )

    def connect(
        self, address: tuple[str, int], timeout: float | None = None, source_address: tuple[str, int] | None = None
    ) -> socket.socket:
        """As `socket.create_connection`, to public addresses alone. Raises ImageFetchError for another."""
        host, port = address
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        places = [place for *_, place in found]
        if not places or not all(self._allows_address(str(place[0])) for place in places):
            raise ImageFetchError(f"{host}: its address is not a public one, and nothing is fetched from there")
        failure: OSError | None = None
        for family, kind, protocol, _, place in found:
            connection = socket.socket(family, kind, protocol)
            try:
                connection.settimeout(timeout)
                connection.connect(place)
                return connection
            except OSError as exc:
                connection.close()
                failure = exc
        raise failure or OSError("no address")


def _covers(domain: str, host: str) -> bool:
    return domain == "*" or host == domain or host.endswith(f".{domain}")
