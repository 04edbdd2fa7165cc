"""Files and pipes of this machine, read up to a size. Nothing is decoded here."""

from __future__ import annotations

import os
import select
import stat
import time
from collections.abc import Callable
from pathlib import Path

from ..errors import ImageError, ImageNotFoundError
from .naming import shorten_path

MAX_FILE_BYTES = 100 << 20
_CHUNK = 1 << 20
"""Bytes that are read at a time: asking for all at once would take the memory of the largest file for the smallest."""

PIPE_TIMEOUT_S = 60.0
"""Longest silence of a pipe, such as <(curl ...) of a shell."""


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
        check_bytes(status.st_size, name)
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
        check_bytes(len(body), name)
    return bytes(body)


def check_bytes(size: int, name: str) -> None:
    """Raise ImageError for a file of more than `MAX_FILE_BYTES`."""
    if size > MAX_FILE_BYTES:
        raise ImageError(f"{name} is larger than the {MAX_FILE_BYTES >> 20} MiB allowed; save it smaller")
