"""Several answers to one request, read together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

from phi3v import GenerationRequest, GenerationResult, Token

from .service import Answering, Service


@dataclass(slots=True)
class Finished:
    """A finished answer and its tokens."""

    result: GenerationResult
    tokens: list[Token] = field(default_factory=list)


async def open_answers(service: Service, request: GenerationRequest, count: int = 1) -> list[Answering]:
    """Begin so many answers; each draws with a seed of its own. Raises what `Service.open` does, and then none runs."""
    opened: list[Answering] = []
    try:
        for number in range(count):
            opened.append(await service.open(_with_seed(request, number)))
    except BaseException:
        for answering in opened:
            answering.close()
        raise
    return opened


def _with_seed(request: GenerationRequest, number: int) -> GenerationRequest:
    seed = request.sampling.seed
    if not number or seed is None:
        return request
    return replace(request, sampling=replace(request.sampling, seed=(seed + number) % 2**31))


async def read_all(answers: Sequence[Answering]) -> list[Finished]:
    """All answers to their end. Raises the first error; the others are cancelled."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_read(answering)) for answering in answers]
    except BaseExceptionGroup as exc:
        raise exc.exceptions[0] from None
    finally:
        for answering in answers:
            answering.close()
    return [task.result() for task in tasks]


async def _read(answering: Answering) -> Finished:
    tokens = [token async for token in answering]
    return Finished(answering.result, tokens)


async def read_tokens(answers: Sequence[Answering]) -> AsyncIterator[tuple[int, Token | GenerationResult]]:
    """(Number of the answer, token or, at its end, result) as they come. Raises the first error."""
    queue: asyncio.Queue[tuple[int, Token | GenerationResult | BaseException]] = asyncio.Queue()

    async def relay(number: int, answering: Answering) -> None:
        try:
            async for token in answering:
                queue.put_nowait((number, token))
            queue.put_nowait((number, answering.result))
        except BaseException as exc:
            queue.put_nowait((number, exc))
            raise

    tasks = [asyncio.create_task(relay(number, answering)) for number, answering in enumerate(answers)]
    try:
        left = len(tasks)
        while left:
            number, found = await queue.get()
            if isinstance(found, BaseException):
                raise found
            left -= isinstance(found, GenerationResult)
            yield number, found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for answering in answers:
            answering.close()


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())
