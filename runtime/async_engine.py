"""The engine for asyncio: the model is in a process of its own, and the event loop is never held up."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import Empty
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack

from .engine import Engine, begin_process, read_answer_type
from .errors import InferenceError, Phi3VError
from .options import ExtractOptions, GenerationOptions, SessionOptions, make_request
from .prepare import attempt
from .process.model_process import ModelProcess, Parcel
from .process.process_engine import ProcessAnswerer, ProcessStream
from .types import GenerationRequest, GenerationResult, Token

if TYPE_CHECKING:
    from .images.load import ImageSource
    from .machine.device_table import DeviceName
    from .models.folder import ModelDir
    from .session import Session
    from .types import Turn

T = TypeVar("T")
_PREPARING = 2
"""Threads that decode images and cut them into crops."""


class AsyncEngine:
    """A model in a process of its own, for asyncio.

    async with phi3v.AsyncEngine("nano") as engine:
        print(await engine.generate("What is the title?", ["cover.jpg"]))
        async for token in engine.stream("Explain the chart.", ["chart.png"]):
            print(token.text, end="")

    Any number of tasks may ask at the same time; requests that wait run together, and an image that was read is not
    read again. Cancelling a task cancels its answer. If the model's process dies, what was running raises an
    InferenceError, and a fresh process answers what comes.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        device: DeviceName | None = None,
        *,
        threads: int | None = None,
        prefill: Literal["auto", "int8", "int4"] | None = None,
        cuda_graph: bool = False,
        batch_size: int | None = None,
        max_memory: int | None = None,
    ) -> None:
        """The arguments of `phi3v.load`. `batch_size`: the most answers in one batch (default 8). `max_memory`: bytes
        beside the model for all answers that run and everything that is kept (default: half of what is free).
        """
        self._begin = partial(
            begin_process,
            model,
            device,
            threads=threads,
            prefill=prefill,
            cuda_graph=cuda_graph,
            batch_size=batch_size,
            max_memory=max_memory,
        )
        self._engine: Engine | None = None
        self._pool = ThreadPoolExecutor(_PREPARING, "phi3v-prepare")

    async def start(self) -> None:
        """Load the model. `async with` does it. Raises only subclasses of Phi3VError."""
        if self._engine is not None:
            return
        process = await self._run(self._begin)
        try:
            await self._run(process.wait_until_loaded)
        except asyncio.CancelledError:
            process.close()  # which ends the wait too
            raise
        self._engine = Engine(ProcessAnswerer(process))

    async def close(self) -> None:
        """End the model's process, whatever it is doing."""
        if self._engine is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._engine.close)
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def model(self) -> ModelDir:
        """The model folder and its limits."""
        return self._loaded.model

    @property
    def device(self) -> str:
        """The device the model runs on."""
        return self._loaded.device

    @property
    def process(self) -> ModelProcess:
        """The process that holds the model."""
        return self._answerer.process

    async def generate(
        self, prompt: str, images: Sequence[ImageSource] = (), **options: Unpack[GenerationOptions]
    ) -> GenerationResult:
        """As `Engine.generate`."""
        return await self.stream(prompt, images, **options).drain()

    def stream(
        self, prompt: str, images: Sequence[ImageSource] = (), **options: Unpack[GenerationOptions]
    ) -> AsyncTokenStream:
        """As `Engine.stream`, read with `async for`; images are decoded when the first token is asked for."""
        return self.stream_request(make_request(prompt, images, **options))

    def stream_request(self, request: GenerationRequest) -> AsyncTokenStream:
        """As `Engine.stream_request`."""
        answerer = self._answerer
        return AsyncTokenStream(answerer, partial(self._run, _prepare, answerer, request))

    async def extract(
        self, kind: Any, prompt: str, images: Sequence[ImageSource] = (), **options: Unpack[ExtractOptions]
    ) -> Any:
        """As `Engine.extract`."""
        answer = read_answer_type(kind, options)
        result = await self.generate(prompt, images, answer_format=answer.format, **options)
        return answer.read(result.text)

    async def generate_batch(self, requests: Iterable[GenerationRequest]) -> list[GenerationResult | Phi3VError]:
        """As `Engine.generate_batch`, with the limits that this engine was made with."""
        return list(await asyncio.gather(*(self._attempt(request) for request in requests)))

    async def session(self, images: Sequence[ImageSource] = (), **settings: Any) -> AsyncSession:
        """As `Engine.session`."""
        return AsyncSession(self, await self._run(partial(self._loaded.session, images, **settings)))

    async def _attempt(self, request: GenerationRequest) -> GenerationResult | Phi3VError:
        try:
            return await self.stream_request(request).drain()
        except Phi3VError as exc:
            return exc

    async def _run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a function in one of the threads that prepare requests."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    @property
    def _loaded(self) -> Engine:
        if self._engine is None:
            raise InferenceError(
                "the model is not loaded yet: use `async with phi3v.AsyncEngine(...)`, or await start()"
            )
        return self._engine

    @property
    def _answerer(self) -> ProcessAnswerer:
        answerer = self._loaded.answerer
        assert isinstance(answerer, ProcessAnswerer)
        return answerer


