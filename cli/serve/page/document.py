"""The page itself: one file, and the headers that keep it from loading or running anything else."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import re
from functools import lru_cache

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


async def home(request: Request) -> Response:
    """The page for browsers; for tools that look whether a server is there, a line of text."""
    if "text/html" not in request.headers.get("accept", ""):
        return PlainTextResponse("phi3v is running\n")
    body, policy = _read_page()
    headers = {
        "content-security-policy": policy,
        "cache-control": "no-cache",
        "permissions-policy": "camera=(self), microphone=(), geolocation=()",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "vary": "accept",
    }
    return Response(body, media_type="text/html", headers=headers)


@lru_cache(maxsize=1)
def _read_page() -> tuple[bytes, str]:
    """The page and its content-security policy, which allows its own script and style by their hashes."""
    page = importlib.resources.files(__package__).joinpath("index.html").read_text(encoding="utf-8")
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for tag, content in _INLINE.findall(page):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        hashes[tag].append(f"'sha256-{digest}'")
    rules = {
        "default-src": "'none'",
        "script-src": " ".join(hashes["script"]),
        "style-src": " ".join(hashes["style"]),
        "img-src": "'self' data: blob:",
        "media-src": "blob: mediastream:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return page.encode(), "; ".join(f"{name} {value}" for name, value in rules.items())
