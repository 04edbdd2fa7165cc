"""What every request must pass: a known Host, no foreign Origin, the key. Also gives each request its id.

A page on the internet can make a browser send requests to 127.0.0.1, under a name of its own that it lets point there.
Such a request has that name as its Host, or the page as its Origin, and is refused.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import re
import time
import uuid
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError

OPEN_PATHS = frozenset({"/health", "/"})
"""What needs no key."""

_log = logging.getLogger("phi3v.serve")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Guard:
    """ASGI middleware around everything."""

    def __init__(self, app: ASGIApp, api_key: str | None, hosts: Sequence[str], origins: Sequence[str]) -> None:
        self._app = app
        self._key = api_key
        self._hosts = {"localhost", *(host.lower() for host in hosts)}
        self._origins = set(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with an error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, began = Headers(scope=scope), time.perf_counter()
        given = headers.get("x-request-id", "")
        number = given if _ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = number
            await send(message)

        refused = self._refuse(scope["path"], scope["method"], headers)
        try:
            await (self._app if refused is None else refused.response(scope["path"]))(scope, receive, send_with_id)
        finally:
            taken = time.perf_counter() - began
            _log.info("%s %s %s %d %.3f s", number, scope["method"], scope["path"], status, taken)

    def _refuse(self, path: str, method: str, headers: Headers) -> ApiError | None:
        host = headers.get("host", "")
        if host and not self._knows(host):
            return ApiError(
                403,
                f"this server is not called {host[:100]!r}; start it with --allow-host {_name_of(host)[:99] or 'NAME'}",
            )
        origin = headers.get("origin")
        if origin is not None and origin not in self._origins and urlsplit(origin).netloc != host:
            return ApiError(
                403, f"pages of {origin[:100]!r} may not ask; start the server with --cors-origin {origin[:100]}"
            )
        if self._key is None or path in OPEN_PATHS or method == "OPTIONS":
            return None
        kind, _, key = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and hmac.compare_digest(key.strip().encode(), self._key.encode()):
            return None
        return ApiError(
            401, "the API key is missing or wrong; send it as `Authorization: Bearer KEY`", code="invalid_api_key"
        )

    def _knows(self, host: str) -> bool:
        """Whether a Host header is an address, which no name server can redirect, or a name of ours."""
        name = _name_of(host)
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._hosts
        return True


def _name_of(host: str) -> str:
    """A Host header without its port and brackets."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""
