"""The bytes behind a path, URL, `data:` URL or binary file. Nothing is decoded here.

Loads neither numpy nor Pillow.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import select
import stat
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ..errors import ImageError, ImageNotFoundError
from .naming import shorten_path, shorten_text, shown_url


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

MAX_FILE_BYTES = 100 << 20
_CHUNK = 1 << 20
"""Bytes that are read at a time: asking for all at once would take the memory of the largest file for the smallest."""

PIPE_TIMEOUT_S = 60.0
"""Longest silence of a pipe, such as <(curl ...) of a shell."""

_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{120,}={0,2}\s*")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def read_source(source: ByteSource) -> tuple[bytes, str]:
    """The bytes behind a source, and its name in messages. Raises ImageError or its subclasses."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        _check_bytes(len(source), "the image")
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
    from .pages import extract_page, split_page

    path, page = split_page(source)
    return extract_page(read_file(path), page, shorten_path(path))


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file or a pipe. Raises ImageNotFoundError, and ImageError for anything else or too much."""
    name = shorten_path(path)
    try:
        # Opening a pipe would wait for a writer; O_NONBLOCK does not, and changes nothing for a file.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as exc:
        raise ImageNotFoundError(f"{name}: no such file; check the path") from exc
    except (OSError, ValueError) as exc:
        raise ImageNotFoundError(f"{name}: cannot be read ({getattr(exc, 'strerror', None) or exc})") from exc
    try:
        status = os.fstat(descriptor)
        if stat.S_ISFIFO(status.st_mode):
            return read_bounded(lambda size: _read_pipe(descriptor, size, name), name)
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "neither a file nor a pipe"
            raise ImageError(f"{name} is {kind}; name one image file, or - for standard input")
        _check_bytes(status.st_size, name)
        return read_bounded(lambda size: os.read(descriptor, size), name)
    except OSError as exc:
        raise ImageNotFoundError(f"{name}: cannot be read ({exc.strerror or exc})") from exc
    finally:
        os.close(descriptor)


def is_pipe(path: str) -> bool:
    """Whether a path is a named pipe or a shell's <(command), which can be read once."""
    try:
        return stat.S_ISFIFO(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False


def _read_pipe(descriptor: int, size: int, name: str) -> bytes:
    """Like os.read, from a pipe that does not block. One that nobody writes to is at its end."""
    deadline = time.monotonic() + PIPE_TIMEOUT_S
    while True:
        try:
            return os.read(descriptor, size)
        except BlockingIOError:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise ImageError(f"{name}: nothing came for {PIPE_TIMEOUT_S:.0f} s; check what writes to it") from None


def read_bounded(read: Callable[[int], object], name: str) -> bytes:
    """Everything that `read(size)` returns until it returns nothing. Raises ImageError if that is too much."""
    body = bytearray()
    while chunk := read(_CHUNK):
        if not isinstance(chunk, (bytes, bytearray, memoryview)):
            raise ImageError(f"{name} reads {type(chunk).__name__}, not bytes; open it with mode 'rb'")
        body += chunk
        _check_bytes(len(body), name)
    return bytes(body)


def _from_data_url(url: str) -> bytes:
    header, comma, body = url.partition(",")
    if not comma:
        raise ImageError(f"{shorten_text(url)}: no comma; a data: URL looks like data:image/png;base64,....")
    _check_bytes(len(body) * 3 // 4, shorten_text(url))
    try:
        raw = urllib.parse.unquote_to_bytes(body)
        if not header.lower().endswith(";base64"):
            return raw
        return base64.b64decode(b"".join(raw.split()), validate=True)  # encoders break lines
    except UnicodeEncodeError as exc:
        raise ImageError(f"{header[:40]!r}: the data: URL is not valid Unicode ({exc.reason})") from exc
    except binascii.Error as exc:
        raise ImageError(f"{shorten_text(url)}: the base64 is damaged ({exc})") from exc


def _check_bytes(size: int, name: str) -> None:
    if size > MAX_FILE_BYTES:
        raise ImageError(f"{name} is larger than the {MAX_FILE_BYTES >> 20} MiB allowed; save it smaller")
