"""Fetches one image over http(s), bounded in time and size; never another scheme, not even after a redirect."""

from __future__ import annotations

import base64
import http.client
import os
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from email.message import Message
from queue import Empty, SimpleQueue
from typing import IO, Any

from ..errors import ImageFetchError
from .naming import shown_url
from .url_guard import UrlGuard

CONNECT_TIMEOUT_S = 10.0
"""Longest wait for a connection and for each read."""

TOTAL_TIMEOUT_S = 60.0
_CHUNK = 1 << 16


def fetch_url(
    url: str,
    max_bytes: int,
    *,
    timeout_s: float = CONNECT_TIMEOUT_S,
    total_s: float = TOTAL_TIMEOUT_S,
    guard: UrlGuard | None = None,
) -> bytes:
    """Body of an http(s) URL; `user:password@` in it authenticates (Basic).

    With a `guard`, only what it allows is fetched, and without a proxy, which would connect in our place. Raises
    ImageFetchError that names the URL, without its secrets, and what went wrong.
    """
    outcome: SimpleQueue[bytes | Exception] = SimpleQueue()

    def fetch() -> None:
        try:
            outcome.put(_fetch(url, max_bytes, timeout_s, total_s, guard))
        except Exception as exc:
            outcome.put(exc)

    # In a thread of its own: no timeout of a socket bounds a server that sends its headers byte by byte.
    threading.Thread(target=fetch, daemon=True).start()
    try:
        got = outcome.get(timeout=total_s)
    except Empty:
        raise ImageFetchError(
            f"{shown_url(url)}: too slow (no end within {total_s:g} s); download it and give the file"
        ) from None
    if isinstance(got, bytes):
        return got
    try:
        raise got
    finally:
        del got  # it holds this frame, which would hold it


def _fetch(url: str, max_bytes: int, timeout_s: float, total_s: float, guard: UrlGuard | None) -> bytes:
    deadline, name = time.monotonic() + total_s, shown_url(url)
    try:
        with _make_opener(guard).open(_make_request(url), timeout=min(timeout_s, total_s)) as response:
            return _read_all(response, name, max_bytes, deadline)
    except ImageFetchError:
        raise
    except urllib.error.HTTPError as exc:
        exc.close()
        if 300 <= exc.code < 400:
            raise ImageFetchError(
                f"{name}: redirects to a place that is not followed ({' '.join(str(exc.reason).split())}); allowed: "
                "ten times at most, to http and https"
            ) from exc
        raise ImageFetchError(
            f"{name}: the server answered {exc.code} {exc.reason}{_through_proxy(url)}; {_remedy(exc.code)}"
        ) from exc
    except TimeoutError as exc:
        raise ImageFetchError(
            f"{name}: no answer within {timeout_s:g} s{_through_proxy(url)}; download it and give the file"
        ) from exc
    except (urllib.error.URLError, OSError, http.client.HTTPException, ValueError) as exc:
        reason, proxy = getattr(exc, "reason", None) or exc, _through_proxy(url)
        what = f"check the address and the {'proxy' if proxy else 'network'}"
        raise ImageFetchError(f"{name}: cannot be fetched ({reason}){proxy}; {what}") from exc


def _remedy(code: int) -> str:
    if code == 401:
        return "name yourself in the address, https://USER:PASSWORD@..., or download it and give the file"
    if code == 407:
        return "the proxy wants a name and a password: http://USER:PASSWORD@PROXY"
    return "open it in a browser"


def _through_proxy(url: str) -> str:
    """Name the proxy that a URL is fetched through, and the variable that says so; "" without one."""
    parts = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    names = (name for name in os.environ if name.lower() == f"{parts.scheme}_proxy")
    return f" through the proxy {shown_url(proxy)} (from {next(names, 'the system')})"