class AsyncTokenStream:
    """The tokens of one answer, as they come: `async for token in stream`, then `stream.result`."""

    def __init__(self, answerer: ProcessAnswerer, prepare: Callable[[], Awaitable[Parcel]]) -> None:
        self._answerer = answerer
        self._prepare = prepare
        self._stream: ProcessStream | None = None
        self._something = asyncio.Event()

    @property
    def result(self) -> GenerationResult:
        """The finished answer. Raises InferenceError while tokens are still to come."""
        if self._stream is None:
            raise InferenceError("the answer is not begun: iterate the stream first")
        return self._stream.result

    @property
    def begun_at(self) -> float | None:
        """When the model began to read the prompt, as of `time.perf_counter`; None until then."""
        return None if self._stream is None else self._stream.begun_at

    async def open(self) -> None:
        """Prepare the request and send it, which the first token otherwise does. Raises what makes it impossible."""
        if self._stream is None:
            loop, something = asyncio.get_running_loop(), self._something
            preparing = asyncio.ensure_future(self._prepare())
            try:
                parcel = await asyncio.shield(preparing)
            except asyncio.CancelledError:
                preparing.add_done_callback(_discard)  # its thread cannot be stopped
                raise
            self._stream = self._answerer.submit(parcel, lambda: _wake(loop, something))

    async def drain(self) -> GenerationResult:
        """Read the remaining tokens and return the finished answer."""
        async with self:
            async for _ in self:
                pass
            return self.result

    def cancel(self) -> None:
        """End the answer here; `result` keeps the text so far."""
        if self._stream is not None:
            self._stream.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    async def __aiter__(self) -> AsyncIterator[Token]:
        try:
            while (token := await self._next()) is not None:
                yield token
        finally:
            self.cancel()

    async def _next(self) -> Token | None:
        await self.open()
        assert self._stream is not None
        while True:
            self._something.clear()
            try:
                return self._stream.next_token(wait=False)
            except Empty:
                await self._something.wait()


class AsyncSession:
    """As `phi3v.Session`: questions about the same images, and conversations. One answer at a time."""

    def __init__(self, engine: AsyncEngine, session: Session) -> None:
        self._engine = engine
        self._session = session

    async def ask(self, prompt: str, **options: Unpack[SessionOptions]) -> GenerationResult:
        """Answer a question about the session's images, whatever was said before."""
        return await self._drain(partial(self._session.stream, prompt, **options))

    async def chat(
        self, prompt: str, images: Sequence[ImageSource] = (), **options: Unpack[SessionOptions]
    ) -> GenerationResult:
        """Continue the conversation."""
        return await self._drain(partial(self._session.chat_stream, prompt, images, **options))

    @property
    def history(self) -> tuple[Turn, ...]:
        """The conversation so far."""
        return self._session.history

    def reset(self) -> None:
        """Forget the conversation; the session's own images stay."""
        self._session.reset()

    async def close(self) -> None:
        """End an unfinished answer."""
        self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _drain(self, begin: Callable[[], Any]) -> GenerationResult:
        stream = await self._engine._run(begin)
        try:
            result: GenerationResult = await asyncio.get_running_loop().run_in_executor(None, stream.drain)
            return result
        finally:
            stream.cancel()


def _wake(loop: asyncio.AbstractEventLoop, something: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # the loop was closed, and nobody reads any more
        loop.call_soon_threadsafe(something.set)


def _prepare(answerer: ProcessAnswerer, request: GenerationRequest) -> Parcel:
    prepared = attempt(answerer.source, request)
    if isinstance(prepared, Phi3VError):
        raise prepared
    return answerer.process.pack(prepared)


def _discard(preparing: asyncio.Future[Parcel]) -> None:
    """Free the crops of a request that nobody waits for any more."""
    if not preparing.cancelled() and preparing.exception() is None:
        preparing.result().discard()
