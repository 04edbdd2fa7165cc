"""What messages call an image: short, and without secrets."""

from __future__ import annotations

import os
import re

_LONGEST_NAME = 200
_SECRET = re.compile(r"(?i)([?&][^=&#]*(?:token|key|sig|password|passwd|secret|auth|credential)[^=&#]*=)[^&#]+")
_USER = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://)[^/?#]*@")


def shorten_text(url: str) -> str:
    """A data: URL, or text that stands where an image is wanted, as messages show it."""
    return url if len(url) <= 48 else f"{url[:40]}... ({len(url)} characters)"


def shorten_path(path: str | os.PathLike[str]) -> str:
    """A path as messages show it: of one that is no name any more, the beginning and the end."""
    text = str(path)
    return text if len(text) <= _LONGEST_NAME else f"{text[:80]}...{text[-40:]} ({len(text)} characters)"


def shown_url(url: str) -> str:
    """A URL as messages show it: without passwords and keys, and not at any length."""
    hidden = _SECRET.sub(r"\1***", _USER.sub(r"\1***@", url))
    return shorten_path(hidden)
