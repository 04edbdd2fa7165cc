"""An engine whose model is in a process of its own: `phi3v.load(process=True)`, and what `phi3v batch` uses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

from ..batch import DEFAULT_BATCH_SIZE, Outcome
from ..errors import InferenceError, ModelProcessError, OptionError, Phi3VError
from ..prepare import PreparedRequest
from ..stream import Answerer, SessionStreams, TokenStream
from ..types import MAX_BATCH_SIZE, GenerationRequest, GenerationResult, Timings, Token, Usage
from .messages import Begun, Ended, Event, Step
from .model_process import ModelProcess, Parcel
from .prepare_ahead import ReadyRequest, prepare_ahead

_AHEAD = 2
"""Batches' worth of requests that the other process may choose from."""


class ProcessAnswerer(Answerer):
    """Answers come from a `ModelProcess`, several at a time if several are asked for."""

    waits = True

    def __init__(self, process: ModelProcess) -> None:
        self.process = process
        self.source = process.preprocessor

    def open(self, prepared: PreparedRequest) -> ProcessStream:
        """The answer, which the other process begins at once."""
        return self.submit(self.process.pack(prepared))

    def submit(self, parcel: Parcel, notify: Callable[[], None] = lambda: None) -> ProcessStream:
        """The answer to a packed request; `notify` is called from another thread when there is something to read."""
        return ProcessStream(self.process, parcel, notify)

    def open_session(self) -> SessionStreams:
        """The other process keeps what it has read, whoever asked."""
        return _ProcessSessionStreams(self)

    def answer_all(
        self, prepared: Iterable[PreparedRequest | Phi3VError], batch_size: int | None, max_memory: int | None
    ) -> Iterator[tuple[int, Outcome]]:
        """Keeps two batches' worth of requests in the other process. What ran when that ended is asked again, once."""
        yield from self._answer_all(map(ReadyRequest, prepared), batch_size, max_memory)

    def _answer_all(
        self, requests: Iterable[ReadyRequest], batch_size: int | None, max_memory: int | None
    ) -> Iterator[tuple[int, Outcome]]:
        _check_limits(batch_size, max_memory)
        ahead = _AHEAD * (batch_size or DEFAULT_BATCH_SIZE)
        with self._collecting(batch_size or DEFAULT_BATCH_SIZE, max_memory) as (send, outcomes):
            running = 0
            for number, ready in enumerate(requests):
                if isinstance(ready.prepared, Phi3VError):
                    yield number, ready.prepared
                else:
                    send(number, ready.prepared, keep=ready.has_siblings)
                    running += 1
                while running >= ahead or (running and not outcomes.empty()):
                    yield outcomes.get()
                    running -= 1
            for _ in range(running):
                yield outcomes.get()

    def answer(
        self,
        requests: Iterable[GenerationRequest],
        *,
        workers: int = 2,
        ahead: int = 8,
        batch_size: int | None = None,
        max_memory: int | None = None,
    ) -> Iterator[tuple[int, Outcome]]:
        """Yield (number in the order given, outcome) of every request as soon as it is known.

        `workers` threads prepare requests, and at most `ahead` prepared ones wait for the other process. Images that
        several requests in a row are about (by path or URL) are read and prefilled once.
        """
        yield from self._answer_all(prepare_ahead(self.source, requests, workers, ahead), batch_size, max_memory)

    @contextmanager
    def _collecting(
        self, rows: int, max_memory: int | None
    ) -> Iterator[tuple[Callable[..., None], SimpleQueue[tuple[int, Outcome]]]]:
        """A function that sends a numbered request, and the outcomes as they come. What is left is cancelled."""
        outcomes: SimpleQueue[tuple[int, Outcome]] = SimpleQueue()
        sent: set[int] = set()

        def send(number: int, prepared: PreparedRequest, *, keep: bool = False, again: bool = False) -> None:
            def listen(event: Event) -> None:
                if not isinstance(event, Ended):
                    return
                sent.discard(event.number)
                outcome = _outcome(event)
                if isinstance(outcome, ModelProcessError) and not again:
                    try:
                        send(number, prepared, keep=keep, again=True)
                        return
                    except InferenceError as exc:  # closed meanwhile
                        outcome = exc
                outcomes.put((number, outcome))

            parcel = self.process.pack(prepared)
            shared = None if keep else rows  # the process keeps the images of what runs alone
            sent.add(self.process.submit(parcel, listen, batch_size=shared, max_memory=max_memory))

        try:
            yield send, outcomes
        finally:
            for number in list(sent):
                self.process.cancel(number)

    def close(self) -> None:
        """End the other process."""
        self.process.close()