def _make_request(url: str) -> urllib.request.Request:
    """Move the user out of the address into a header, which stays behind where a redirect leads elsewhere."""
    parts = urllib.parse.urlsplit(_quote(url))
    user, at, place = parts.netloc.rpartition("@")
    request = urllib.request.Request(
        urllib.parse.urlunsplit(parts._replace(netloc=place)), headers={"User-Agent": "phi3v", "Accept": "image/*"}
    )
    if at:
        given = urllib.parse.unquote_to_bytes(user if ":" in user else f"{user}:")
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(given).decode()}")
    return request


def _quote(url: str) -> str:
    """The URL with umlauts, spaces and the like in its path and query percent-encoded; escapes in it stay."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ImageFetchError(f"{shown_url(url)}: allowed: http://... and https://... addresses")
    keep = "%/:=&?~#+!$,;'@()*[]"
    path, query = (urllib.parse.quote(part, safe=keep) for part in (parts.path, parts.query))
    place = parts.netloc
    if not place.isascii():
        user, at, host = place.rpartition("@")
        place = urllib.parse.quote(user, safe=":%") + at + host.encode("idna").decode("ascii")
    return urllib.parse.urlunsplit((parts.scheme, place, path, query, ""))


def _read_all(response: http.client.HTTPResponse, name: str, max_bytes: int, deadline: float) -> bytes:
    body = bytearray()
    while chunk := response.read1(_CHUNK):
        body += chunk
        if len(body) > max_bytes:
            raise ImageFetchError(f"{name}: more than the {max_bytes:,} bytes allowed; give a smaller image")
        if time.monotonic() > deadline:
            raise ImageFetchError(f"{name}: too slow ({len(body)} bytes so far); download it and give the file")
    expected = response.headers.get("Content-Length", "")
    if expected.isdigit() and len(body) < int(expected):
        raise ImageFetchError(f"{name}: the connection broke after {len(body)} of {expected} bytes; try again")
    return bytes(body)


class _HttpOnlyRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https alone: a server must not make us read file:// or ftp://.

    A guard judges where they lead.
    """

    def __init__(self, guard: UrlGuard | None) -> None:
        self._guard = guard

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        fp.close()  # else its body, of any length, would be read first
        if urllib.parse.urlsplit(newurl).scheme not in ("http", "https"):
            raise ImageFetchError(
                f"{shown_url(req.full_url)}: redirects to {shown_url(newurl)}; allowed: http and https"
            )
        if self._guard is not None:
            self._guard.check(newurl)
        following = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
        user = req.unredirected_hdrs.get("Authorization")
        if following is not None and user and _origin(newurl) == _origin(req.full_url):
            following.add_unredirected_header("Authorization", user)
        return following


def _origin(url: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.netloc.lower()


def _make_opener(guard: UrlGuard | None) -> urllib.request.OpenerDirector:
    """Opens http and https, through the proxies that the environment names now, or as a guard connects."""
    opener = urllib.request.OpenerDirector()
    connecting: tuple[urllib.request.BaseHandler, ...] = (
        (urllib.request.ProxyHandler(), urllib.request.HTTPHandler(), urllib.request.HTTPSHandler())
        if guard is None
        else (_GuardedHttp(guard), _GuardedHttps(guard))
    )
    for handler in (
        *connecting,
        urllib.request.HTTPDefaultErrorHandler(),
        _HttpOnlyRedirects(guard),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


class _GuardedHttp(urllib.request.HTTPHandler):
    """Connects where a guard allows it."""

    def __init__(self, guard: UrlGuard) -> None:
        super().__init__()
        self._guard = guard

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        def connection(host: str, **options: Any) -> http.client.HTTPConnection:
            made = http.client.HTTPConnection(host, **options)
            made._create_connection = self._guard.connect  # type: ignore[attr-defined]
            return made

        return self.do_open(connection, req)


class _GuardedHttps(urllib.request.HTTPSHandler):
    """The same with TLS; the certificate is checked for the host's name."""

    def __init__(self, guard: UrlGuard) -> None:
        super().__init__()
        self._guard = guard

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        def connection(host: str, **options: Any) -> http.client.HTTPSConnection:
            made = http.client.HTTPSConnection(host, **options)
            made._create_connection = self._guard.connect  # type: ignore[attr-defined]
            return made

        return self.do_open(connection, req)
