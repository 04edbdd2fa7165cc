"""The process that offers a warm engine: it accepts clients, queues them, cancels answers and ends when it is idle.

It computes nothing, so it can always react. Clients are answered one after the other, in the order in which they asked.
Nothing a client sends can affect another client.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from phi3v import Phi3VError, __version__
from phi3v.errors import WarmEngineError
from phi3v.models.fingerprint import fingerprint_files

from .frames import MAX_BYTES, FrameError, Message, pack, receive_async
from .held_model import HeldModel
from .identity import find_difference
from .place import same_user, socket_path
from .wire import read_model

_PATIENCE_S = 10.0
"""How long a client may be silent when it is its turn to send."""

_MOST_CLIENTS = 32
_CLIENT_FAILURES = (FrameError, OSError, TimeoutError, asyncio.IncompleteReadError)
"""What is raised when a client is gone, is too slow, or is not a client of ours."""


class Server:
    """One warm engine behind one socket.

    It ends after `keep_alive_s` (may be infinite) without a client. `on_ready` gets its status once it listens.
    """

    def __init__(self, model: Path, device: str, keep_alive_s: float, on_ready: Callable[[Message], None]) -> None:
        self._held = HeldModel(model, device)
        self._device = device
        self._keep_alive_s = keep_alive_s
        self._on_ready = on_ready
        self._path = socket_path(os.getpid())
        self._ended = asyncio.Event()
        self._turn = asyncio.Lock()
        self._clients = 0
        self._asking = 0
        """Clients that wait for an answer or are being answered."""
        self._answered = 0
        self._used_at = time.monotonic()
        self._idle: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Load the model and answer clients until a signal, a client or the idle time ends it. Raises Phi3VError."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._ended.set)
        try:
            if await self._unless_ended(self._held.start()):
                await self._listen()
        finally:
            self._path.unlink(missing_ok=True)
            await self._held.close()

    async def _listen(self) -> None:
        listening = await asyncio.start_unix_server(self._client, sock=_bind(self._path))
        with contextlib.closing(listening):  # not `async with`: from Python 3.12 on that waits for every client
            self._rearm()
            self._on_ready(self._status())
            await self._ended.wait()
            self._path.unlink(missing_ok=True)  # those that are connected load the model themselves

    async def _unless_ended(self, work: Any) -> bool:
        """Do the work, but cancel it when the server is to end. Return whether it was done."""
        task, ended = asyncio.ensure_future(work), asyncio.ensure_future(self._ended.wait())
        await asyncio.wait({task, ended}, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if not task.done():
            task.cancel()
            return False
        await task
        return True

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            if same_user(writer.get_extra_info("socket")):
                await self._serve(reader, writer)
        except _CLIENT_FAILURES:
            pass  # the other clients do not notice
        finally:
            self._clients -= 1
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        greeting, _ = await receive_async(reader, max_bytes=0, patience_s=_PATIENCE_S)
        op = greeting.get("op")
        if op == "status":
            writer.write(pack(self._status()))
        elif op == "stop":
            writer.write(pack({"event": "stopping", "pid": os.getpid()}))
            # Never closed: the client waits until the system does, which is when this process has really ended.
            os.dup(writer.get_extra_info("socket").fileno())
            self._ended.set()
        else:
            verdict = self._judge(greeting)
            writer.write(pack(verdict))
            if verdict["event"] == "welcome":
                with self._in_use():
                    await self._ask(reader, writer)
        await writer.drain()

    def _judge(self, greeting: Message) -> Message:
        """Return a welcome, or why this engine does not answer this client. `say`: whether the person should know."""
        if self._clients > _MOST_CLIENTS:
            return _refuse(f"{_MOST_CLIENTS} others are asking it")
        if (reason := find_difference(greeting)) is not None:
            return _refuse(reason)
        try:
            if fingerprint_files(self._held.path) != self._held.fingerprint:
                self._ended.set()  # no client can use it any more
                return _refuse("its model was changed after it was loaded")
            meant = self._find_match(greeting.get("model"), greeting.get("device"))
        except (Phi3VError, OSError, ValueError, TypeError):
            meant = None  # the client gets the same error when it loads the model itself
        if meant is None:
            return _refuse("it holds another model or device", say=False)
        facts = {name: self._held.facts[name] for name in ("model", "device")}
        return {"event": "welcome", "pid": os.getpid(), "path": str(meant), **facts}

    def _find_match(self, model: Any, device: Any) -> Path | None:
        """Return the folder that loading this model for this device would load now, if the engine holds just that."""
        from phi3v.machine.device import same_device
        from phi3v.models.local import resolve_model

        folder, facts = resolve_model(model, device), self._held.facts
        held = read_model(facts["model"], self._held.path)
        same = os.path.realpath(folder) == os.path.realpath(self._held.path)
        return folder if same and same_device(device, held, self._device, facts["device"]) else None

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked, images = await receive_async(reader, max_bytes=MAX_BYTES, patience_s=_PATIENCE_S)
        if asked.get("keep_alive_s") is not None:
            self._keep_alive_s = _check_seconds(asked["keep_alive_s"])
        gone = asyncio.create_task(_wait_for_end(reader))

        def emit(message: Message) -> None:
            # Not drained: a client that reads slowly must not block the engine. An answer is a few megabytes at most.
            if not gone.done():
                writer.write(pack(message))

        try:
            async with self._in_turn(emit):
                if not gone.done():
                    await self._held.answer(asked.get("request", {}), images, emit, gone)
            self._answered += not gone.done()
        except WarmEngineError as exc:
            emit({"event": "lost", "reason": str(exc)})
        finally:
            gone.cancel()

    @contextlib.asynccontextmanager
    async def _in_turn(self, emit: Any) -> AsyncIterator[None]:
        """Wait until those who asked before are answered."""
        if self._turn.locked():
            emit({"event": "waiting", "before": self._asking - 1})
        async with self._turn:
            yield

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[None]:
        self._asking += 1
        self._rearm()
        try:
            yield
        finally:
            self._asking -= 1
            self._used_at = time.monotonic()
            self._rearm()

    def _rearm(self) -> None:
        """Restart the idle time, or stop it while a client is being answered."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if not self._asking and self._keep_alive_s < math.inf:
            self._idle = asyncio.get_running_loop().call_later(self._keep_alive_s, self._ended.set)

    def _status(self) -> Message:
        return {
            "event": "status",
            "pid": os.getpid(),
            "phi3v": __version__,
            "model": self._held.facts["model"],
            "device": self._held.facts["device"],
            "answered": self._answered,
            "asking": self._asking,
            "idle_s": 0.0 if self._asking else time.monotonic() - self._used_at,
            "keep_alive_s": self._keep_alive_s,
        }


async def _wait_for_end(reader: asyncio.StreamReader) -> None:
    """Return when the client has closed the connection, or sends anything, which it must not at this point."""
    with contextlib.suppress(OSError):
        await reader.read(1)


def _bind(path: Path) -> socket.socket:
    """Return a listening socket of mode 0600.

    It gets its name only once it listens, because clients remove a socket that refuses them.
    """
    listener = socket.socket(socket.AF_UNIX)
    unnamed = path.with_suffix(".new")
    unnamed.unlink(missing_ok=True)
    listener.bind(str(unnamed))
    unnamed.chmod(0o600)
    listener.listen()
    unnamed.rename(path)
    return listener


def _check_seconds(given: Any) -> float:
    """Check a client's idle time. Raises FrameError."""
    if not isinstance(given, int | float) or not given >= 0:
        raise FrameError(f"keep_alive_s is {given!r}")
    return given


def _refuse(reason: str, *, say: bool = True) -> Message:
    return {"event": "unfit", "reason": reason, "say": say}