def _outcome(event: Ended) -> Outcome:
    if event.error is not None:
        return event.error
    assert event.result is not None
    return event.result


def _check_limits(batch_size: int | None, max_memory: int | None) -> None:
    if batch_size is not None and not (isinstance(batch_size, int) and 1 <= batch_size <= MAX_BATCH_SIZE):
        raise OptionError(f"batch_size is {batch_size!r}; allowed: 1 to {MAX_BATCH_SIZE}")
    if max_memory is not None and not (isinstance(max_memory, int) and max_memory >= 1):
        raise OptionError(f"max_memory is {max_memory!r}; allowed: a positive number of bytes")


class ProcessStream(TokenStream):
    """The tokens of one answer from another process. It is computed whether or not somebody reads."""

    def __init__(self, process: ModelProcess, parcel: Parcel, notify: Callable[[], None]) -> None:
        self._process = process
        self._notify = notify
        self._prepared = parcel.prepared
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._seen: list[tuple[Token, float]] = []
        self._result: GenerationResult | None = None
        self._lock = threading.RLock()
        self._ended = False
        self.failed = False
        self.begun_at: float | None = None
        """When the model began to read the prompt, as of `time.perf_counter`."""
        self._number = process.submit(parcel, self._listen)

    def _listen(self, event: Event) -> None:
        if isinstance(event, Begun):
            self.begun_at = time.perf_counter()
            return
        self._events.put(event)
        self._notify()

    @property
    def finished(self) -> bool:
        """Whether there is a result."""
        return self._result is not None

    @property
    def result(self) -> GenerationResult:
        """The finished answer. Raises InferenceError while tokens are still to come."""
        if self._result is None:
            raise InferenceError("the answer is not finished: iterate the stream to its end, or cancel() it, first")
        return self._result

    def cancel(self) -> None:
        """End the answer here; does not wait for the step that is running."""
        self._process.check_process()
        with self._lock:
            if self._ended:
                return
            self._ended = True
            self._result = self._cancelled_result()
        self._process.cancel(self._number)
        self._events.put(Ended(self._number, self._result))  # wakes the reader
        self._notify()

    def next_token(self, *, wait: bool = True) -> Token | None:
        """The next token, None after the last. Without `wait`, raises queue.Empty if it is not there yet."""
        self._process.check_process()
        while not self._ended:
            event = self._events.get(block=wait)
            with self._lock:
                if self._ended:
                    return None
                if isinstance(event, Step):
                    self._seen.append((event.token, event.seconds))
                    return event.token
                if isinstance(event, Ended):
                    self._ended, self._result = True, event.result
                    if event.error is not None:
                        self.failed = True
                        self._result = event.result or self._cancelled_result()
                        raise event.error
        return None

    def _locked_next(self) -> Token | None:
        return self.next_token()

    def _cancelled_result(self) -> GenerationResult:
        """What has been read so far."""
        prepared, inputs = self._prepared, self._prepared.inputs
        seconds = [taken for _, taken in self._seen]
        times = Timings(
            prepared.image_decode_s, prepared.preprocess_s, sum(seconds[:1]), sum(seconds[1:]), max(0, len(seconds) - 1)
        )
        usage = Usage(len(inputs.input_ids), sum(inputs.image_tokens), len(seconds))
        text, ids = "".join(token.text for token, _ in self._seen), tuple(token.id for token, _ in self._seen)
        return GenerationResult(text, ids, "cancelled", usage, times, prepared.notes)


class _ProcessSessionStreams:
    """Streams of one session. The other process finds what they share by itself."""

    kept_tokens = 0

    def __init__(self, answerer: ProcessAnswerer) -> None:
        self._answerer = answerer

    def open(self, prepared: PreparedRequest) -> TokenStream:
        return self._answerer.open(prepared)

    def close(self) -> None:
        """The other process frees what it keeps when it needs the room."""
