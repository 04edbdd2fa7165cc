"""A model in a process of its own, seen from the process that asks it: starts it, talks to it, starts it again.

genai holds the interpreter while it computes, minutes at a time. Elsewhere it holds nobody up, and what is no longer
wanted can be given up by ending that process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any, Self

from ..closing import Closing
from ..errors import InferenceError, ModelProcessError, Phi3VError
from ..genai.forks import check_process
from ..machine.child_process import child_command, child_environment
from ..machine.device_table import Device
from ..models.folder import ModelDir
from ..prepare import HdPreprocessor, PreparedRequest
from .crops import CropsFile, CropsFolder
from .messages import Ask, Begun, Cancel, Ended, Event, Load, Ready, Step, encode, read_message, seal, write_message

_log = logging.getLogger("phi3v")
_ENOUGH_TOKENS = 64
"""Fewer tokens say more of the overhead than of how long a token of a prompt takes."""

_LEAST_PATIENCE_S = 2.0
"""How long a process may take to end a cancelled answer, at least, before another one takes its place."""

_PATIENCE = 1.5
"""A prefill that nobody waits for is given up if the rest of it takes so many times as long as loading the model."""


@dataclass(slots=True, eq=False)
class _Pending:
    """A request that has no outcome yet."""

    number: int
    message: bytes
    """What the process is sent: a sealed `Ask`."""
    crops: CropsFile | None
    listener: Callable[[Event], None]
    begun: float | None = None
    reads: int = 0
    """Tokens that are read before its first one comes."""
    tokens: int = 0
    cancelled: float | None = None
    """When nobody waited for it any more."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A prepared request whose crops lie in shared memory. Submit it, or discard it."""

    prepared: PreparedRequest
    crops: CropsFile | None

    def discard(self) -> None:
        """Free the crops."""
        if self.crops is not None:
            self.crops.delete()


