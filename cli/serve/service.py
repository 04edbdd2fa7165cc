"""The model behind the APIs: loaded, unloaded when idle, and asked by no more clients than may wait."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator

from phi3v import AsyncEngine, GenerationRequest, GenerationResult, Token
from phi3v.async_engine import AsyncTokenStream
from phi3v.errors import Phi3VError, TruncatedAnswerError
from phi3v.models.folder import ModelDir
from phi3v.tokenizer import Tokenizer

from .errors import ApiError
from .metrics import Metrics
from .settings import Settings


class Service:
    """One model, for all clients."""

    def __init__(self, settings: Settings, folder: ModelDir) -> None:
        self.settings = settings
        self.folder = folder
        self.metrics = Metrics()
        self.started_at = int(time.time())
        self.failure: Phi3VError | None = None
        """Why the model could not be loaded."""
        self.keep_alive_s = settings.keep_alive_s
        self.used_at = time.time()
        self._engine: AsyncEngine | None = None
        self._loading: asyncio.Task[AsyncEngine] | None = None
        self._tokenizer: Tokenizer | None = None
        self._closing: asyncio.Task[None] | None = None
        self._asking = 0
        self._idle: asyncio.TimerHandle | None = None
        self._seconds = 1.0
        """What an answer took lately."""

    @property
    def name(self) -> str:
        """What clients call the model."""
        return self.folder.name

    @property
    def engine(self) -> AsyncEngine | None:
        """The loaded model; None while there is none."""
        return self._engine

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own."""
        if self._tokenizer is None:
            self._tokenizer = Tokenizer(self.folder.path / "tokenizer.json")
        return self._tokenizer

    @property
    def idle(self) -> bool:
        """Whether the model was unloaded because nobody asked; the next request loads it."""
        return self._loading is None and self.failure is None

    @property
    def loaded(self) -> bool:
        """Whether a request would be answered at once."""
        return self._engine is not None and self._engine.process.ready

    def check_model(self, name: str) -> None:
        """Raise ApiError unless this is the model's name; Ollama's clients put a tag behind it."""
        if name.removesuffix(":latest") != self.name:
            raise ApiError(
                404,
                f"there is no model {name[:100]!r} here; allowed: {self.name!r}",
                param="model",
                code="model_not_found",
            )

    def begin_loading(self) -> asyncio.Task[AsyncEngine]:
        """Load the model, unless that is done or under way."""
        if self._loading is None:
            self._loading = asyncio.create_task(self._load())
        return self._loading

    async def close(self) -> None:
        """End the model's process."""
        if self._loading is not None:
            with contextlib.suppress(Phi3VError, asyncio.CancelledError):
                engine = await self._loading
                await engine.close()
        self._engine = self._loading = None

    async def open(self, request: GenerationRequest) -> Answering:
        """Begin an answer. Raises ApiError if too many wait, and what makes the answer impossible."""
        if self._asking >= self.settings.max_queue:
            wait = math.ceil(self._seconds * self._asking / 8)
            raise ApiError(
                429,
                f"{self._asking} requests wait or run already, which is all that --max-queue allows; try again later",
                code="queue_full",
                retry_after_s=min(60, wait),
            )
        self._asking += 1
        self._rearm()
        try:
            engine = await asyncio.shield(self.begin_loading())
            answering = Answering(self, engine.stream_request(request))
            await answering.begin()
            return answering
        except BaseException:
            self.leave()
            raise

    def leave(self, seconds: float | None = None) -> None:
        """An answer has ended, after so many seconds."""
        self._asking -= 1
        self.used_at = time.time()
        if seconds is not None:
            self._seconds = 0.8 * self._seconds + 0.2 * seconds
        self._rearm()

    async def _load(self) -> AsyncEngine:
        settings = self.settings
        engine = AsyncEngine(self.folder.path, settings.device, max_memory=settings.max_memory)
        try:
            await engine.start()
        except Phi3VError as exc:
            self.failure, self._loading = exc, None
            raise
        self._engine, self.failure = engine, None
        self._rearm()
        return engine

    def _rearm(self) -> None:
        """Restart the idle time, or stop it while a client is being answered."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if not self._asking and self._engine is not None and self.keep_alive_s < math.inf:
            self._idle = asyncio.get_running_loop().call_later(self.keep_alive_s, self.unload)

    def unload(self) -> None:
        """End the model's process, unless it is answering. The next request starts another."""
        if self._asking or self._engine is None:
            return
        engine, self._engine, self._loading = self._engine, None, None
        self._closing = asyncio.create_task(engine.close())


class Answering:
    """One answer: its tokens, then its result. Whoever has one closes it, by reading it to its end or by `close`."""

    def __init__(self, service: Service, stream: AsyncTokenStream) -> None:
        self._service = service
        self._stream = stream
        self._began = time.perf_counter()
        self._first = True
        self._open = True
        self._gauge = service.metrics.waiting
        self._gauge.inc()

    @property
    def result(self) -> GenerationResult:
        """The finished answer."""
        return self._stream.result

    async def begin(self) -> None:
        """Decode its images and hand it to the model. Raises Phi3VError."""
        try:
            await self._stream.open()
        except BaseException:
            self._gauge.dec()
            self._open = False
            raise

    async def __aiter__(self) -> AsyncIterator[Token]:
        try:
            async for token in self._stream:
                if self._first:
                    self._note_first()
                yield token
        except TruncatedAnswerError:
            pass  # its finish_reason says so
        finally:
            self.close()

    def close(self) -> None:
        """Cancel what has not ended."""
        if not self._open:
            return
        self._open = False
        self._stream.cancel()
        self._gauge.dec()
        with contextlib.suppress(Phi3VError):
            self._service.metrics.note(self._stream.result)
        self._service.leave(time.perf_counter() - self._began)

    def _note_first(self) -> None:
        self._first = False
        metrics, now = self._service.metrics, time.perf_counter()
        metrics.ttft.observe(now - self._began)
        if (begun := self._stream.begun_at) is not None:
            metrics.queue.observe(max(0.0, begun - self._began))
        self._gauge.dec()
        self._gauge = metrics.running
        self._gauge.inc()
