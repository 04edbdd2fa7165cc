"""The tokens of one answer as they come: the one decode path behind `generate`, `stream`, sessions and the CLI."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from .answer import Answer
from .backend import Backend, Generation, ModelInputs
from .closing import Closing
from .errors import InferenceError
from .prepare import PreparedRequest
from .sampling import TokenChooser
from .types import GenerationResult, Token

Starter = Callable[[ModelInputs, TokenChooser, int], Generation]
"""`Backend.start`, or another function with its signature."""


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

    def __init__(self, backend: Backend, prepared: PreparedRequest, start: Starter | None = None) -> None:
        self._answer = Answer(backend, prepared)
        self._generation: Generation | None = (start or backend.start)(
            prepared.inputs, self._answer.chooser, prepared.request.max_new_tokens
        )
        self._lock = threading.RLock()
        self._cancelled = False

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
            self.cancel()
            raise
        try:
            return self._answer.push(token_id, time.perf_counter() - began)
        finally:
            if self._answer.finish_reason:
                self._free()

    def _free(self) -> None:
        if self._generation is not None:
            self._generation.close()
            self._generation = None