class ModelProcess(Closing):
    """A model loaded in a process of its own, which ends with this object or with this process, however that ends.

    `submit` and `cancel` may be called from any thread and never wait; listeners are called from a thread of this
    object, with every event of their request, the last an `Ended`. If the process dies, what was running ends with an
    InferenceError, and a fresh process answers what waited and what comes.
    """

    def __init__(
        self,
        folder: ModelDir,
        device: str,
        *,
        batch_size: int | None = None,
        max_memory: int | None = None,
        **options: Any,
    ) -> None:
        """Begin to load the model there; `options` are those of `GenaiBackend`. `wait_until_loaded` must follow."""
        self.folder = folder
        self.restarts = 0
        """How often another process had to take over."""
        self._load = Load(str(folder.path), device, options, batch_size, max_memory, os.getpid())
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._pending: dict[int, _Pending] = {}
        self._last = 0
        self._closed = False
        self._started = self._loaded = self._watching = False
        self._wake = threading.Event()
        self._prompt_token_s: float | None = None
        self._load_s = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._outbox: SimpleQueue[bytes | None] = SimpleQueue()
        self._crops = CropsFolder()
        self._first: SimpleQueue[Ready | Phi3VError] = SimpleQueue()
        """How the first start went."""
        # The kernel ends the process with the thread that started it, so one thread lasts as long as this object.
        threading.Thread(target=self._supervise, daemon=True, name="phi3v-model").start()

    def wait_until_loaded(self) -> Self:
        """Wait for the first process. Raises only subclasses of Phi3VError. An error or an interrupt closes this."""
        try:
            found = self._first.get()
            if isinstance(found, Phi3VError):
                raise found
        except BaseException:
            self.close()
            raise
        self.device: Device = found.device  # type: ignore[assignment]
        self.preprocessor = HdPreprocessor(self.folder, self.device)
        return self

    @property
    def process_id(self) -> int | None:
        """The process that holds the model now; None while there is none."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    @property
    def ready(self) -> bool:
        """Whether the model is loaded now."""
        return self._loaded

    def pack(self, prepared: PreparedRequest) -> Parcel:
        """Put a request's crops where the other process sees them. Takes milliseconds.

        Without room there, they travel in the message, which takes longer. Raises InferenceError in a forked child.
        """
        self.check_process()
        bare = replace(prepared, request=replace(prepared.request, images=(), earlier=()))
        if prepared.inputs.pixel_values is None:
            return Parcel(bare, None)
        from .images_key import hash_images

        inputs = replace(bare.inputs, images_key=hash_images(bare.inputs))
        try:
            crops = self._crops.write(prepared.inputs.pixel_values)
        except OSError:
            return Parcel(replace(bare, inputs=inputs), None)
        return Parcel(replace(bare, inputs=replace(inputs, pixel_values=None)), crops)

    def submit(
        self,
        parcel: Parcel,
        listener: Callable[[Event], None],
        *,
        batch_size: int | None = None,
        max_memory: int | None = None,
    ) -> int:
        """Send a request; its number is for `cancel`. Raises InferenceError if this object is closed."""
        self.check_process()
        with self._lock:
            if self._closed:
                parcel.discard()
                raise InferenceError("this engine is closed; load the model again")
            self._last += 1
            try:
                message = seal(Ask(self._last, parcel.prepared, parcel.crops, batch_size, max_memory))
            except InferenceError:
                parcel.discard()
                raise
            self._pending[self._last] = _Pending(self._last, message, parcel.crops, listener)
            self._outbox.put(message)
            self._wake.set()
            return self._last

    def cancel(self, number: int) -> None:
        """Nobody waits for this answer any more. One that has ended already is ignored."""
        self.check_process()
        with self._lock:
            pending = self._pending.get(number)
            if pending is None or pending.cancelled is not None:
                return
            pending.cancelled = time.monotonic()
            self._outbox.put(encode(Cancel(number)))
            if self._giving_up_pays():
                _log.info("a prefill that nobody waits for is given up: loading the model anew takes less time")
                self._kill()
            elif pending.begun is not None:
                self._watch()

    def close(self) -> None:
        """End the process, whatever it is doing. Raises InferenceError in a forked child."""
        self.check_process()
        with self._lock:
            self._closed = True
            self._wake.set()
            self._kill()
            pending = self._take_pending(lambda one: True)
        self._end(pending, InferenceError("this engine was closed before the answer was finished"))
        self._crops.close()

    def check_process(self) -> None:
        """Raise InferenceError in a forked child of the process that loaded the model."""
        check_process(self._owner)

    def _supervise(self) -> None:
        """Run one process after the other until this object is closed."""
        while not self._closed:
            self._wake.clear()
            failure = self._try_run()
            if failure is not None and not self._started:
                self._first.put(failure)
                return
            if failure is not None and not self._closed:
                self._fail_all(failure)
                self._wake.wait()  # what comes next is reason enough to try again
            self.restarts += 1

    def _try_run(self) -> Phi3VError | None:
        """As `_run`; what nobody foresaw is a failure too, because otherwise every request would wait for ever."""
        try:
            return self._run()
        except Exception as exc:
            _log.exception("the process that holds the model could not be run")
            return InferenceError(f"the process that holds the model could not be run ({exc!r}); ask again")

    def _run(self) -> Phi3VError | None:
        """Start a process and relay its events until it ends. Returns the error if it could not load the model."""
        with self._lock:
            if self._closed:
                return InferenceError("this engine was closed while the model was loaded")
            process = self._process = subprocess.Popen(
                child_command("phi3v.process.worker"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=child_environment(),
            )
        assert process.stdin is not None
        assert process.stdout is not None
        requests, events = process.stdin, process.stdout
        try:
            write_message(requests, self._load)
            ready = read_message(events)
            if not isinstance(ready, Ready):
                failure: Phi3VError = ready
                return failure
            self._load_s, self._loaded = ready.load_s, True
            if not self._started:
                self._started = True
                self._first.put(ready)
            writer = threading.Thread(target=_write_all, args=(self._outbox, requests), daemon=True)
            writer.start()
            self._relay(events)
            self._after_death(process, writer)
            return None
        except (EOFError, OSError):
            process.wait()
            return InferenceError(
                f"the process that was to hold the model ended with status {process.returncode} while it loaded "
                f"{self.folder.path}; -9 is the system's answer to too little memory: close other programs, or "
                "take a smaller model"
            )
        finally:
            self._loaded = False
            process.kill()
            process.wait()
            events.close()
            with contextlib.suppress(OSError):  # what the process was still to be sent
                requests.close()

    def _relay(self, events: Any) -> None:
        while True:
            try:
                event = read_message(events)
            except EOFError:
                return
            self._note(event)

    def _note(self, event: Event) -> None:
        """Keep the books, and hand the event on unless nobody waits for it."""
        with self._lock:
            pending = self._pending.get(event.number)
            if pending is None:
                return
            if isinstance(event, Begun):
                pending.begun, pending.reads = time.monotonic(), event.tokens
            elif isinstance(event, Step):
                pending.tokens += 1
                if pending.tokens == 1 and pending.reads >= _ENOUGH_TOKENS:
                    self._prompt_token_s = event.seconds / pending.reads
            else:
                self._pending.pop(event.number)
                self._discard(pending)
        if pending.cancelled is None or isinstance(event, Ended):
            pending.listener(event)

    def _after_death(self, process: subprocess.Popen[bytes], writer: threading.Thread) -> None:
        """End what was running in a process that has ended, and leave the rest to the next one."""
        process.wait()
        self._outbox.put(None)
        writer.join()
        with self._lock:
            self._outbox = SimpleQueue()
            running = self._take_pending(lambda one: one.begun is not None or one.cancelled is not None)
            for waiting in self._pending.values():
                self._outbox.put(waiting.message)
        reason = (
            f"the process that holds the model ended with status {process.returncode}, and another one is started; "
            "-9 is the system's answer to too little memory: lower the batch size or the memory limit"
        )
        self._end(running, ModelProcessError(reason))

    def _fail_all(self, failure: Phi3VError) -> None:
        with self._lock:
            self._outbox = SimpleQueue()
            self._wake.clear()
            pending = self._take_pending(lambda one: True)
        self._end(pending, InferenceError(str(failure)))

    def _take_pending(self, which: Callable[[_Pending], bool]) -> list[_Pending]:
        taken = [one for one in self._pending.values() if which(one)]
        for one in taken:
            del self._pending[one.number]
        return taken

    def _end(self, pending: list[_Pending], error: InferenceError) -> None:
        for one in pending:
            self._discard(one)
            one.listener(Ended(one.number, None, error))

    def _discard(self, pending: _Pending) -> None:
        if pending.crops is not None:
            pending.crops.delete()

    def _giving_up_pays(self) -> bool:
        """Whether the process reads a long prompt that nobody waits for, and does nothing else."""
        running = [one for one in self._pending.values() if one.begun is not None]
        unwanted = all(one.cancelled is not None and one.tokens == 0 for one in running)
        if not running or not unwanted or not self._prompt_token_s:
            return False
        rest = max(one.reads * self._prompt_token_s - (time.monotonic() - (one.begun or 0.0)) for one in running)
        return rest > _PATIENCE * self._load_s

    def _watch(self) -> None:
        """Look later whether the process has ended what was cancelled."""
        if self._watching:
            return
        self._watching = True
        timer = threading.Timer(self._patience_s, self._replace_if_stuck)
        timer.daemon = True
        timer.start()

    def _replace_if_stuck(self) -> None:
        """End a process that does not end a cancelled answer, unless it works for somebody."""
        with self._lock:
            self._watching = False
            running = [one for one in self._pending.values() if one.begun is not None]
            since = [one.cancelled for one in running if one.cancelled is not None]
            if not since or self._closed:
                return
            if len(since) == len(running) and time.monotonic() - min(since) >= self._patience_s:
                _log.info("the model does not hear a cancellation, so its process is replaced")
                self._kill()
            else:
                self._watch()

    @property
    def _patience_s(self) -> float:
        return max(_LEAST_PATIENCE_S, _PATIENCE * self._load_s)

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()


def _write_all(outbox: SimpleQueue[bytes | None], to: Any) -> None:
    """Send messages until None comes. A process that has ended is not this thread's business."""
    while (message := outbox.get()) is not None:
        try:
            to.write(message)
            to.flush()
        except (OSError, ValueError):
            return
