"""The bytes behind a path, URL, `data:` URL or binary file. Nothing is decoded here.

Loads neither numpy nor Pillow.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import urllib.parse
from collections.abc import Callable
from typing import BinaryIO

from ..errors import ImageError
from .local_file import MAX_FILE_BYTES, check_bytes, read_bounded, read_file
from .naming import shorten_path, shorten_text, shown_url
from .pages import extract_page, split_page


class HeldFile:
    """An image file that is read when it is first wanted, and kept: a pipe, or what another process sent.

    `name` is what messages call it. `from_disk`: its first bytes can be checked before a model is loaded for it.
    """

    def __init__(self, name: str, read: Callable[[], bytes], *, from_disk: bool = False) -> None:
        self.name = name
        self.from_disk = from_disk
        self._read = read
        self._data: bytes | None = None

    def read(self) -> bytes:
        """All of it. Raises ImageError or its subclasses."""
        if self._data is None:
            self._data = self._read()
        return self._data


ByteSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | HeldFile
"""A path, the bytes of a file, an http(s) or `data:` URL, a binary file."""

_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{120,}={0,2}\s*")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def read_source(source: ByteSource) -> tuple[bytes, str]:
    """The bytes behind a source, and its name in messages. Raises ImageError or its subclasses."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        check_bytes(len(source), "the image")
        return bytes(source), "the image"
    if isinstance(source, str) and source[:5].lower() == "data:":
        return _from_data_url(source), shorten_text(source)
    if isinstance(source, str) and is_http(source):
        from .fetch import fetch_url  # urllib.request takes its time to import

        return fetch_url(source, MAX_FILE_BYTES), shown_url(source)
    if isinstance(source, str) and (scheme := _SCHEME.match(source)):
        raise ImageError(
            f"{shorten_text(shown_url(source))}: {scheme[0]} is not supported; give the file's path, an http(s) or "
            "data: URL"
        )
    if isinstance(source, str) and _BASE64.fullmatch(source) and not os.path.exists(source):  # noqa: PTH110
        raise ImageError(
            f"{shorten_text(source)}: base64 stands alone where a path or URL is wanted; put data:image/png;base64, "
            "in front"
        )
    if isinstance(source, (str, os.PathLike)):
        return _from_path(os.fspath(source)), shorten_path(source)
    if isinstance(source, HeldFile):
        return source.read(), source.name
    if hasattr(source, "read"):
        name = str(getattr(source, "name", "the file object"))
        try:
            return read_bounded(source.read, name), name
        except ImageError:
            raise
        except Exception as exc:  # a caller's own object raises what it likes
            raise ImageError(f"{name} cannot be read ({exc}); open it with mode 'rb'") from exc
    raise ImageError(
        f"an image is a path, URL, bytes, PIL image, uint8 array or binary file, not {type(source).__name__}"
    )


def is_http(source: str) -> bool:
    """Whether a source is fetched over the network."""
    return source[:8].lower().startswith(("http://", "https://"))


def _from_path(source: str) -> bytes:
    """An image file's bytes, or those of an image of its page that `source` names."""
    path, page = split_page(source)
    return extract_page(read_file(path), page, shorten_path(path))


def _from_data_url(url: str) -> bytes:
    header, comma, body = url.partition(",")
    if not comma:
        raise ImageError(f"{shorten_text(url)}: no comma; a data: URL looks like data:image/png;base64,....")
    check_bytes(len(body) * 3 // 4, shorten_text(url))
    try:
        raw = urllib.parse.unquote_to_bytes(body)
        if not header.lower().endswith(";base64"):
            return raw
        return base64.b64decode(b"".join(raw.split()), validate=True)  # encoders break lines
    except UnicodeEncodeError as exc:
        raise ImageError(f"{header[:40]!r}: the data: URL is not valid Unicode ({exc.reason})") from exc
    except binascii.Error as exc:
        raise ImageError(f"{shorten_text(url)}: the base64 is damaged ({exc})") from exc
