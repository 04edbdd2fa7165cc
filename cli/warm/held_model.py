"""The server's model: in a process of its own, asked for one answer after the other."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from phi3v import AsyncEngine, Phi3VError
from phi3v.errors import ModelFolderError, ModelProcessError, WarmEngineError
from phi3v.models.fingerprint import fingerprint_files

from ..image_check import check_images
from .frames import Message
from .wire import error_message, model_message, read_request, result_message

if TYPE_CHECKING:
    from phi3v.machine.device_table import DeviceName


class HeldModel:
    """A model that is loaded, and whose files have not changed since."""

    def __init__(self, model: Path, device: str) -> None:
        self.path = model
        self.fingerprint = ""
        self.facts: Message = {}
        """What clients are told of it: model, device, load_s."""
        self._engine = AsyncEngine(model, cast("DeviceName", device))

    async def start(self) -> None:
        """Load the model. Raises Phi3VError."""
        began, before = time.perf_counter(), fingerprint_files(self.path)
        await self._engine.start()
        if fingerprint_files(self.path) != before:
            raise ModelFolderError(f"{self.path} was changed while it was loaded; start the engine again")
        self.fingerprint = before
        facts = {"model": model_message(self._engine.model), "device": self._engine.device}
        self.facts = {**facts, "load_s": time.perf_counter() - began}

    async def answer(
        self, request: Message, images: bytes, emit: Callable[[Message], None], gone: asyncio.Task[None]
    ) -> None:
        """Have one request answered. Every message goes to `emit`; the last one is a result or an error.

        If `gone` ends first, the answer is cancelled. Raises WarmEngineError if the model's process dies meanwhile.
        """
        answering = asyncio.create_task(self._answer(request, images, emit))
        await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
        answering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await answering

    async def close(self) -> None:
        """End the model's process, whatever it is doing."""
        await self._engine.close()

    async def _answer(self, message: Message, images: bytes, emit: Callable[[Message], None]) -> None:
        try:
            request = read_request(message, images)
            await asyncio.to_thread(check_images, request.images)
            emit({"event": "begun"})
            stream = self._engine.stream_request(request)
            async for token in stream:
                emit({"event": "token", "id": token.id, "text": token.text})
            emit({"event": "result", "result": result_message(stream.result)})
        except ModelProcessError as exc:
            raise WarmEngineError("the process of the warm engine died") from exc
        except Phi3VError as exc:
            emit(error_message(exc))
