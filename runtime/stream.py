"""The tokens of one answer as they come: the one decode path behind `generate`, `stream`, sessions and the CLI."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Protocol

from .answer import Answer
from .backend import Backend, Generation, Preprocessor, Reuse
from .closing import Closing
from .errors import InferenceError, Phi3VError
from .prepare import PreparedRequest
from .types import GenerationResult, Token


class SessionStreams(Protocol):
    """Streams of one session, one after the other, which need not read again what the last one has read."""

    @property
    def kept_tokens(self) -> int:
        """Number of tokens whose KV memory is already allocated in this process."""
        ...

    def open(self, prepared: PreparedRequest) -> TokenStream:
        """The answer to a request."""
        ...

    def close(self) -> None:
        """Free what is kept."""
        ...


class Answerer(Closing):
    """Answers requests that are prepared: a model in this process, or in another one (process/process_engine.py)."""

    source: Preprocessor
    """Prepares requests for it."""
    waits: bool
    """Whether a request waits until there is memory for it; else it must fit when it is prepared."""

    @abstractmethod
    def open(self, prepared: PreparedRequest) -> TokenStream:
        """The answer to a request, token by token."""

    @abstractmethod
    def open_session(self) -> SessionStreams:
        """Streams that reuse what the one before has read."""

    @abstractmethod
    def answer_all(
        self, prepared: Iterable[PreparedRequest | Phi3VError], batch_size: int | None, max_memory: int | None
    ) -> Iterator[tuple[int, GenerationResult | Phi3VError]]:
        """(Number in the order given, outcome) of every request as soon as it is known, as `Engine.answer_prepared`."""


class TokenStream(Closing):
    """The tokens of one answer, as they come.

    with engine.stream("What is this?", ["photo.jpg"]) as stream:
        for token in stream:
            print(token.text, end="", flush=True)
    print(stream.result.usage)

    If `max_new_tokens` cuts off an answer that must match a format, iterating raises TruncatedAnswerError; `result`
    holds what there is. One thread reads the stream. `cancel` and `close` may be called from any other thread: they
    wait for the step that is running, and the reader's loop ends there.
    """

    def __init__(self, backend: Backend, prepared: PreparedRequest, reuse: Reuse | None = None) -> None:
        """`reuse` starts the answer, if KV caches of earlier ones are to be reused."""
        self._answer = Answer(backend, prepared)
        self._reuse = reuse
        self._generation: Generation | None = (reuse or backend).start(
            prepared.inputs, self._answer.chooser, prepared.request.max_new_tokens
        )
        self._lock = threading.RLock()
        self._cancelled = False
        self.failed = False
        """Whether it ended with an error."""

    @property
    def finished(self) -> bool:
        """Whether there is a result."""
        return self._answer.finish_reason is not None

    @property
    def result(self) -> GenerationResult:
        """The finished answer. Raises InferenceError while tokens are still to come."""
        if self._answer.finish_reason is None:
            raise InferenceError("the answer is not finished: iterate the stream to its end, or cancel() it, first")
        return self._answer.result()

    def cancel(self) -> None:
        """End the answer here: `finish_reason` is "cancelled" and the text so far is kept."""
        self._cancelled = True  # a quick reader would otherwise take the lock again and again before we get it
        with self._lock:
            self._answer.cancel()
            self._free()

    def close(self) -> None:
        """Free the KV cache; an unfinished answer counts as cancelled."""
        self.cancel()

    def drain(self) -> GenerationResult:
        """Read the remaining tokens, close the stream and return the finished answer."""
        with self:
            for _ in self:
                pass
            return self.result

    def __iter__(self) -> Iterator[Token]:
        while (token := self._locked_next()) is not None:
            yield token

    def _locked_next(self) -> Token | None:
        """The next token, None after the last."""
        with self._lock:
            if self._cancelled:
                self.cancel()
            return None if self._generation is None else self._next(self._generation)

    def _next(self, generation: Generation) -> Token:
        began = time.perf_counter()
        try:
            token_id = generation.step()
        except BaseException:
            self.failed = True
            self.cancel()
            raise
        if self._reuse is not None:
            self._answer.cached_tokens = self._reuse.reused_tokens
        try:
            return self._answer.push(token_id, time.perf_counter() - began)
        except BaseException:
            self.failed = True
            raise
        finally:
            if self._answer.finish_reason:
                self._free()

    def _free(self) -> None:
        if self._generation is not None:
            self._generation.close()
            self._generation = None
