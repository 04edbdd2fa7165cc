"""The bytes behind a path, URL, `data:` URL or binary file. Nothing is decoded here.

Loads neither numpy nor Pillow.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
import urllib.parse
from pathlib import Path
from typing import BinaryIO

from ..errors import ImageError, ImageNotFoundError

ByteSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
"""A path, the bytes of a file, an http(s) or `data:` URL, a binary file."""

MAX_FILE_BYTES = 100 << 20
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def read_source(source: ByteSource) -> tuple[bytes, str]:
    """The bytes behind a source, and its name in messages. Raises ImageError or its subclasses."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        _check_bytes(len(source), "the image")
        return bytes(source), "the image"
    if isinstance(source, str) and source[:5].lower() == "data:":
        return _from_data_url(source), _shorten(source)
    if isinstance(source, str) and is_http(source):
        from .fetch import fetch_url  # urllib.request takes its time to import

        return fetch_url(source, MAX_FILE_BYTES), source
    if isinstance(source, str) and (scheme := _SCHEME.match(source)):
        raise ImageError(
            f"{_shorten(source)}: {scheme[0]} is not supported; give the file's path, an http(s) or data: URL"
        )
    if isinstance(source, (str, os.PathLike)):
        return _from_path(Path(source)), str(source)
    if hasattr(source, "read"):
        name = str(getattr(source, "name", "the file object"))
        try:
            data = source.read(MAX_FILE_BYTES + 1)
        except Exception as exc:  # a caller's own object raises what it likes
            raise ImageError(f"{name} cannot be read ({exc}); open it with mode 'rb'") from exc
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise ImageError(f"{name} reads {type(data).__name__}, not bytes; open it with mode 'rb'")
        _check_bytes(len(data), name)
        return bytes(data), name
    raise ImageError(
        f"an image is a path, URL, bytes, PIL image, uint8 array or binary file, not {type(source).__name__}"
    )


def is_http(source: str) -> bool:
    """Whether a source is fetched over the network."""
    return source[:8].lower().startswith(("http://", "https://"))


def _from_path(path: Path) -> bytes:
    try:
        # Opening a pipe would wait for a writer; O_NONBLOCK does not, and changes nothing for a file.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as exc:
        raise ImageNotFoundError(f"{path}: no such file; check the path") from exc
    except (OSError, ValueError) as exc:
        raise ImageNotFoundError(f"{path}: cannot be read ({getattr(exc, 'strerror', None) or exc})") from exc
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise ImageError(f"{path} is {kind}; name one image file, or - for standard input")
        _check_bytes(status.st_size, str(path))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_FILE_BYTES + 1)
    finally:
        os.close(descriptor)


def _from_data_url(url: str) -> bytes:
    header, comma, body = url.partition(",")
    if not comma:
        raise ImageError(f"{_shorten(url)}: no comma; a data: URL looks like data:image/png;base64,....")
    _check_bytes(len(body) * 3 // 4, _shorten(url))
    try:
        raw = urllib.parse.unquote_to_bytes(body)
        if not header.lower().endswith(";base64"):
            return raw
        return base64.b64decode(b"".join(raw.split()), validate=True)  # encoders break lines
    except UnicodeEncodeError as exc:
        raise ImageError(f"{header[:40]!r}: the data: URL is not valid Unicode ({exc.reason})") from exc
    except binascii.Error as exc:
        raise ImageError(f"{_shorten(url)}: the base64 is damaged ({exc})") from exc


def _check_bytes(size: int, name: str) -> None:
    if size > MAX_FILE_BYTES:
        raise ImageError(f"{name} is larger than the {MAX_FILE_BYTES >> 20} MiB allowed; save it smaller")


def _shorten(url: str) -> str:
    return url if len(url) <= 48 else f"{url[:40]}... ({len(url)} characters)"
