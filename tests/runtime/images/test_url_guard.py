"""Which URLs may be fetched for somebody else, with a server of our own on loopback in place of the internet."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from phi3v.errors import ImageFetchError
from phi3v.images.fetch import fetch_url
from phi3v.images.url_guard import UrlGuard, is_public


class Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"image" * 10)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def open_guard(*domains: str) -> UrlGuard:
    """One that takes loopback for the internet."""
    return UrlGuard(domains, allows_address=lambda address: address.startswith("127."))


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.0.0.1", False),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("255.255.255.255", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("::ffff:127.0.0.1", False),
        ("2002:7f00:1::", False),
        ("64:ff9b::7f00:1", False),
    ],
)
def test_addresses_of_machines_and_networks_are_not_public(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://example.org/x.png", True),
        ("https://EXAMPLE.org:8443/x.png", True),
        ("http://images.example.org/x.png", True),
        ("http://example.org./x.png", True),
        ("http://badexample.org/x.png", False),
        ("http://example.org.evil.example/x.png", False),
        ("http://example.org@evil.example/x.png", False),
        ("http://evil.example/?example.org", False),
        ("http://[/x.png", False),
        ("http:///x.png", False),
    ],
)
def test_a_domain_covers_itself_and_its_subdomains(url: str, allowed: bool) -> None:
    guard = UrlGuard(["example.org"])
    if allowed:
        guard.check(url)
    else:
        with pytest.raises(ImageFetchError, match="--allow-media-domain"):
            guard.check(url)


def test_an_allowed_url_is_fetched_also_behind_a_redirect(port: int) -> None:
    guard = open_guard("localhost", "127.0.0.1")
    assert fetch_url(f"http://localhost:{port}/x.png", 1000, guard=guard) == b"image" * 10
    assert fetch_url(f"http://localhost:{port}/to/http://127.0.0.1:{port}/x.png", 1000, guard=guard) == b"image" * 10


def test_a_redirect_to_another_host_is_refused(port: int) -> None:
    with pytest.raises(ImageFetchError, match="not fetched"):
        fetch_url(f"http://localhost:{port}/to/http://127.0.0.1:{port}/x.png", 1000, guard=open_guard("localhost"))


def test_an_allowed_name_at_a_private_address_is_refused(port: int) -> None:
    with pytest.raises(ImageFetchError, match="not a public one"):
        fetch_url(f"http://localhost:{port}/x.png", 1000, guard=UrlGuard(["*"]))


def test_a_proxy_of_the_environment_is_not_asked(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert fetch_url(f"http://localhost:{port}/x.png", 1000, guard=open_guard("localhost"))


def test_more_bytes_than_allowed_are_refused_while_reading(port: int) -> None:
    with pytest.raises(ImageFetchError, match="bytes allowed"):
        fetch_url(f"http://localhost:{port}/x.png", 10, guard=open_guard("localhost"))
