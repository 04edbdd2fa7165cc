"""Checks the environment variables that the hub's library and its HTTP client read, before they read them.

They parse some as they are imported and raise whatever that raises; here the variable is named, and what to do.
"""

from __future__ import annotations

import os
import ssl
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from ...errors import ModelFetchError
from ...images.naming import shown_url

_SECONDS = ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT")
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_SCHEMES = ("http", "https", "socks5", "socks5h")


def check_environment() -> None:
    """Raises ModelFetchError for a variable that the hub's library cannot use."""
    for name in _SECONDS:
        value = os.environ.get(name, "").strip()
        if value and not value.isdecimal():
            raise _refuse(name, value, "whole seconds, such as 10")
    if (endpoint := os.environ.get("HF_ENDPOINT")) and not _is_address(endpoint, ("http", "https")):
        raise _refuse("HF_ENDPOINT", endpoint, "an address such as https://huggingface.co")
    for name in _TOKENS:
        if not _is_token(os.environ.get(name, "")):
            raise ModelFetchError(f"{name} holds characters that no token has; set it again, or `unset {name}`")
    _check_proxies()
    _check_certificates()


def describe_settings() -> str:
    """The variables that are set and may be why the hub's library does not start, by name."""
    names = (name for name in os.environ if name.startswith("HF_") or name.upper() in _PROXIES)
    found = ", ".join(sorted(names))
    return f"look at {found}" if found else "no variable of it is set"


def _check_proxies() -> None:
    for name in [name for wanted in _PROXIES for name in (wanted, wanted.lower())]:
        proxy = os.environ.get(name, "")
        address = proxy if "://" in proxy else f"http://{proxy}"
        if not proxy:
            continue
        if not _is_address(address, _SCHEMES):
            raise _refuse(name, shown_url(proxy), f"HOST:PORT, or {', '.join(f'{s}://HOST:PORT' for s in _SCHEMES)}")
        if address.startswith("socks") and find_spec("socksio") is None:
            raise ModelFetchError(
                f"{name} is {shown_url(proxy)!r}, and a SOCKS proxy needs the package socksio; run: pip install "
                f"socksio, or `unset {name}`"
            )


def _check_certificates() -> None:
    """SSL_CERT_FILE and SSL_CERT_DIR replace the system's certificates; where they are wrong, none is known."""
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if file:
        try:
            ssl.create_default_context(cafile=file)
        except (OSError, ValueError) as exc:
            reason = getattr(exc, "strerror", None) or exc
            raise _refuse("SSL_CERT_FILE", file, f"a file of certificates in PEM ({reason})") from exc
    if folder and not Path(folder).is_dir():
        raise _refuse("SSL_CERT_DIR", folder, "a folder of certificates")


def _is_address(text: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts: SplitResult = urlsplit(text)
        return parts.scheme in schemes and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _is_token(text: str) -> bool:
    return all(character.isascii() and character.isprintable() for character in text.strip())


def _refuse(name: str, value: str, allowed: str) -> ModelFetchError:
    return ModelFetchError(f"{name} is {value!r}; allowed: {allowed}; set it so, or `unset {name}`")
