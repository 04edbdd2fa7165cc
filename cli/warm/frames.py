"""Frames, in which client, server and worker talk: a JSON object, and bytes beside it.

    4 bytes "p3vw" | length of the JSON, 4 bytes | length of the bytes, 8 bytes (big-endian) | JSON | bytes

Imports json and struct alone. Whatever is not a frame within the limits raises FrameError.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    import socket

Message = dict[str, Any]

PROTOCOL = 5
"""Increased whenever a message changes its meaning. The frame itself and the first message never change."""

MESSAGE_FIELDS = "008833c39702d0b2"
"""A hash of the fields that messages carry. tests/test_consistency.py fails when they change, so that nobody forgets to
increase PROTOCOL."""

MAX_JSON = 8 << 20
"""More than a command line can hold, and than an answer as long as the context takes."""

MAX_BYTES = 512 << 20
"""All image files of a request together."""

_HEAD = struct.Struct("!4sIQ")
_MAGIC = b"p3vw"
_CHUNK = 1 << 20


class FrameError(Exception):
    """What came is not a frame, is too large, or breaks off. Never leaves this package."""


def pack(message: Message, data_length: int = 0) -> bytes:
    """Return a frame without its bytes, which are to follow on the wire. Raises FrameError beyond the limits."""
    text = json.dumps(message).encode("ascii")
    _check(len(text), data_length)
    return _HEAD.pack(_MAGIC, len(text), data_length) + text


def send(to: socket.socket, message: Message, *data: bytes) -> None:
    """Write one frame; the pieces of `data` follow each other on the wire."""
    to.sendall(pack(message, sum(map(len, data))))
    for piece in filter(None, data):  # an empty piece after the last byte would fail if the other end has closed
        to.sendall(piece)


def receive(source: socket.socket) -> tuple[Message, bytes]:
    """Read one frame. Raises FrameError, also when the connection ends, and the socket's own OSError."""
    text_length, data_length = _unpack_head(bytes(_read(source, _HEAD.size)))
    text = _read(source, text_length)
    return _parse(bytes(text)), bytes(_read(source, data_length))


async def receive_async(
    reader: asyncio.StreamReader, *, max_bytes: int, patience_s: float | None
) -> tuple[Message, bytes]:
    """Like `receive`. `patience_s` limits the wait for each piece: a sender may be slow, but not silent."""
    text_length, data_length = _unpack_head(bytes(await _read_async(reader, _HEAD.size, patience_s)))
    if data_length > max_bytes:
        raise FrameError(f"{data_length} bytes where {max_bytes} are allowed")
    text = await _read_async(reader, text_length, patience_s)
    return _parse(bytes(text)), bytes(await _read_async(reader, data_length, patience_s))


def _read(source: socket.socket, length: int) -> bytearray:
    got = bytearray()
    while len(got) < length:
        piece = source.recv(min(_CHUNK, length - len(got)))
        if not piece:
            raise FrameError("the connection ended")
        got += piece
    return got


async def _read_async(reader: asyncio.StreamReader, length: int, patience_s: float | None) -> bytearray:
    import asyncio

    got = bytearray()
    while len(got) < length:
        async with asyncio.timeout(patience_s):
            piece = await reader.read(min(_CHUNK, length - len(got)))
        if not piece:
            raise FrameError("the connection ended")
        got += piece
    return got


def _unpack_head(head: bytes) -> tuple[int, int]:
    magic, text_length, data_length = _HEAD.unpack(head)
    if magic != _MAGIC:
        raise FrameError(f"{head[:4]!r} does not begin a frame")
    _check(text_length, data_length)
    return text_length, data_length


def _check(text_length: int, data_length: int) -> None:
    if text_length > MAX_JSON or data_length > MAX_BYTES:
        raise FrameError(f"{text_length} + {data_length} bytes are more than {MAX_JSON} + {MAX_BYTES}")


def _parse(text: bytes) -> Message:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise FrameError(f"not JSON: {exc}") from exc
    if not isinstance(message, dict):
        raise FrameError(f"a {type(message).__name__} instead of an object")
    return message
