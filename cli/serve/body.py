"""Reads the body of a request, as bytes or as a pydantic model: bounded in bytes and in time, before it is used."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from .errors import ApiError, as_param_error
from .settings import MAX_BODY_BYTES

M = TypeVar("M", bound=BaseModel)


async def read_body(request: Request, kind: type[M], timeout_s: float) -> M:
    """The body as a model. Raises ApiError."""
    data = await read_bytes(request, timeout_s)
    try:
        return await asyncio.to_thread(kind.model_validate_json, data)
    except ValidationError as exc:
        raise as_param_error(exc) from exc


async def read_bytes(request: Request, timeout_s: float) -> bytes:
    """The body as it was sent. Raises ApiError."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _read_bounded(request)
    except TimeoutError as exc:
        raise ApiError(408, f"the request did not arrive within {timeout_s:g} s") from exc
    except ClientDisconnect as exc:
        raise ApiError(400, "the connection ended before the request did") from exc


async def _read_bounded(request: Request) -> bytes:
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > MAX_BODY_BYTES:
        raise _too_large()
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise _too_large()
    return bytes(body)


def _too_large() -> ApiError:
    return ApiError(
        413, f"the request is larger than the {MAX_BODY_BYTES >> 20} MiB allowed; send smaller images", code="too_large"
    )
