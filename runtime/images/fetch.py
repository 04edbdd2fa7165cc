"""Fetches one image over http(s), bounded in time and size; never another scheme, not even after a redirect."""

from __future__ import annotations

import http.client
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from email.message import Message
from queue import Empty, SimpleQueue
from typing import IO

from ..errors import ImageFetchError

CONNECT_TIMEOUT_S = 10.0
"""Longest wait for a connection and for each read."""

TOTAL_TIMEOUT_S = 60.0
_CHUNK = 1 << 16


def fetch_url(
    url: str, max_bytes: int, *, timeout_s: float = CONNECT_TIMEOUT_S, total_s: float = TOTAL_TIMEOUT_S
) -> bytes:
    """Body of an http(s) URL. Raises ImageFetchError that names the URL and what went wrong."""
    outcome: SimpleQueue[bytes | Exception] = SimpleQueue()

    def fetch() -> None:
        try:
            outcome.put(_fetch(url, max_bytes, timeout_s, total_s))
        except Exception as exc:
            outcome.put(exc)

    # In a thread of its own: no timeout of a socket bounds a server that sends its headers byte by byte.
    threading.Thread(target=fetch, daemon=True).start()
    try:
        got = outcome.get(timeout=total_s)
    except Empty:
        raise ImageFetchError(f"{url}: too slow (no end within {total_s:g} s); download it and give the file") from None
    if isinstance(got, bytes):
        return got
    try:
        raise got
    finally:
        del got  # it holds this frame, which would hold it


def _fetch(url: str, max_bytes: int, timeout_s: float, total_s: float) -> bytes:
    deadline = time.monotonic() + total_s
    try:
        request = urllib.request.Request(_quote(url), headers={"User-Agent": "phi3v", "Accept": "image/*"})
        with _OPENER.open(request, timeout=min(timeout_s, total_s)) as response:
            return _read_all(response, url, max_bytes, deadline)
    except ImageFetchError:
        raise
    except urllib.error.HTTPError as exc:
        exc.close()
        if 300 <= exc.code < 400:
            raise ImageFetchError(
                f"{url}: redirects to a place that is not followed ({' '.join(str(exc.reason).split())}); allowed: "
                "ten times at most, to http and https"
            ) from exc
        raise ImageFetchError(f"{url}: the server answered {exc.code} {exc.reason}; open it in a browser") from exc
    except TimeoutError as exc:
        raise ImageFetchError(f"{url}: no answer within {timeout_s:g} s; download it and give the file") from exc
    except (urllib.error.URLError, OSError, http.client.HTTPException, ValueError) as exc:
        reason = getattr(exc, "reason", None) or exc
        raise ImageFetchError(f"{url}: cannot be fetched ({reason}); check the address and the network") from exc


def _quote(url: str) -> str:
    """The URL with umlauts, spaces and the like in its path and query percent-encoded; escapes in it stay."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ImageFetchError(f"{url}: allowed: http://... and https://... addresses")
    keep = "%/:=&?~#+!$,;'@()*[]"
    path, query = (urllib.parse.quote(part, safe=keep) for part in (parts.path, parts.query))
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, query, ""))


def _read_all(response: http.client.HTTPResponse, url: str, max_bytes: int, deadline: float) -> bytes:
    body = bytearray()
    while chunk := response.read1(_CHUNK):
        body += chunk
        if len(body) > max_bytes:
            raise ImageFetchError(f"{url}: more than the {max_bytes:,} bytes allowed; give a smaller image")
        if time.monotonic() > deadline:
            raise ImageFetchError(f"{url}: too slow ({len(body)} bytes so far); download it and give the file")
    expected = response.headers.get("Content-Length", "")
    if expected.isdigit() and len(body) < int(expected):
        raise ImageFetchError(f"{url}: the connection broke after {len(body)} of {expected} bytes; try again")
    return bytes(body)


class _HttpOnlyRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https alone: a server must not make us read file:// or ftp://."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        fp.close()  # else its body, of any length, would be read first
        if urllib.parse.urlsplit(newurl).scheme not in ("http", "https"):
            raise ImageFetchError(f"{req.full_url}: redirects to {newurl}; allowed: http and https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


_OPENER = urllib.request.OpenerDirector()
for _handler in (
    urllib.request.ProxyHandler(),
    urllib.request.HTTPHandler(),
    urllib.request.HTTPSHandler(),
    urllib.request.HTTPDefaultErrorHandler(),
    _HttpOnlyRedirects(),
    urllib.request.HTTPErrorProcessor(),
):
    _OPENER.add_handler(_handler)
