"""An engine in a process of its own, so that this process stays free while it computes.

genai holds the interpreter while it computes, minutes at a time, so nothing else in its process runs: no Ctrl-C, no
progress, no decoding of the next images. Here, threads of this process prepare requests and send them ahead, up to a
limit.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from ..batch import Outcome
from ..closing import Closing
from ..errors import InferenceError, Phi3VError
from ..machine.child_process import die_with
from ..machine.device_table import Device, DeviceName
from ..models.folder import ModelDir
from ..prepare import HdPreprocessor, PreparedRequest, attempt
from ..types import GenerationRequest


class EngineProcess(Closing):
    """A model loaded in a process of its own, which ends with this object or with this process, however that ends.

    Create it in a thread that lasts, such as the main one: on Linux the kernel ends the process with that thread.
    """

    def __init__(
        self,
        model: ModelDir,
        device: DeviceName | None = None,
        *,
        batch_size: int | None = None,
        max_memory: int | None = None,
    ) -> None:
        """Load the model there; options as of `Engine.generate_batch`. Raises only subclasses of Phi3VError."""
        context = multiprocessing.get_context("spawn")
        their_requests, self._requests = context.Pipe(duplex=False)
        self._outcomes, their_outcomes = context.Pipe(duplex=False)
        arguments = (str(model.path), device, batch_size, max_memory, their_requests, their_outcomes, os.getpid())
        self._process = context.Process(target=_work, args=arguments, daemon=True)
        self._process.start()
        their_requests.close()  # so that each pipe closes when the other process ends
        their_outcomes.close()
        try:
            self.device: Device = self._receive()
        except BaseException:
            self.close()
            raise
        self._preprocessor = HdPreprocessor(model, self.device)

    def answer(
        self, requests: Iterable[GenerationRequest], *, workers: int = 2, ahead: int = 8
    ) -> Iterator[tuple[int, Outcome]]:
        """Yield (number in the order given, outcome) of every request as soon as it is known.

        `workers` threads prepare requests, and at most `ahead` prepared ones wait for the other process. Raises
        InferenceError if that process dies or has been closed; leaving this iteration early closes it.
        """
        if self._outcomes.closed:
            raise InferenceError("this engine is closed; start another EngineProcess")
        feeder = _Feeder(self._requests, self._preprocessor, requests, workers, ahead)
        feeder.start()
        complete = False
        try:
            while (found := self._receive()) is not None:
                yield found
            complete = True
        finally:
            if not complete:
                self.close()  # outcomes still on their way belong to this call, and must not reach the next one
        feeder.join()
        if feeder.failure is not None:
            raise feeder.failure

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.join()
        self._requests.close()
        self._outcomes.close()

    def _receive(self) -> Any:
        try:
            found = self._outcomes.recv()
        except (EOFError, ConnectionResetError) as exc:
            self._process.join()
            raise InferenceError(
                f"the engine's process ended with status {self._process.exitcode}; -9 is the system's answer to too "
                "little memory: lower the batch size or the memory limit"
            ) from exc
        if isinstance(found, Exception):
            raise found
        return found


class _Feeder(threading.Thread):
    """Prepares requests and sends them on; `failure` is what ended it early."""

    def __init__(
        self,
        to: Connection[Any, Any],
        preprocessor: HdPreprocessor,
        requests: Iterable[GenerationRequest],
        workers: int,
        ahead: int,
    ) -> None:
        super().__init__(daemon=True, name="phi3v-prepare")
        self._to, self._preprocessor, self._requests = to, preprocessor, requests
        self._workers, self._ahead = workers, ahead
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            for prepared in self._prepare_all():
                if not self._send(_without_images(prepared)):
                    return
        except BaseException as exc:
            self.failure = exc
        self._send(None)

    def _send(self, message: PreparedRequest | Phi3VError | None) -> bool:
        """Send to the other process; False if it has ended, which `_receive` then reports."""
        try:
            self._to.send(message)
        except OSError:
            return False
        return True

    def _prepare_all(self) -> Iterator[PreparedRequest | Phi3VError]:
        waiting: deque[Future[PreparedRequest | Phi3VError]] = deque()
        with ThreadPoolExecutor(self._workers) as pool:
            for request in self._requests:
                waiting.append(pool.submit(attempt, self._preprocessor, request))
                if len(waiting) >= self._ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()


def _without_images(prepared: PreparedRequest | Phi3VError) -> PreparedRequest | Phi3VError:
    """Drop the images: the other process needs their crops only, and open files cannot be sent."""
    if isinstance(prepared, Phi3VError):
        return prepared
    return replace(prepared, request=replace(prepared.request, images=()))


def _work(
    model: str,
    device: DeviceName | None,
    batch_size: int | None,
    max_memory: int | None,
    requests: Connection[Any, Any],
    outcomes: Connection[Any, Any],
    parent: int,
) -> None:
    """Run in the other process: load, then answer requests until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that was started by a person
    die_with(parent)
    from ..engine import load

    with suppress(EOFError, OSError):
        try:
            with load(model, device) as engine:
                outcomes.send(engine.device)
                while True:
                    coming = iter(requests.recv, None)
                    for found in engine.answer_prepared(coming, batch_size, max_memory):
                        outcomes.send(found)
                    outcomes.send(None)
        except Phi3VError as exc:
            outcomes.send(exc)
