"""Server-sent events, and what ends an answer when its client goes away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse

PING_S = 10.0
"""A comment is sent so often while the model reads, so that no proxy thinks the connection is dead."""

T = TypeVar("T")


def event(content: Any, name: str | None = None) -> str:
    """One event, of JSON."""
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {json.dumps(content, ensure_ascii=False, separators=(',', ':'))}\n\n"


def event_stream(
    events: AsyncIterator[str], *, media_type: str = "text/event-stream", ping: str = ": ping\n\n"
) -> StreamingResponse:
    """A response of events as they come, with a sign of life in between. A client that goes away ends `events`."""
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    return StreamingResponse(_with_pings(events, ping), media_type=media_type, headers=headers)


async def _with_pings(events: AsyncIterator[str], ping: str) -> AsyncIterator[str]:
    following = asyncio.ensure_future(anext(events))
    try:
        while True:
            done, _ = await asyncio.wait({following}, timeout=PING_S)
            if not done:
                if ping:
                    yield ping
                continue
            try:
                found = following.result()
            except StopAsyncIteration:
                return
            yield found
            following = asyncio.ensure_future(anext(events))
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await events.aclose()  # type: ignore[attr-defined]


class ClientGoneError(Exception):
    """Nobody waits for this response any more."""


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do the work, but cancel it when the client goes away. Raises ClientGoneError then."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_wait_for_end(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _wait_for_end(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
