"""The server's handle on the worker: start it, have it answer, cancel an answer, kill it if it does not react."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

from phi3v.errors import ModelFolderError, WarmEngineError
from phi3v.models.fingerprint import fingerprint_files

from .frames import MAX_BYTES, FrameError, Message, pack, receive_async
from .launch import child_command, child_environment
from .wire import read_error

_LEAST_PATIENCE_S = 2.0
"""How long a worker may take to cancel an answer, at least, before it is killed."""


class WorkerProcess:
    """A model loaded in a process of its own. One task at a time may call its methods; any may call `close`."""

    def __init__(self, model: Path, device: str) -> None:
        self.path = model
        self.fingerprint = ""
        self.facts: Message = {}
        """What the worker said when it was ready: model, device, load_s."""
        self._device = device
        self._environment = child_environment()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the process and wait until it has loaded the model. Raises Phi3VError."""
        before = fingerprint_files(self.path)
        if self.fingerprint and self.fingerprint != before:
            raise ModelFolderError(f"{self.path} was changed after it was loaded; start the engine again")
        ours, theirs = socket.socketpair()
        with theirs:
            arguments = (str(theirs.fileno()), str(os.getpid()), str(self.path), self._device)
            self._process = await asyncio.create_subprocess_exec(
                *child_command("phi3v.cli.warm.worker", *arguments),
                pass_fds=[theirs.fileno()],
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
            )
        self._reader, self._writer = await asyncio.open_connection(sock=ours)
        try:
            self.facts = await self._next()
        except FrameError as exc:
            raise WarmEngineError(f"{self.path}: the engine's process ended while it loaded the model") from exc
        if self.facts["event"] == "error":
            raise read_error(self.facts)
        if fingerprint_files(self.path) != before:
            raise ModelFolderError(f"{self.path} was changed while it was loaded; start the engine again")
        self.fingerprint = before

    async def answer(
        self, request: Message, images: bytes, emit: Callable[[Message], None], gone: asyncio.Task[None]
    ) -> None:
        """Have one request answered. Every frame goes to `emit`; the last one is a result or an error.

        If `gone` ends first, the answer is cancelled and nothing more is emitted. Raises WarmEngineError if the worker
        dies meanwhile. In every case the worker can take the next request afterwards, or `alive` is False.
        """
        relaying = asyncio.create_task(self._relay(request, images, emit))
        await asyncio.wait({relaying, gone}, return_when=asyncio.FIRST_COMPLETED)
        try:
            if not relaying.done():
                await self._cancel(relaying)
            await relaying
        except (FrameError, OSError) as exc:
            await self.close()
            raise WarmEngineError("the process of the warm engine died") from exc
        finally:
            relaying.cancel()

    @property
    def alive(self) -> bool:
        """Whether there is a worker that can be asked."""
        return self._process is not None

    async def close(self) -> None:
        """Kill the worker, whatever it is doing."""
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.wait()
            self._writer.close()

    async def _relay(self, request: Message, images: bytes, emit: Callable[[Message], None]) -> None:
        self._writer.write(pack({"op": "answer", "request": request}, len(images)))
        self._writer.write(images)
        await self._writer.drain()
        event = ""
        while event not in ("result", "error"):
            message = await self._next()
            event = message["event"]
            emit(message)

    async def _cancel(self, relaying: asyncio.Task[None]) -> None:
        """Wait until the running step has ended, but kill the worker once loading it anew would have been quicker."""
        self._writer.write(pack({"op": "cancel"}))
        await asyncio.wait({relaying}, timeout=max(_LEAST_PATIENCE_S, float(self.facts["load_s"])))
        if not relaying.done():
            await self.close()

    async def _next(self) -> Message:
        message, _ = await receive_async(self._reader, max_bytes=MAX_BYTES, patience_s=None)
        return message
