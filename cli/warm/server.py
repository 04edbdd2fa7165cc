"""The process that offers a warm engine: it accepts, checks, queues, cancels and ends in time; it computes nothing.

Clients are answered one after the other, in the order in which they asked. Whatever a client sends, only that client
is refused for it.
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

from .fingerprint import fingerprint
from .frames import MAX_BYTES, FrameError, Message, pack, receive_async
from .identity import another_installation
from .place import same_user, socket_path
from .worker_process import WorkerProcess

_PATIENCE_S = 10.0
"""How long a client may send nothing where it is to send something."""

_MOST_CLIENTS = 32
_TOLD_APART = (FrameError, OSError, TimeoutError, asyncio.IncompleteReadError)


class Server:
    """One warm engine behind one socket. `on_ready` gets its status when it listens; `keep_alive_s` may be infinite."""

    def __init__(self, model: Path, device: str, keep_alive_s: float, on_ready: Callable[[Message], None]) -> None:
        self._worker = WorkerProcess(model, device)
        self._keep_alive_s = keep_alive_s
        self._on_ready = on_ready
        self._path = socket_path(os.getpid())
        self._ended = asyncio.Event()
        self._turn = asyncio.Lock()
        self._clients = 0
        self._asking = 0
        """Clients that ask or are answered."""
        self._answered = 0
        self._used_at = time.monotonic()
        self._idle: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Load, listen, answer, until a signal, a client or the idle time ends it. Raises Phi3VError leaves."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._ended.set)
        try:
            if await self._unless_ended(self._worker.start()):
                await self._listen()
        finally:
            self._path.unlink(missing_ok=True)
            await self._worker.close()

    async def _listen(self) -> None:
        listening = await asyncio.start_unix_server(self._client, sock=_bound(self._path))
        with contextlib.closing(listening):  # not `async with`: from Python 3.12 on that waits for every client
            self._rearm()
            self._on_ready(self._status())
            await self._ended.wait()
            self._path.unlink(missing_ok=True)  # nobody new comes, and whoever is connected falls back

    async def _unless_ended(self, work: Any) -> bool:
        """Do the work, but not beyond the end of the server; whether it was done."""
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
        except _TOLD_APART:
            pass  # gone, too slow, or no client of ours; the others do not notice
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
            os.dup(writer.get_extra_info("socket").fileno())  # left to the system, which closes it with this process
            self._ended.set()
        else:
            verdict = self._verdict(greeting)
            writer.write(pack(verdict))
            if verdict["event"] == "welcome":
                with self._in_use():
                    await self._ask(reader, writer)
        await writer.drain()

    def _verdict(self, greeting: Message) -> Message:
        """A welcome, or why this engine does not answer this client; `say` tells whether a person should know."""
        if self._clients > _MOST_CLIENTS:
            return _unfit(f"{_MOST_CLIENTS} others are asking it")
        if (reason := another_installation(greeting)) is not None:
            return _unfit(reason)
        try:
            if fingerprint(self._worker.path) != self._worker.fingerprint:
                self._ended.set()  # it can never be of use again
                return _unfit("its model was changed after it was loaded")
            meant = self._meant(greeting.get("model"), greeting.get("device"))
        except (Phi3VError, OSError, ValueError, TypeError):
            meant = None  # whoever loads it instead gets the error
        if meant is None:
            return _unfit("it holds another model or device", say=False)
        facts = {name: self._worker.facts[name] for name in ("model", "device")}
        return {"event": "welcome", "pid": os.getpid(), "path": str(meant), **facts}

    def _meant(self, model: Any, device: Any) -> Path | None:
        """The folder that loading this model for this device now would load, if it is what the engine holds."""
        from phi3v.machine.device import choose_device
        from phi3v.models.local import resolve_model

        folder, facts = resolve_model(model, device), self._worker.facts
        same = os.path.realpath(folder) == os.path.realpath(self._worker.path)
        return folder if same and choose_device(device, facts["model"]["built_for"]) == facts["device"] else None

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked, pictures = await receive_async(reader, max_bytes=MAX_BYTES, patience_s=_PATIENCE_S)
        if asked.get("keep_alive_s") is not None:
            self._keep_alive_s = _seconds(asked["keep_alive_s"])
        gone = asyncio.create_task(_wait_for_end(reader))

        def emit(message: Message) -> None:
            # Not drained: who reads slowly must not hold the engine. A whole answer is a few megabytes at most.
            if not gone.done():
                writer.write(pack(message))

        try:
            async with self._in_turn(emit, gone):
                if not gone.done():
                    await self._worker.answer(asked.get("request", {}), pictures, emit, gone)
            self._answered += not gone.done()
        except WarmEngineError as exc:
            emit({"event": "lost", "reason": str(exc)})
        finally:
            gone.cancel()

    @contextlib.asynccontextmanager
    async def _in_turn(self, emit: Any, gone: asyncio.Task[None]) -> AsyncIterator[None]:
        """Wait for those who asked before; then for a worker, when the last one did not survive."""
        if self._turn.locked():
            emit({"event": "waiting", "before": self._asking - 1})
        async with self._turn:
            try:
                yield
            finally:
                await self._revive()

    async def _revive(self) -> None:
        if self._worker.alive or self._ended.is_set():
            return
        try:
            await self._unless_ended(self._worker.start())
        except (Phi3VError, OSError):
            self._ended.set()  # what cannot be loaded any more is of no use

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
        """Let the idle time begin anew, or not run while somebody is being answered."""
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
            "model": self._worker.facts["model"],
            "device": self._worker.facts["device"],
            "answered": self._answered,
            "asking": self._asking,
            "idle_s": 0.0 if self._asking else time.monotonic() - self._used_at,
            "keep_alive_s": self._keep_alive_s,
        }


async def _wait_for_end(reader: asyncio.StreamReader) -> None:
    """Returns when the client has closed the connection, or says what it has no business to say."""
    with contextlib.suppress(OSError):
        await reader.read(1)


def _bound(path: Path) -> socket.socket:
    """A listening socket of mode 0600. Named once it listens: a name that refuses is taken for a dead one."""
    listener = socket.socket(socket.AF_UNIX)
    unnamed = path.with_suffix(".new")
    unnamed.unlink(missing_ok=True)
    listener.bind(str(unnamed))
    unnamed.chmod(0o600)
    listener.listen()
    unnamed.rename(path)
    return listener


def _seconds(given: Any) -> float:
    """A client's idle time."""
    if not isinstance(given, int | float) or not given >= 0:
        raise FrameError(f"keep_alive_s is {given!r}")
    return given


def _unfit(reason: str, *, say: bool = True) -> Message:
    return {"event": "unfit", "reason": reason, "say": say}
